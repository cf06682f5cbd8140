"""The outcome of an export."""

from dataclasses import dataclass

from cct_export.records.artifact import Artifact
from cct_export.records.encoding import to_json
from cct_export.records.parity import ParityReport
from cct_export.specs import JSONObject


@dataclass(frozen=True)
class MixedPrecision:
    """What a bound on the SQNR cost.

    Attributes:
        floats: steps that were kept in float, or in 8 bits in place of 4, in the order in which
            they were chosen.
        before_db: SQNR of the logits with every step as the scheme has it.
        after_db: the same with those steps in float.
        slowdown: latency after over latency before, on this machine, one thread; 1 where no step
            was kept in float.
        min_sqnr_db: the bound.
        float_sums: whether attention computes its sums in float, from layers with dynamic ranges.
    """

    floats: tuple[str, ...]
    before_db: float
    after_db: float
    slowdown: float
    min_sqnr_db: float
    float_sums: bool = False

    @property
    def in_float(self) -> tuple[str, ...]:
        """What computes in float, for people."""
        return (*(("sums of attention",) if self.float_sums else ()), *self.floats)


@dataclass(frozen=True)
class TriedScheme:
    """A scheme that ``auto`` tried, in one engine.

    Attributes:
        scheme: its name.
        why_not: why it was not chosen; empty for the one that was.
        median_ms: latency, one thread; None if it was not measured.
        size_bytes: size of the file.
        sqnr_db: SQNR of the logits.
        drop: points of top-1 accuracy that it loses, 0 to 100; None if that was not measured.
        engine: that the file was verified and timed in.
    """

    scheme: str
    why_not: str = ""
    median_ms: float | None = None
    size_bytes: int | None = None
    sqnr_db: float | None = None
    drop: float | None = None
    engine: str = ""


@dataclass(frozen=True)
class Exported:
    """The outcome of an export.

    Attributes:
        artifact: the file; its name ends in ``.rejected`` if parity failed.
        parity: how close it is to the Keras model.
        bound: what ``min_sqnr`` cost; None where it was not given.
        candidates: the schemes that ``auto`` tried; empty for other schemes.
        engine_operators: operators of the file that only ONNX Runtime has, with their domain.
    """

    artifact: Artifact
    parity: ParityReport
    bound: MixedPrecision | None = None
    candidates: tuple[TriedScheme, ...] = ()
    engine_operators: tuple[str, ...] = ()

    @property
    def chosen(self) -> TriedScheme | None:
        """The candidate that was written; None where ``auto`` chose nothing."""
        return next((row for row in self.candidates if not row.why_not), None)

    def to_dict(self) -> JSONObject:
        """Returns plain JSON types: ``artifact``, ``parity`` and, if there are any, others."""
        tuning: JSONObject = {}
        if self.bound is not None:
            tuning["bound"] = to_json(self.bound)
        if self.candidates:
            tuning["candidates"] = to_json(self.candidates)
        fields: JSONObject = {"artifact": self.artifact.to_dict(), "parity": self.parity.to_dict()}
        if self.engine_operators:
            fields["engine_operators"] = list(self.engine_operators)
        return fields | ({"tuning": tuning} if tuning else {})
