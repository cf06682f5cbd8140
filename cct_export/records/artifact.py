"""An exported file, and the contract that it carries inside."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from cct_export.files import reason
from cct_export.records.encoding import from_json, parse_json, to_json
from cct_export.records.layout import NHWC, in_layout
from cct_export.records.machine import Count
from cct_export.records.output import OutputContract, difference
from cct_export.specs import DEFAULT_RESIZE, JSONObject, ModelOptions, Normalization, Resize
from cct_export.untrusted import Malformed

# The metadata entry of a file that holds its contract.
CONTRACT_KEY = "cct_export.json"
_BOUNDS = Meta(ge=-(10**15), le=10**15)


@dataclass(frozen=True)
class InputContract:
    """What the image input expects.

    Attributes:
        layout: order of the axes, ``NHWC`` or ``NCHW``.
        shape: sizes of those axes; None for any number of images.
        dtype: ``float32``, ``uint8`` or ``int8``.
        range: smallest and largest value.
        preprocessing: what to do with raw pixels.
        channels: ``RGB`` or ``grey``.
        resize: how images of another size are resized, in words.
        antialias: whether a smaller image is made of all pixels, not of the nearest four each.
        crop: whether the centre of an image of another aspect ratio is used, not all of it.
        normalization: what the file does to these pixels before the model that it was made of gets
            them, as the user said; None where that is nothing, or a layer of the model.
    """

    layout: str
    shape: tuple[Count | None, ...]
    dtype: str
    range: tuple[Annotated[int, _BOUNDS] | Annotated[float, _BOUNDS], ...] = ()
    preprocessing: str = ""
    channels: str = ""
    resize: str = ""
    antialias: bool = True
    crop: bool = False
    normalization: Normalization | None = None

    @classmethod
    def of(
        cls,
        io: str,
        batch: int | None,
        image_shape: tuple[int, int, int],
        resize: Resize,
        *,
        normalization: Normalization | None = None,
        layout: str = NHWC,
    ) -> "InputContract":
        """Returns the contract of an exported file's input.

        Args:
            io: see ``Contract``, and so the arguments that follow.
            batch: see there.
            image_shape: see there.
            resize: how images of another size are resized.
            normalization: see the attribute.
            layout: see the attribute.
        """
        integers = io == "int8"
        return cls(
            layout=layout,
            shape=(batch, *in_layout(image_shape, layout)),
            dtype=io,
            range=(-128, 127) if integers else (0, 255),
            preprocessing="pixel - 128" if integers else "raw pixels",
            channels="RGB" if image_shape[-1] == 3 else "grey",
            # As cct_export.data.resizing does it.
            resize=resize.description,
            antialias=resize.filter == "antialiased",
            crop=resize.fit == "crop",
            normalization=normalization,
        )


@dataclass(frozen=True)
class QuantizationSummary:
    """How a file was quantized.

    Attributes:
        rounding: of the weights: ``gptq`` or ``nearest``.
        ranges: calibration method of all tensors, or of each.
        static: steps that compute in integers with calibrated ranges.
        dynamic: steps that compute in integers with ranges determined at run time.
        kept_float: steps that were kept in float to meet a bound.
        eight_bits: dense layers that got 8-bit weights in place of 4, to pass parity.
    """

    rounding: str
    ranges: str | dict[str, str]
    static: tuple[str, ...] = ()
    dynamic: tuple[str, ...] = ()
    kept_float: tuple[str, ...] = ()
    eight_bits: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contract:
    """What a file says about itself; a file of another tool says nothing.

    Attributes:
        format: ``tflite``, ``onnx`` or ``ncnn``; ``keras`` for a model that was not exported.
        scheme: quantization scheme.
        io: type of the image input, ``float32``, ``uint8`` or ``int8``.
        source: what it was made of, as the user wrote it.
        source_sha256: checksum of the file with the weights that it was made of.
        content_sha256: checksum of this file, see ``records.checksum``; empty if it carries none.
        weights_sha256: checksum of the file with its weights, where that is another one; see
            ``records.weights``.
        image_shape: height, width, channels.
        target: what it was made for, of ``specs.TARGETS``; empty for the format's default.
        batch: images per call; None for any number.
        labels: class names, in the order of the logits; empty if not known. Those of the outputs
            that have as many classes.
        calibration: which images calibrated it; empty if none.
        quantization: how it was quantized; None if it was not.
        versions: of the libraries that it was made with.
        input: what the image input expects.
        output: what the first output holds.
        outputs: what each output holds, where there are several; see ``all_outputs``.
    """

    format: str = ""
    scheme: str = ""
    io: str = ""
    source: str = ""
    source_sha256: str = ""
    content_sha256: str = ""
    weights_sha256: str = ""
    image_shape: tuple[Count, ...] = ()
    target: str = ""
    batch: Count | None = 1
    labels: tuple[str, ...] = ()
    calibration: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    quantization: QuantizationSummary | None = None
    input: InputContract | None = None
    output: OutputContract | None = None
    outputs: tuple[OutputContract, ...] = ()

    @property
    def all_outputs(self) -> tuple[OutputContract, ...]:
        """What each output holds, in the order of the graph; empty if the file does not say."""
        return self.outputs or ((self.output,) if self.output else ())

    def __bool__(self) -> bool:
        """Whether the file says anything about itself."""
        return self != Contract()

    @property
    def resize(self) -> Resize:
        """How images of another size are resized."""
        if self.input is None:
            return DEFAULT_RESIZE
        return Resize(
            "antialiased" if self.input.antialias else "bilinear",
            "crop" if self.input.crop else "squash",
        )

    @property
    def options(self) -> ModelOptions:
        """How the model that the file was made of was loaded; code to import is never named."""
        return ModelOptions(
            normalization=self.input.normalization if self.input else None,
            softmax=self.output is not None and self.output.softmax,
            resize=self.resize,
        )

    def to_dict(self) -> JSONObject:
        """Returns plain JSON types; empty for a file that says nothing."""
        if not self:
            return {}
        fields: JSONObject = to_json(self)
        for optional in ("content_sha256", "weights_sha256", "outputs", "target"):
            if not fields.get(optional):
                fields.pop(optional, None)
        return fields | {"quantization": fields["quantization"] or {}}

    def contradiction(
        self,
        *,
        format: str,
        io: str,
        layout: str,
        image_shape: tuple[int | None, ...],
        outputs: Sequence[OutputContract],
    ) -> str:
        """Compares the contract with the graph of its file.

        Args:
            format: of the file.
            io: type of its input.
            layout: order of the axes of its input.
            image_shape: height, width, channels.
            outputs: as the graph has them.

        Returns:
            Where they differ, and what to do; empty if they do not.
        """
        image = self.input
        claims = {
            "format": (self.format, format),
            "io": (self.io, io),
            "image_shape": (self.image_shape, image_shape),
            "input.dtype": (image.dtype if image else "", io),
            "input.layout": (image.layout if image else "", layout),
            "input.shape": (image.shape[1:] if image else (), in_layout(image_shape, layout)),
        }
        problems = [
            f"{name} is {claimed} in the contract and {actual} in the graph"
            for name, (claimed, actual) in claims.items()
            if claimed and claimed != actual
        ]
        counts = [output.class_count for output in outputs]
        if self.labels and 0 not in counts and len(self.labels) not in counts:
            actual = ", ".join(map(str, counts))
            problems.append(
                f"number of labels is {len(self.labels)} in the contract and {actual} in the graph"
            )
        problems += filter(None, [difference(self.all_outputs, outputs)])
        if not problems:
            return ""
        return f"its contract contradicts its graph: {problems[0]}; export it again"

    @classmethod
    def parse(cls, text: str | bytes) -> "Contract":
        """Returns the contract in a file that anyone may have written.

        Raises:
            Malformed: it is no JSON object, or a field has another type.
        """
        try:
            return cls.from_dict(parse_json(text if isinstance(text, str) else text.decode()))
        except ValueError as error:
            why = reason(error, str(error))
            raise Malformed(f"its {CONTRACT_KEY} cannot be read: {why}") from error

    @classmethod
    def from_dict(cls, fields: Any) -> "Contract":
        """Returns the contract of plain JSON types; raises ``ValueError``."""
        if not isinstance(fields, dict):
            raise ValueError("it is no JSON object")
        return from_json(fields | {"quantization": fields.get("quantization") or None}, cls)


@dataclass(frozen=True)
class Artifact:
    """An exported file.

    Attributes:
        path: the file.
        contract: what it says about itself.
        size_bytes: size of the file, with that of its weights where they are in another.
        sha256: checksum of the file.
    """

    path: Path
    contract: Contract
    size_bytes: int = 0
    sha256: str = ""

    @property
    def format(self) -> str:
        """``tflite``, ``onnx`` or ``ncnn``."""
        return self.contract.format

    @property
    def scheme(self) -> str:
        """Quantization scheme."""
        return self.contract.scheme

    def to_dict(self) -> JSONObject:
        """Returns the contract with path, size and checksum, as plain JSON types."""
        fields = self.contract.to_dict()
        return {
            "path": str(self.path),
            "format": fields.pop("format"),
            "scheme": fields.pop("scheme"),
            "size_bytes": self.size_bytes,
            "sha256": self.sha256,
            **fields,
        }
