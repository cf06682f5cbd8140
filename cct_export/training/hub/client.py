"""The Hugging Face Hub's side: one commit, in one attempt, or one line that says why not."""

import contextlib
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cct_export.errors import CCTExportError, MissingDependency, OutputError
from cct_export.machine import versions

# To find the Hub, and to wait for each of its answers.
CONNECT_S, ANSWER_S = 10.0, 60.0
_AGAIN = (408, 429)
_LONGEST_REASON = 300


@dataclass(frozen=True)
class Commit:
    """A commit of the Hub.

    Attributes:
        repository: ``OWNER/NAME``.
        checksum: of the commit.
        url: where it can be looked at.
    """

    repository: str
    checksum: str
    url: str


def check_id(hub_id: str) -> None:
    """Raises ``OutputError`` if ``hub_id`` cannot be a repository's name."""
    library = _library()
    try:
        library.utils.validate_repo_id(hub_id)
        if "/" not in hub_id:
            raise ValueError("the card names it, for others to load")
    except ValueError as error:
        raise OutputError(
            f"{hub_id!r} cannot be a repository of the Hub, write OWNER/NAME: {_line(error)}"
        ) from error


def _library() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.utils
    except ImportError as error:
        raise MissingDependency.of("huggingface_hub", "hub") from error
    return huggingface_hub


def send(
    hub_id: str, files: Mapping[str, bytes], message: str, revision: str | None, private: bool
) -> Commit:
    """Makes the repository if there is none, and one commit with all files.

    Args:
        hub_id: ``OWNER/NAME``.
        files: content by name.
        message: of the commit.
        revision: branch, made if there is none; None for ``main``.
        private: make the repository private; one that is public already is refused.

    Raises:
        MissingDependency: huggingface_hub is not installed.
        OutputError: no token, a refusal, no connection, no answer. Nothing was committed, or in
            the last case it is not known.
    """
    check_id(hub_id)
    library = _library()
    with _in_one_line(hub_id), _quietly(library), _one_attempt(library):
        api = library.HfApi(
            token=_token(library),
            library_name="cct-export",
            library_version=versions("cct-export").get("cct-export"),
        )
        made = api.create_repo(hub_id, private=private or None, exist_ok=True)
        repository = made.repo_id
        if private and not api.repo_info(repository).private:
            raise OutputError(
                f"{repository} is there already, and public: make it private in its settings, or "
                "leave --private out"
            )
        # A reference such as refs/pr/1 is not made but opened.
        if revision is not None and not revision.startswith("refs/"):
            api.create_branch(repository, branch=revision, exist_ok=True)
        # As streams the library sends files by HTTP: time-outs hold, and what is tested is run.
        operations = [
            library.CommitOperationAdd(path_in_repo=name, path_or_fileobj=io.BytesIO(content))
            for name, content in files.items()
        ]
        done = api.create_commit(repository, operations, commit_message=message, revision=revision)
        return Commit(repository, done.oid, done.commit_url)


def _token(library: Any) -> str:
    token: str | None = library.get_token()
    if not token:
        raise OutputError(
            "no token for the Hugging Face Hub: log in with `hf auth login`, or set HF_TOKEN"
        )
    # The HTTP client would say what it cannot send, and that is a secret.
    if not re.fullmatch(r"[!-~]+", token):
        raise OutputError("the token for the Hugging Face Hub holds characters that no token has")
    return token


@contextlib.contextmanager
def _quietly(library: Any) -> Iterator[None]:
    """Keeps the library from drawing bars and from noting what is done on purpose here."""
    tools = library.utils
    bars, level = not tools.are_progress_bars_disabled(), tools.logging.get_verbosity()
    tools.disable_progress_bars()
    tools.logging.set_verbosity_error()
    try:
        yield
    finally:
        tools.logging.set_verbosity(level)
        if bars:
            tools.enable_progress_bars()


@contextlib.contextmanager
def _one_attempt(library: Any) -> Iterator[None]:
    """Gives the library's HTTP client time-outs, and an end to what it would try again.

    It has none, and tries some requests six times. An error that is not the HTTP client's ends
    its loop. The client itself is kept: it may be the user's own, with a proxy.
    """
    client = library.utils.get_session()
    send, timeout = client.send, client.timeout

    def once(request: Any, **options: Any) -> Any:
        try:
            response = send(request, **options)
        except Exception as error:
            raise OutputError(_unreached(request.url.host, error)) from error
        if response.status_code in _AGAIN or response.status_code >= 500:
            raise OutputError(
                f"{request.url.host} answered {response.status_code} "
                f"({response.reason_phrase}): try again later"
            )
        return response

    client.send, client.timeout = once, (CONNECT_S, ANSWER_S, ANSWER_S, CONNECT_S)
    try:
        yield
    finally:
        client.timeout = timeout
        del client.send


def _unreached(host: str, error: Exception) -> str:
    # By name: which HTTP client it is depends on the library's version.
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "ConnectTimeout" in kinds:
        return f"{host} could not be reached within {CONNECT_S:g} s"
    if "TimeoutException" in kinds:
        return (
            f"{host} did not answer within {ANSWER_S:g} s: look there whether the commit arrived "
            "before you try again"
        )
    if "ConnectError" not in kinds and kinds & {"NetworkError", "RemoteProtocolError"}:
        return f"the connection to {host} broke: {_line(error)}"
    return f"{host} could not be reached: {_line(error)}"


@contextlib.contextmanager
def _in_one_line(hub_id: str) -> Iterator[None]:
    """Turns whatever the library raises into ``OutputError``."""
    try:
        yield
    except Exception as error:
        causes = [error]
        while causes[-1].__cause__ is not None and isinstance(causes[-1].__cause__, Exception):
            causes.append(causes[-1].__cause__)
        for cause in causes:
            if isinstance(cause, CCTExportError):
                raise cause from cause.__cause__
            status = getattr(getattr(cause, "response", None), "status_code", None)
            if status is not None:
                raise OutputError(_refusal(hub_id, status, cause)) from error
        raise OutputError(_misunderstood(hub_id, error)) from error


def _refusal(hub_id: str, status: int, error: Exception) -> str:
    reason = _line(getattr(error, "server_message", None) or error)
    if status == 401:
        return "the Hub does not take the token (401): log in again with `hf auth login`"
    if status == 403:
        return f"the token may not write to {hub_id} (403): {reason}"
    return f"the Hub refused {hub_id} ({status}): {reason}"


def _misunderstood(hub_id: str, error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError | KeyError):
        return "what answered is not the Hugging Face Hub: is HF_ENDPOINT set rightly?"
    return f"could not send to {hub_id}: {_line(error)}"


def _line(reason: object) -> str:
    text = " ".join(str(reason).split()) or type(reason).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]} ..."
