"""Errors of ``cct-export push``: one line each, and nothing is committed."""

import socket
import sys

import pytest
from hub_stand_in import DROP, HANG, TOKEN

from cct_export import api
from cct_export.errors import MissingDependency, OutputError
from cct_export.training import hub as hub_module

library = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

ID = "somebody/tiny-cct"
BUSY = (503, b"<html>busy</html>")


@pytest.fixture
def refused(push, hub, monkeypatch):
    """Runs a push that must end in one line without a commit; returns the line."""
    # The library waits between its attempts.
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    def run(*arguments):
        ended = push(*arguments)
        assert ended.code == 1, ended.err
        assert ended.out == ""
        *notes, line = ended.err.splitlines()
        assert line.startswith("error: ")
        assert all("show the path" in note for note in notes)
        assert TOKEN not in ended.err
        assert not any(repository.commits for repository in hub.repositories.values())
        return line

    return run


def test_without_a_token_no_request_is_sent(refused, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "")
    assert "no token for the Hugging Face Hub: log in with" in refused()
    assert hub.requests == []


def test_a_token_that_the_hub_does_not_accept_is_an_error(refused, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    assert "the Hub does not accept the token (401)" in refused()


@pytest.mark.parametrize("token", ["hf_secret\tpart", "hf_ünder", "hf_two words"])
def test_an_invalid_token_is_refused_and_not_shown(refused, hub, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    line = refused()
    assert "has characters that no token has" in line
    assert "hf_" not in line
    assert hub.requests == []


@pytest.mark.parametrize("path", ["/api/repos/create", "/preupload/", "/commit/"])
def test_a_token_without_write_permission_is_an_error(refused, hub, path):
    hub.answers[path] = (403, {"error": "You don't have the rights to create a model"})
    line = refused()
    assert "the token may not write to somebody/tiny-cct (403)" in line
    assert "You don't have the rights" in line


@pytest.mark.parametrize(
    ("path", "status"),
    [("/api/repos/create", 429), ("/preupload/", 408), ("/preupload/", 503), ("/commit/", 500)],
)
def test_a_busy_hub_is_an_error_after_the_librarys_attempts(refused, hub, path, status):
    hub.answers[path] = (status, b"<html>busy</html>")
    assert f"127.0.0.1 answered {status} (" in refused()


@pytest.mark.parametrize("path", ["/objects/batch", "/objects/"])
def test_a_large_file_that_cannot_be_uploaded_is_an_error(refused, hub, path):
    hub.large = (".keras", ".npz")
    hub.answers[path] = BUSY
    assert "127.0.0.1 answered 503" in refused()


def test_invalid_metadata_is_an_error_in_the_hubs_words(refused):
    line = refused("--license", "no-such-license")
    assert '"license" must be one of [apache-2.0, mit]' in line


@pytest.mark.parametrize("path", ["/api/repos/create", "/validate-yaml", "/preupload/", "/commit/"])
def test_a_server_that_is_not_the_hub_is_an_error(refused, hub, path):
    hub.answers[path] = (200, b"<html>Welcome to the wireless of the hotel</html>")
    assert "the server is not the Hugging Face Hub: check HF_ENDPOINT" in refused()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/api/repos/create", "the server is not the Hugging Face Hub"),
        ("/preupload/", "could not push to somebody/tiny-cct: "),
        ("/commit/", "the server is not the Hugging Face Hub"),
    ],
)
def test_a_response_of_another_structure_is_an_error(refused, hub, path, reason):
    hub.answers[path] = (200, {"welcome": True})
    assert reason in refused()


def test_a_revision_that_is_no_branch_is_refused(refused):
    assert "the Hub refused somebody/tiny-cct (404)" in refused("--revision", "refs/pr/7")


def test_an_unreachable_server_is_an_error(refused, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setattr(library.constants, "ENDPOINT", url)
        assert "127.0.0.1 could not be reached: " in refused()


@pytest.mark.parametrize("path", ["/api/repos/create", "/preupload/", "/commit/"])
def test_a_broken_connection_is_an_error(refused, hub, path):
    hub.answers[path] = DROP
    assert "the connection to 127.0.0.1 broke: " in refused()


def test_offline_mode_is_an_error(refused, hub, monkeypatch):
    monkeypatch.setattr(library.constants, "HF_HUB_OFFLINE", True)
    assert "offline mode is enabled" in refused()
    assert hub.requests == []


@pytest.mark.parametrize("path", ["/api/repos/create", "/preupload/", "/objects/", "/commit/"])
def test_a_hub_that_does_not_respond_is_a_timeout(refused, hub, monkeypatch, path):
    monkeypatch.setattr(hub_module, "RESPONSE_TIMEOUT_S", 0.2)
    hub.large = (".keras",)
    hub.answers[path] = HANG
    assert "127.0.0.1 did not answer within 0.2 s: look there whether the commit" in refused()


@pytest.mark.parametrize("fails", [False, True])
def test_the_librarys_settings_are_restored(hub, pushable, fails):
    client = library.utils.get_session()
    before = client.timeout
    bars = library.utils.are_progress_bars_disabled()
    if fails:
        hub.answers["/commit/"] = (400, b"")
        with pytest.raises(OutputError):
            api.push(ID, run=pushable.path)
    else:
        assert api.push(ID, run=str(pushable.path), artifacts=[]).url.startswith(hub.url)
    assert library.utils.get_session() is client
    assert client.timeout == before
    assert library.utils.are_progress_bars_disabled() == bars


@pytest.mark.parametrize(
    "hub_id", ["a b/c", "datasets/a/b", "a--b", "-x", "a/b.git", "", "../b", "alone"]
)
def test_a_name_that_no_repository_can_have_is_refused(in_process, finished, hub_id):
    ended = in_process("export", "push", "--run", finished.run.path, "--", hub_id)
    assert ended.code == 1, ended.err
    (line,) = ended.err.splitlines()
    assert f"error: {hub_id!r} cannot be a repository of the Hub, write OWNER/NAME: " in line


def test_a_missing_library_is_named_with_its_extra(in_process, monkeypatch, finished):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    ended = in_process("export", "push", ID, "--run", finished.run.path)
    assert ended.code == MissingDependency.exit_code
    assert "huggingface_hub is not installed: pip install 'cct-export[hub]'" in ended.err
