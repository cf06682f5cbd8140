"""What `make` installs is pinned to checksums, complete, and agrees with constraints.txt."""

import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cct_export.files import sha256

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Where the tests themselves install something, in environments of their own.
INSTALLING_TESTS = ("importers/test_import_torch.py", "importers/test_import_saved_model.py")


def _entries(name):
    """The requirements of a file and of the files that it names, a line each."""
    path = ROOT / "requirements" / name
    for line in path.read_text().replace("\\\n", "").splitlines():
        if line.startswith("-r "):
            yield from _entries(line.removeprefix("-r "))
        elif not line.startswith("#"):
            yield line


def _versions(name):
    entries = (re.split(r"==| ", line, maxsplit=2)[:2] for line in _entries(name))
    return {canonicalize_name(name): version for name, version in entries}


def _constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {canonicalize_name(name): version for name, version in (x.split("==") for x in lines)}


def _needed(package, extra="", seen=None):
    """Everything that a package, with an extra, needs on this Python, directly or not."""
    seen = {} if seen is None else seen
    for text in _dependencies(package, extra):
        required = Requirement(text)
        name = canonicalize_name(required.name)
        if required.marker and not required.marker.evaluate({"extra": extra}):
            continue
        for wanted in ("", *required.extras):
            if (text, wanted) not in seen:
                seen[text, wanted] = required
                _needed(name, wanted, seen)
    return [required for required in seen.values() if required.name != "cct-export"]


def _dependencies(package, extra):
    if package == "cct-export":  # as pyproject.toml has it now, not when it was installed
        project = PROJECT["project"]
        return project["optional-dependencies"][extra] if extra else project["dependencies"]
    try:
        return metadata.requires(package) or ()
    except metadata.PackageNotFoundError:
        pytest.fail(f"{package} is needed, and not installed: make .venv/test")


@pytest.mark.parametrize("extra", ["all", "dev"])
def test_every_requirement_has_checksums_and_the_version_of_the_constraints(extra):
    constraints = _constraints()
    entries = list(_entries(f"{extra}.txt"))
    assert len(entries) > 50
    for entry in entries:
        pinned = r"([\w.-]+)==(\S+)( ;.*?)?((\s+--hash=sha256:[0-9a-f]{64})+)"
        name, version = re.fullmatch(pinned, entry).group(1, 2)
        pin = constraints.get(canonicalize_name(name))
        assert pin == version, f"pin {name}, run python docs/write_requirements.py"


@pytest.mark.parametrize("extra", ["all", "dev"])
def test_the_requirements_have_all_that_an_extra_and_the_build_need(extra):
    versions = _versions(f"{extra}.txt")
    build = PROJECT["build-system"]["requires"]
    for required in [*_needed("cct-export", extra), *map(Requirement, build)]:
        version = versions[canonicalize_name(required.name)]
        assert required.specifier.contains(version, prereleases=True), required


def test_no_pin_is_left_of_what_nothing_installs():
    tests = "".join((ROOT / "tests" / name).read_text() for name in INSTALLING_TESTS)
    named = {canonicalize_name(name) for name in re.findall(r'"([\w-]+)"', tests)}
    assert _constraints().keys() - _versions("dev.txt").keys() - named == set()


def test_no_address_is_in_what_pip_reads():
    for path in (ROOT / "constraints.txt", *(ROOT / "requirements").iterdir()):
        assert not re.search(r"://|^ *-(?!r |-hash=)|index", path.read_text(), re.M), path.name


def _installs(goal):
    """The commands of pip that a goal runs."""
    command = ["make", "--dry-run", "--always-make", goal]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if " -m pip " in line]


@pytest.mark.parametrize(("goal", "extra"), [("demo", "all"), ("test", "dev")])
def test_make_installs_by_checksum_and_then_the_package_alone(goal, extra):
    libraries, package = _installs(goal)
    assert libraries.endswith(f" --require-hashes --requirement requirements/{extra}.txt")
    assert package.endswith(" --no-index --no-deps --no-build-isolation --editable .")


@pytest.fixture
def install(tmp_path):
    """Lets the pip of `make demo` try a file that is made here; returns the process."""

    def run(file_name, digest=None):
        with zipfile.ZipFile(tmp_path / file_name, "w") as archive:
            archive.writestr("some.py", "")
            metadata_file = "Metadata-Version: 2.1\nName: some\nVersion: 1.0\n"
            archive.writestr("some-1.0.dist-info/METADATA", metadata_file)
            archive.writestr("some-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        digest = digest or sha256(tmp_path / file_name)
        requirements = tmp_path / "requirements.txt"
        requirements.write_text(f"some==1.0 --hash=sha256:{digest}\n")
        _, *options = shlex.split(_installs("demo")[0])
        command = [sys.executable, *options[:-1], requirements]
        command += ["--dry-run", "--no-index", "--find-links", tmp_path]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    return run


def test_a_wheel_with_its_checksum_is_installed(install):
    assert install("some-1.0-py3-none-any.whl").returncode == 0


def test_a_wheel_with_another_checksum_is_refused(install):
    done = install("some-1.0-py3-none-any.whl", "0" * 64)
    assert done.returncode == 1
    assert "DO NOT MATCH THE HASHES" in done.stderr


def test_a_source_that_would_run_code_is_refused_even_with_its_checksum(install):
    done = install("some-1.0.zip")
    assert done.returncode == 1
    assert "No matching distribution found for some==1.0" in done.stderr
