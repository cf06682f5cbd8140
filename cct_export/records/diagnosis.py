"""What a machine can run artifacts with."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Diagnosis:
    """Whether an engine works with a delegate here.

    Attributes:
        engine: ``litert``, ``onnxruntime`` or ``keras``.
        version: of the engine, empty where it did not run.
        delegate: what it hands its work to.
        about: what that is.
        works: whether it ran a small CCT and answered right; None if that was not tried.
        why: why it does not, or what to do to have it.
    """

    engine: str
    version: str
    delegate: str
    about: str
    works: bool | None
    why: str

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return asdict(self)
