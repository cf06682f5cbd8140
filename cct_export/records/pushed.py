"""What was sent to the Hugging Face Hub."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class SentFile:
    """A file as it is in the repository.

    Attributes:
        name: there.
        size_bytes: of its content.
        sha256: of its content.
    """

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Pushed:
    """A commit of the Hub, or what one would have held.

    Attributes:
        repository: ``OWNER/NAME``, or what was asked for where nothing was sent.
        revision: the branch.
        private: was asked for.
        files: all that the commit holds.
        notes: what there is to know of it, a line each.
        commit: its checksum; None if nothing was sent.
        url: its address; None if nothing was sent.
    """

    repository: str
    revision: str
    private: bool
    files: tuple[SentFile, ...]
    notes: tuple[str, ...]
    commit: str | None = None
    url: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        found = asdict(self)
        return found | {"files": list(found["files"]), "notes": list(self.notes)}
