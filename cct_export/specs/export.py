"""What file to export, and how it is quantized."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

from cct_export.bounds import Checked, Range, shown
from cct_export.errors import InvalidRequest, UnsupportedScheme

# Calibration methods, see ``quantize.ranges``; ``best`` chooses for each tensor the one that costs
# the logits least.
METHODS = ("min-max", "percentile", "entropy", "mse")
BEST = "best"
ROUNDINGS = ("gptq", "nearest")
# In place of a scheme: the fastest one on this machine that meets the constraints.
AUTO = "auto"
# Training images to calibrate with, and test images to verify parity on.
CALIBRATION_SAMPLES = 200
PARITY_SAMPLES = 1000
SAMPLES = Range(1, 100_000, whole=True)
SQNR_DB = Range(0, 1000)
POINTS = Range(0, 100)
# What files are made for, by format, the default first: the engine of a TFLite file, and the
# processor that the integer types of an ONNX file are chosen for.
TARGETS = {"tflite": ("litert", "tflm"), "onnx": ("x86", "arm64")}
# Types of the image input by format, the default first.
INPUT_TYPES = {
    "tflite": ("float32", "uint8", "int8"),
    "onnx": ("float32", "uint8"),
    "ncnn": ("float32",),
}
# How the names of files end, by format. ncnn has the weights in another file.
SUFFIXES = {"tflite": ".tflite", "onnx": ".onnx", "ncnn": ".ncnn.param"}
# Engines that ``export_auto`` chooses from, and the format of the files that each of them gets; the
# first of a format is the one that verifies its files by default.
ENGINE_FORMATS = {"litert": "tflite", "onnxruntime": "onnx", "openvino": "onnx", "ncnn": "ncnn"}
# Types of the activations in ONNX files for NPUs, by scheme.
NPU_ACTIVATIONS = {"int8-full": "uint8", "int16x8": "uint16"}
# Orders of the axes of the image input, without the batch: channels last or first (ONNX only).
LAYOUTS = ("nhwc", "nchw")
# What counts more where a file can be faster or smaller, the default first (TFLite only).
PRIORITIES = ("size", "speed")
# The passes of ``graph.fold``, in their order.
FOLDS = (
    "channel-order", "batch-norm", "relu", "pool-padding", "rescaling", "norm-affine",
    "query-scale", "key-bias", "value-bias", "query-key", "value-output", "fuse-qkv",
    "pooling-bias", "residual-sources", "centred-residual", "rotation", "head-rotation",
    "winograd",
)  # fmt: skip
# ONNX operator sets that plans are written in, and the first that have what a scheme needs: GELU as
# one operator, and the types of weights or activations.
OPSETS = range(13, 24)
DEFAULT_OPSET = 20
_NEEDED = {
    "int8-full": (20, "GELU as one operator"),
    "int16x8": (21, "uint16 activations"),
    "int4-weight": (21, "int4 weights"),
}


@dataclass(frozen=True)
class ExportSpec(Checked):
    """What file to export.

    Attributes:
        format: ``tflite``, ``onnx`` or ``ncnn``.
        scheme: name of a quantization scheme.
        io: type of the image input, ``float32``, ``uint8`` or ``int8`` (pixel minus 128); logits
            are float32, those of integers only of the image's type.
        dynamic_batch: any number of images per call, else one (ONNX only; TFLite always takes one).
        opset: ONNX operator set; None for the default of the converter.
        no_fold: names of folds to leave out, see ``graph.fold``.
        target: what the file is made for, of the format's ``TARGETS``; empty for the first.
        layout: order of the axes of the image input, of ``LAYOUTS`` (always ``nhwc`` for TFLite,
            ``nchw`` for ncnn).
        optimize: what counts more, of ``PRIORITIES`` (``speed`` for TFLite only).
        pure_onnx: standard operators only, none of ONNX Runtime's own (ONNX only).
        engine: the engine that verifies and times the file, of ``ENGINE_FORMATS``; empty for that
            of the target.
    """

    format: str
    scheme: str = "none"
    io: str = "float32"
    dynamic_batch: bool = False
    opset: Annotated[int, Range(whole=True)] | None = None
    no_fold: tuple[str, ...] = ()
    target: str = ""
    layout: str = "nhwc"
    optimize: str = PRIORITIES[0]
    pure_onnx: bool = False
    engine: str = ""


def opset_of(spec: ExportSpec) -> int:
    """Returns the ONNX operator set that a plan is written in.

    Raises:
        InvalidRequest: the one of ``spec`` cannot be written.
        UnsupportedScheme: it lacks what the scheme needs.
    """
    first, what = _NEEDED.get(spec.scheme, (OPSETS.start, ""))
    opset = choose_opset(spec, OPSETS, max(first, DEFAULT_OPSET))
    if opset < first:
        raise UnsupportedScheme(
            f"opset {opset} has no {what}: choose {first} to {OPSETS.stop - 1}",
            needs=f"--opset {first}",
        )
    return opset


def choose_opset(spec: ExportSpec, supported: range, default: int) -> int:
    """Returns the operator set of ``spec``, or ``default``.

    Raises:
        InvalidRequest: it is not supported.
    """
    opset = default if spec.opset is None else spec.opset
    if opset not in supported:
        raise InvalidRequest(
            f"opset {shown(opset)} is not one that can be written: "
            f"choose {supported.start} to {supported.stop - 1}"
        )
    return opset


@dataclass(frozen=True)
class QuantScheme(Checked):
    """A post-training quantization scheme.

    How activations are computed is one of: ``float``; ``static``, inputs and outputs are integers
    with calibrated ranges; ``static-inputs``, inputs are such integers and outputs floats; or
    ``dynamic``, inputs are integers with ranges determined at run time and outputs floats.

    Attributes:
        name: the value of ``--quantize``.
        about: one line for people.
        weights: type of the weights of dense layers and, down to int8, of convolutions.
        block: inputs of a dense layer whose 4-bit weights share a scale; 0 for all of an output.
        convolution: activations of convolutions.
        first_convolution: activations of convolutions of few channels, such as an image's; empty
            for those of ``convolution``.
        dense: activations of dense layers.
        attention: activations of attention: ``float``; ``scores``, static in the products of
            queries and keys; ``static`` but for the softmax, and before GELU; or ``dynamic`` in
            products of two matrices, which several heads are not.
        rest: activations of everything else, ``float`` or ``static``.
        bits: of static activations.
        symmetric: whether the zero point of all static activations is 0, and of the dynamic ones
            of 8 bits.
        integer_ends: whether image and logits are integers, too.
        per_token: whether dynamic ranges are per token, else per tensor.
    """

    name: str
    about: str
    weights: str = "float32"
    block: Annotated[int, Range(0, 256, whole=True)] = 0
    convolution: str = "float"
    first_convolution: str = ""
    dense: str = "float"
    attention: str = "float"
    rest: str = "float"
    bits: Annotated[int, Range(2, 16, whole=True)] = 8
    symmetric: bool = False
    integer_ends: bool = False
    per_token: bool = True

    @property
    def calibrated(self) -> bool:
        """Whether the scheme needs calibrated ranges."""
        modes = (self.convolution, self.dense, self.attention, self.rest)
        return any(mode.startswith(("static", "scores")) for mode in modes)

    @property
    def quantizes_weights(self) -> bool:
        """Whether weights become integers."""
        return self.weights.startswith("int")

    @property
    def integers_only(self) -> bool:
        """Whether no operator computes in float."""
        return self.rest == "static"


@dataclass(frozen=True)
class CalibrationSpec(Checked):
    """How ranges and rounding are chosen.

    Attributes:
        samples: training images to calibrate on.
        methods: how the range of a tensor follows from its values: one of ``METHODS`` for all,
            one by tensor, or ``BEST``.
        rounding: of weights: ``gptq`` (arXiv:2210.17323) on the calibration images, or ``nearest``.
        floats: steps that compute in float whatever the scheme says.
        eight_bits: dense layers whose weights have 8 bits where the scheme has 4.
        attention: in place of the scheme's, see ``QuantScheme``; None for the scheme's.
    """

    default_method: ClassVar[str] = "mse"

    samples: Annotated[int, SAMPLES] = CALIBRATION_SAMPLES
    methods: str | Mapping[str, str] = default_method
    rounding: str = "gptq"
    floats: tuple[str, ...] = ()
    eight_bits: tuple[str, ...] = ()
    attention: str | None = None

    def applied_to(self, scheme: QuantScheme) -> QuantScheme:
        """Returns the scheme with what this replaces of it."""
        return scheme if self.attention is None else replace(scheme, attention=self.attention)


@dataclass(frozen=True)
class Constraints(Checked):
    """Bounds that an exported file has to meet beside the policy of its scheme.

    Attributes:
        min_sqnr_db: lowest SQNR of the logits in dB; the steps with the largest error stay in
            float until it holds. None for no bound.
        max_drop: points of top-1 accuracy that ``AUTO`` may lose at most, 0 to 100; None for no
            bound.
    """

    min_sqnr_db: Annotated[float, SQNR_DB] | None = None
    max_drop: Annotated[float, POINTS] | None = None


@dataclass(frozen=True)
class ExportRequest(Checked):
    """An export, as the user requested it.

    Attributes:
        spec: what file to make.
        output: where to write it; the sidecar goes beside it.
        data: images for calibration and parity, as ``--data`` names them; None for those that the
            model was trained on, else its calibration record and photo crops.
        calibration: how ranges and rounding are chosen.
        constraints: bounds to meet.
        parity_samples: test images to verify parity on.
    """

    spec: ExportSpec
    output: Path
    data: str | None = None
    calibration: CalibrationSpec = CalibrationSpec()
    constraints: Constraints = Constraints()
    parity_samples: Annotated[int, SAMPLES] = PARITY_SAMPLES
