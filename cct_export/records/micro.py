"""What TFLite Micro makes of a file."""

from dataclasses import dataclass
from pathlib import Path

from cct_export.records.encoding import to_json
from cct_export.records.inspection import OperatorKind
from cct_export.records.parity import ParityReport
from cct_export.specs import JSONObject


@dataclass(frozen=True)
class MicroReport:
    """A file in TFLite Micro, compared with LiteRT. There is no latency: a PC would tell none.

    Attributes:
        path: the file.
        engine: name and version of TFLite Micro's package.
        reference: name and version of LiteRT, whose reference kernels are compared with.
        arena_bytes: memory that it takes beside the file, with the 64-bit pointers of a PC.
        operators: by kind.
        images: what the logits were compared on.
        samples: number of those images.
        differing: how many of them have another logit.
        max_steps: the largest difference of a logit, in steps of the output's integers; in the
            logits' own unit where they are floats.
        golden: parity with Keras on the golden images of the sidecar; None where that is unknown.
        warnings: what to know before relying on the figures.
    """

    path: Path
    engine: str
    reference: str
    arena_bytes: int | None
    operators: tuple[OperatorKind, ...]
    images: str
    samples: int
    differing: int
    max_steps: float
    golden: ParityReport | None
    warnings: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no golden image speaks against the file."""
        return self.golden is None or self.golden.passed

    def to_dict(self) -> JSONObject:
        """Returns plain JSON types."""
        fields: JSONObject = to_json(self)
        return fields | {"golden": None if self.golden is None else self.golden.to_dict()}
