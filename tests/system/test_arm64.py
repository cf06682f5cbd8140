"""The Raspberry Pi bundle on real arm64 wheels, under emulation."""

import functools
import json
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
from arm64 import PI_4, PI_5
from debian_archive import Unavailable
from PIL import Image

from cct_export.runtimes.litert_prefixes import prefixes
from cct_export.specs import SUFFIXES

pytestmark = [
    pytest.mark.arm64,
    pytest.mark.usefixtures("arm64"),  # first, so that a skipped test exports nothing
]


class Case(NamedTuple):
    """A file of ``MODEL``, and a bound on the difference of its logits from this machine's."""

    format: str
    scheme: str
    io: str
    bound: float

    def __str__(self):
        return f"{self.format}-{self.scheme}-{self.io}"


# The bounds are for this model: the step of quantized logits differs between models.
MODEL = "cct_keras_io"
INTEGERS_ONLY = Case("tflite", "int8-full", "int8", 0.13)  # four steps of its output
CASES = [
    Case("tflite", "none", "float32", 1e-4),
    Case("tflite", "int8-dynamic", "float32", 0.06),
    Case("tflite", "int8", "uint8", 0.06),
    INTEGERS_ONLY,
    Case("onnx", "none", "float32", 1e-4),
    Case("onnx", "int8", "uint8", 0.06),
    Case("ncnn", "none", "float32", 1e-4),
    Case("ncnn", "int8", "float32", 0.06),
]
PROCESSORS = [(case, PI_5) for case in CASES]
PROCESSORS += [(case, PI_4) for case in CASES if case.scheme.startswith("int8")]
every_case = pytest.mark.parametrize("case", CASES, ids=str)

# Runs on both machines: saves every output of a .tflite file for every image.
SCRIPT = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
model, images, kernels, outputs = sys.argv[1:]
interpreter = Interpreter(model, experimental_op_resolver_type=OpResolverType[kernels])
interpreter.allocate_tensors()
values = {output["name"]: [] for output in interpreter.get_output_details()}
for image in np.load(images):
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[np.newaxis])
    interpreter.invoke()
    for output in interpreter.get_output_details():
        values[output["name"]].append(interpreter.get_tensor(output["index"]).copy())
np.savez(outputs, **{name.replace("/", "|"): rows for name, rows in values.items()})
"""


@pytest.fixture(scope="module")
def bundle_of(tmp_path_factory, in_process):
    """Returns the artifact of a case and its bundle, made once."""
    folder = tmp_path_factory.mktemp("shipped")

    @functools.cache
    def get(case):
        artifact, bundle = folder / f"{case}{SUFFIXES[case.format]}", folder / str(case)
        options = ("--quantize", case.scheme, "--samples", "50")
        options += () if case.format == "ncnn" else ("--io", case.io)
        ended = in_process("export", case.format, MODEL, *options, "-o", artifact)
        assert ended.code == 0, ended.err
        target = ("--target", "raspberry-pi", "-o", bundle)
        ended = in_process("export", "bundle", artifact, *target)
        assert ended.code == 0, ended.err
        return artifact, bundle

    return get


@pytest.fixture(scope="module")
def site_of(arm64, bundle_of):
    """Returns the packages that a bundle's requirements.txt installs on arm64, once per format."""
    sites = {}

    def get(case):
        if case.format not in sites:
            requirements = bundle_of(case)[1] / "requirements.txt"
            try:
                sites[case.format] = arm64.install(case.format, requirements)
            except Unavailable as error:
                pytest.skip(f"no wheels for arm64: {error}")
        return sites[case.format]

    return get


@pytest.mark.parametrize(("case", "processor"), PROCESSORS, ids=str)
def test_the_self_test_passes_with_nearly_the_logits_of_this_machine(
    arm64, bundle_of, site_of, case, processor, tmp_path, summary_line
):
    script = bundle_of(case)[1] / "selftest.py"
    process = arm64.run(site_of(case), script, "--json", cwd=tmp_path, processor=processor)
    assert process.returncode == 0, process.stdout + process.stderr
    result = json.loads(process.stdout)
    assert result["passed"]
    assert result["machine"] == "aarch64"
    assert result["latency_ms"] is None
    parity, outputs = result["parity"], result["parity"]["outputs"]
    summary_line(
        f"{processor} {case!s:27} SQNR {parity['sqnr_db']:5.1f} dB, logits within "
        f"{outputs['max_abs']:.1e} of {outputs['computed_on']}"
        + (", bit-equal" if outputs["bit_equal"] else "")
    )
    assert outputs["max_abs"] <= case.bound
    assert outputs["same_top1"]


@every_case
def test_the_predictions_are_those_of_predict_on_this_machine(
    arm64, bundle_of, site_of, case, tmp_path, in_process
):
    artifact, bundle = bundle_of(case)
    with np.load(bundle / "golden.npz") as golden:
        picture = Image.fromarray(golden["images"][0]).resize((100, 80), Image.Resampling.BICUBIC)
    picture.save(tmp_path / "a b.png")
    picture.save(tmp_path / "c.jpg")
    paths = tmp_path / "a b.png", tmp_path / "c.jpg"
    process = arm64.run(site_of(case), bundle / "classify.py", "--json", *paths, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    lines = [json.loads(line) for line in process.stdout.splitlines()]
    record = in_process("export", "predict", artifact, *paths, "--json", "-").record
    assert [line["image"] for line in lines] == [str(path) for path in paths]
    for line, prediction in zip(lines, record["predictions"], strict=True):
        actual, expected = (
            {score["label"]: score["probability"] for score in scores["top"]}
            for scores in (line, prediction)
        )
        for label in actual.keys() & expected.keys():
            assert actual[label] == pytest.approx(expected[label], abs=case.bound)
        assert next(iter(actual)) == next(iter(expected))


def _outputs(run, model, bundle, kernels, folder):
    """Returns the outputs of ``model`` for the golden inputs, by name, from ``run``'s Python."""
    with np.load(bundle / "golden.npz") as golden:
        np.save(folder / "images.npy", golden["inputs"])
    script, outputs = folder / "run.py", folder / "outputs.npz"
    script.write_text(SCRIPT)
    process = run(script, model, folder / "images.npy", kernels, outputs)
    assert process.returncode == 0, process.stderr
    with np.load(outputs) as arrays:
        return dict(arrays)


@pytest.fixture
def on_both_machines(arm64, site_of, bundle_of, tmp_path):
    """Returns a .tflite file's outputs on this machine and on arm64, by name."""

    def local(*arguments):
        command = [sys.executable, "-P", *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    def emulated(*arguments):
        return arm64.run(site_of(INTEGERS_ONLY), *arguments, cwd=tmp_path)

    def get(model, kernels):
        bundle = bundle_of(INTEGERS_ONLY)[1]
        return [_outputs(run, model, bundle, kernels, tmp_path) for run in (local, emulated)]

    return get


def _assert_bit_equal(local, emulated):
    assert local.keys() == emulated.keys()
    for name, values in local.items():
        assert values.dtype == emulated[name].dtype == np.int8
        assert np.array_equal(values, emulated[name]), name


def test_reference_kernels_are_bit_equal_for_integers_only(
    on_both_machines, bundle_of, summary_line
):
    model = bundle_of(INTEGERS_ONLY)[1] / "model.tflite"
    local, emulated = on_both_machines(model, "BUILTIN_REF")
    _assert_bit_equal(local, emulated)
    assert len(np.unique(local["logits"])) > 10
    summary_line(f"{PI_5} {INTEGERS_ONLY!s:27} bit-equal with LiteRT's reference kernels")


def test_fast_kernels_are_bit_equal_up_to_the_first_softmax(
    on_both_machines, bundle_of, tmp_path, summary_line
):
    # LiteRT's int8 softmax for Arm is another kernel, which sometimes rounds differently.
    content = (bundle_of(INTEGERS_ONLY)[1] / "model.tflite").read_bytes()
    parts = list(prefixes(content))
    names = [part.name for part in parts]
    first = names.index("block_0/attention/weights/maximum")
    prefix = tmp_path / "prefix.tflite"
    prefix.write_bytes(parts[first - 1].content)
    local, emulated = on_both_machines(prefix, "AUTO")
    assert "block_0|attention|scores" in local
    _assert_bit_equal(local, emulated)
    summary_line(f"{PI_5} {INTEGERS_ONLY!s:27} bit-equal with XNNPACK up to the first softmax")
