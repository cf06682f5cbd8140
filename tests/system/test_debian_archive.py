"""Which of the machine's archives Debian packages are downloaded from."""

import debian_archive
import pytest

STANZAS = """\
Types: deb
URIs: http://archive.test/security
Suites: hops-security
Components: main

Types: deb
URIs: http://others.test/
Suites: hops
Components: main

Types: deb
# a mirror
URIs: http://archive.test/debian
Suites: hops hops-updates
Components: main
"""
LINES = """\
# deb http://off.test/debian hops main
# deb http://off.test/debian hops-updates main
deb http://others.test/ hops main
deb [signed-by=/a/key.gpg] http://archive.test/debian hops main contrib
deb [signed-by=/a/key.gpg] http://archive.test/debian hops-updates main contrib
deb http://archive.test/security hops-security main
"""


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "sources.list.d").mkdir()
    return tmp_path


def test_the_archive_with_updates_has_the_backports(settings):
    (settings / "sources.list.d" / "debian.sources").write_text(STANZAS)
    name, text = debian_archive.archive("hops", settings)
    archive = STANZAS.rpartition("\n\n")[2]
    assert name == "archive.sources"
    assert text == f"{archive}\n{archive.replace('hops hops-updates', 'hops-backports')}"


def test_sources_of_one_line_work_too(settings):
    (settings / "sources.list").write_text(LINES)
    name, text = debian_archive.archive("hops", settings)
    assert name == "archive.list"
    start = "deb [signed-by=/a/key.gpg] http://archive.test/debian"
    suites = ("hops", "hops-updates", "hops-backports")
    assert text.splitlines() == [f"{start} {suite} main contrib" for suite in suites]


@pytest.mark.parametrize("text", ["", STANZAS.replace("Types", "Enabled: no\nTypes")])
def test_a_machine_without_an_archive_is_reported(settings, text):
    (settings / "sources.list.d" / "debian.sources").write_text(text)
    with pytest.raises(debian_archive.Unavailable, match="no archive of hops"):
        debian_archive.archive("hops", settings)
