"""Pushing a finished run to the Hugging Face Hub, in one commit."""

import contextlib
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cct_export.errors import InvalidArtifact, InvalidModel, MissingDependency, OutputError
from cct_export.machine import versions
from cct_export.records import Pushed, SentFile, sidecar, weights
from cct_export.training.card import for_repository
from cct_export.training.run import RunDirectory, RunRecord

# Time-outs of the library's HTTP client, which has none by default.
CONNECT_TIMEOUT_S, RESPONSE_TIMEOUT_S = 10.0, 60.0
_MAX_REASON_LENGTH = 300
# Messages by class of the HTTP client's errors; the first that matches counts.
_TRANSPORT_ERRORS = {
    "ConnectTimeout": "{host} could not be reached within {connect:g} s",
    "TimeoutException": "{host} did not answer within {response:g} s: look there whether the "
    "commit arrived before you try again",
    "ConnectError": "{host} could not be reached: {reason}",
    "NetworkError": "the connection to {host} broke: {reason}",
    "RemoteProtocolError": "the connection to {host} broke: {reason}",
}
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")
_YAML_FENCE = "---\n"


def push(
    hub_id: str,
    run: Path,
    artifacts: Sequence[Path],
    license: str | None,
    revision: str | None,
    private: bool,
    dry_run: bool,
) -> Pushed:
    """Pushes a run, see ``cct_export.api.push``."""
    _check_id(hub_id)
    directory = RunDirectory(run)
    record = _finished_record(directory)
    files, notes = _collect(directory, artifacts)
    card = directory.card_file.name
    files[card] = _card(files[card], hub_id, license)
    paths = (record.train.data, record.start.source if record.start else "")
    notes += [
        f"{card} and {directory.record_file.name} show the path {path} of this machine"
        for path in paths
        if Path(path).is_absolute()
    ]
    plan = Pushed(
        repository=hub_id,
        revision=revision or "main",
        private=private,
        files=tuple(
            SentFile(name, len(content), hashlib.sha256(content).hexdigest())
            for name, content in files.items()
        ),
        notes=tuple(notes),
    )
    if dry_run:
        return plan
    assert record.test is not None
    message = (
        f"Add {record.model.name}, top-1 {record.test.top1:.2%} on {record.test.samples:,} test "
        "images"
    )
    return _commit(plan, files, message, revision)


def _finished_record(directory: RunDirectory) -> RunRecord:
    """Returns the record of a finished run.

    Raises:
        InvalidModel: there is no run, or it is not finished.
    """
    record = directory.record()
    if record.test is None:
        raise InvalidModel(
            f"the run in {directory.path} is not finished: go on with `cct-export train --resume` "
            "and the same options"
        )
    return record


def _collect(
    directory: RunDirectory, artifacts: Sequence[Path]
) -> tuple[dict[str, bytes], list[str]]:
    """Returns the files to push by their name in the repository, and notes about them.

    The training state is not pushed: it is ten times as large and only useful to resume the run.

    Args:
        directory: a finished run.
        artifacts: exported files of its model, each with a sidecar.

    Raises:
        InvalidModel: a required file of the run is missing.
        InvalidArtifact: an artifact was exported from another model, or has no sidecar.
    """
    required = (directory.card_file, directory.best_file, directory.record_file)
    optional = (
        directory.metrics_file, directory.curves_file, directory.diagram_file,
        directory.calibration_file,
    )  # fmt: skip
    files, missing = {}, []
    for path in (*required, *optional):
        try:
            files[path.name] = path.read_bytes()
        except FileNotFoundError:
            if path in required:
                raise InvalidModel(
                    f"{directory.path} has no {path.name}, without which nothing is pushed"
                ) from None
            missing.append(path.name)
        except OSError as error:
            raise InvalidModel(f"{path} cannot be read: {error.strerror}") from error
    notes = [f"{directory.path} has no {', '.join(missing)}"] if missing else []
    for artifact in artifacts:
        notes.append(_check_artifact(artifact, directory.best_file))
        files_of_it = (artifact, weights.path_of(artifact), sidecar.path_of(artifact))
        for path in filter(None, files_of_it):
            if path.name in files:
                raise InvalidArtifact(
                    f"{artifact} and another file are both called {path.name}: rename one"
                )
            files[path.name] = path.read_bytes()
    return files, notes


def _check_artifact(path: Path, model: Path) -> str:
    """Checks that an artifact was exported from ``model``; returns a note about its sidecar.

    Raises:
        InvalidArtifact: it was not, has changed since, or has no sidecar.
    """
    sidecar.examine(path).require()
    exported = sidecar.read(path)
    if exported is None:
        raise InvalidArtifact(f"{path} has no {path.name}.json beside it that belongs to it")
    checksum = hashlib.sha256(model.read_bytes()).hexdigest()
    if exported.contract.source_sha256 != checksum:
        raise InvalidArtifact(
            f"{path} was exported from {exported.contract.source}, which is not {model}: export "
            "it again"
        )
    return (
        f"{path.name}.json holds {len(exported.golden.images)} images, of {exported.golden.origin}"
    )


def _card(content: bytes, hub_id: str, license: str | None) -> bytes:
    """Returns the model card with the name of its repository and its license.

    Raises:
        OutputError: the license is not an identifier.
    """
    text = for_repository(content.decode(errors="replace"), hub_id)
    if license is None:
        return text.encode()
    if not _LICENSE.fullmatch(license):
        raise OutputError(
            f"license {license!r}: write the identifier of the Hub, such as apache-2.0 or mit"
        )
    header, body = "", f"\n\n{text}"
    if text.startswith(_YAML_FENCE) and "\n---" in text[3:]:
        header, _, body = text[len(_YAML_FENCE) :].partition(f"\n{_YAML_FENCE[:3]}")
        header = re.sub(r"^license:.*\n?", "", f"{header}\n", flags=re.MULTILINE)
    return f"{_YAML_FENCE}license: {json.dumps(license)}\n{header}---{body}".encode()


def _library() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.utils
    except ImportError as error:
        raise MissingDependency.of("huggingface_hub", "hub") from error
    return huggingface_hub


def _check_id(hub_id: str) -> None:
    """Raises ``OutputError`` if ``hub_id`` is not a valid ``OWNER/NAME``."""
    library = _library()
    try:
        library.utils.validate_repo_id(hub_id)
        if "/" not in hub_id:
            raise ValueError("there is no owner in it")
    except ValueError as error:
        raise OutputError(
            f"{hub_id!r} cannot be a repository of the Hub, write OWNER/NAME: {_one_line(error)}"
        ) from error


def _commit(plan: Pushed, files: Mapping[str, bytes], message: str, revision: str | None) -> Pushed:
    """Commits files to the Hub; creates repository and branch if they do not exist.

    Args:
        plan: the push without a commit.
        files: content by name.
        message: of the commit.
        revision: branch; None for ``main``.

    Returns:
        The push with its commit.

    Raises:
        OutputError: no token, refused, no connection, or no response. Nothing was committed; after
            a time-out it is not known.
    """
    library = _library()
    api = library.HfApi(
        token=_token(library),
        library_name="cct-export",
        library_version=versions("cct-export").get("cct-export"),
    )
    with _one_line_errors(library, plan.repository), _quiet_client_with_timeouts(library):
        created = api.create_repo(plan.repository, private=plan.private or None, exist_ok=True)
        repository = created.repo_id
        if plan.private and not api.repo_info(repository).private:
            raise OutputError(
                f"{repository} is there already, and public: make it private in its settings, or "
                "leave --private out"
            )
        # Pull requests (refs/pr/1) cannot be created as a branch.
        if revision is not None and not revision.startswith("refs/"):
            api.create_branch(repository, branch=revision, exist_ok=True)
        # Streams are uploaded over HTTP, where the time-outs hold.
        operations = [
            library.CommitOperationAdd(path_in_repo=name, path_or_fileobj=io.BytesIO(content))
            for name, content in files.items()
        ]
        commit = api.create_commit(
            repository, operations, commit_message=message, revision=revision
        )
    return replace(plan, repository=repository, commit=commit.oid, url=commit.commit_url)


def _token(library: Any) -> str:
    token: str | None = library.get_token()
    if not token:
        raise OutputError(
            "no token for the Hugging Face Hub: log in with `hf auth login`, or set HF_TOKEN"
        )
    # The HTTP client would print a header that it cannot send, and this one is a secret.
    if not re.fullmatch(r"[!-~]+", token):
        raise OutputError("the token for the Hugging Face Hub has characters that no token has")
    return token


@contextlib.contextmanager
def _quiet_client_with_timeouts(library: Any) -> Iterator[None]:
    """Sets time-outs of the library's HTTP client; turns its progress bars and warnings off."""
    utils, client = library.utils, library.get_session()
    bars, verbosity = not utils.are_progress_bars_disabled(), utils.logging.get_verbosity()
    timeout = client.timeout
    utils.disable_progress_bars()
    utils.logging.set_verbosity_error()
    client.timeout = (CONNECT_TIMEOUT_S, RESPONSE_TIMEOUT_S, RESPONSE_TIMEOUT_S, CONNECT_TIMEOUT_S)
    try:
        yield
    finally:
        client.timeout = timeout
        utils.logging.set_verbosity(verbosity)
        if bars:
            utils.enable_progress_bars()


@contextlib.contextmanager
def _one_line_errors(library: Any, hub_id: str) -> Iterator[None]:
    """Raises the errors of the library as an ``OutputError`` of one line."""
    try:
        yield
    except OutputError:
        raise
    except Exception as error:
        host = urlsplit(library.constants.ENDPOINT).hostname
        causes: list[BaseException] = [error]
        while causes[-1].__cause__ is not None:
            causes.append(causes[-1].__cause__)
        messages = (_http_message(cause, hub_id, host) for cause in causes)
        message = next((message for message in messages if message is not None), None)
        raise OutputError(message or _other_message(error, hub_id)) from error


def _http_message(error: BaseException, hub_id: str, host: str | None) -> str | None:
    """Returns the message of a status code or a transport error; None for other errors."""
    response = getattr(error, "response", None)
    if response is not None:
        reason = _one_line(getattr(error, "server_message", None) or error)
        return _status_message(response, reason, hub_id, host)
    # By name: the HTTP client is httpx or httpx2, depending on the version of the library.
    kinds = {kind.__name__ for kind in type(error).__mro__}
    for kind, message in _TRANSPORT_ERRORS.items():
        if kind in kinds:
            return message.format(
                host=host,
                reason=_one_line(error),
                connect=CONNECT_TIMEOUT_S,
                response=RESPONSE_TIMEOUT_S,
            )
    return None


def _status_message(response: Any, reason: str, hub_id: str, host: str | None) -> str:
    status = response.status_code
    if status == 401:
        return "the Hub does not accept the token (401): log in again with `hf auth login`"
    if status == 403:
        return f"the token may not write to {hub_id} (403): {reason}"
    if status in (408, 429) or status >= 500:
        return f"{host} answered {status} ({response.reason_phrase}): try again later"
    return f"the Hub refused {hub_id} ({status}): {reason}"


def _other_message(error: Exception, hub_id: str) -> str:
    if isinstance(error, json.JSONDecodeError | KeyError):
        return "the server is not the Hugging Face Hub: check HF_ENDPOINT"
    return f"could not push to {hub_id}: {_one_line(error)}"


def _one_line(reason: object) -> str:
    text = " ".join(str(reason).split()) or type(reason).__name__
    return text if len(text) <= _MAX_REASON_LENGTH else f"{text[:_MAX_REASON_LENGTH]} ..."
