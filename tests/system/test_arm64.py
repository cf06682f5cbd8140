"""The bundle for the Raspberry Pi on the true arm64 wheels, under emulation."""

import json
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
from arm64 import PI_4, PI_5
from debian_archive import Unavailable
from PIL import Image

from cct_export.runtimes.litert_profile import prefixes

pytestmark = [
    pytest.mark.arm64,
    pytest.mark.usefixtures("arm64"),  # first: nothing is exported where it is skipped
]


class Case(NamedTuple):
    """A file of ``MODEL``, and how far its logits may be from those on this machine."""

    format: str
    scheme: str
    io: str
    bound: float

    def __str__(self):
        return f"{self.format}-{self.scheme}-{self.io}"


# The bounds are those of its files: a step of the logits is another model's another size.
MODEL = "cct_keras_io"
INTEGERS_ONLY = Case("tflite", "int8-full", "int8", 0.13)  # four steps of its output
CASES = [
    Case("tflite", "none", "float32", 1e-4),
    Case("tflite", "int8-dynamic", "float32", 0.06),
    Case("tflite", "int8", "uint8", 0.06),
    INTEGERS_ONLY,
    Case("onnx", "none", "float32", 1e-4),
    Case("onnx", "int8", "uint8", 0.06),
]
PROCESSORS = [(case, PI_5) for case in CASES]
PROCESSORS += [(case, PI_4) for case in CASES if case.scheme.startswith("int8")]
every_case = pytest.mark.parametrize("case", CASES, ids=str)

# Runs here and there: every output of a .tflite file for every image.
ANSWERS = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
model, images, kernels, answers = sys.argv[1:]
interpreter = Interpreter(model, experimental_op_resolver_type=OpResolverType[kernels])
interpreter.allocate_tensors()
found = {end["name"]: [] for end in interpreter.get_output_details()}
for image in np.load(images):
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[np.newaxis])
    interpreter.invoke()
    for end in interpreter.get_output_details():
        found[end["name"]].append(interpreter.get_tensor(end["index"]).copy())
np.savez(answers, **{name.replace("/", "|"): values for name, values in found.items()})
"""


@pytest.fixture(scope="module")
def bundle_of(tmp_path_factory, in_process):
    """Returns the artifact of a case and its bundle, made once."""
    folder, made = tmp_path_factory.mktemp("shipped"), {}

    def get(case):
        if case not in made:
            artifact, bundle = folder / f"{case}.{case.format}", folder / str(case)
            options = ("--quantize", case.scheme, "--io", case.io, "--samples", "50")
            ended = in_process("export", case.format, MODEL, *options, "-o", artifact)
            assert ended.code == 0, ended.err
            target = ("--target", "raspberry-pi", "-o", bundle)
            ended = in_process("export", "bundle", artifact, *target)
            assert ended.code == 0, ended.err
            made[case] = artifact, bundle
        return made[case]

    return get


@pytest.fixture(scope="module")
def site_of(arm64, bundle_of):
    """Returns the packages that a bundle's requirements.txt installs on arm64, fetched once."""
    made = {}

    def get(case):
        if case.format not in made:
            requirements = bundle_of(case)[1] / "requirements.txt"
            try:
                made[case.format] = arm64.install(case.format, requirements)
            except Unavailable as error:
                pytest.skip(f"no wheels for arm64: {error}")
        return made[case.format]

    return get


@pytest.mark.parametrize(("case", "processor"), PROCESSORS, ids=str)
def test_the_bundle_proves_itself_and_answers_as_here(
    arm64, bundle_of, site_of, case, processor, tmp_path, tell
):
    script = bundle_of(case)[1] / "selftest.py"
    done = arm64.run(site_of(case), script, "--json", cwd=tmp_path, processor=processor)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["passed"]
    assert found["machine"] == "aarch64"
    assert found["latency_ms"] is None
    parity, outputs = found["parity"], found["parity"]["outputs"]
    tell(
        f"{processor} {case!s:27} SQNR to Keras {parity['sqnr_db']:5.1f} dB, logits within "
        f"{outputs['max_abs']:.1e} of {outputs['computed_on']}"
        + (", bit-equal" if outputs["bit_equal"] else "")
    )
    assert outputs["max_abs"] <= case.bound
    assert outputs["same_top1"]


@every_case
def test_it_classifies_a_picture_as_predict_does_here(
    arm64, bundle_of, site_of, case, tmp_path, in_process
):
    artifact, bundle = bundle_of(case)
    with np.load(bundle / "golden.npz") as golden:
        picture = Image.fromarray(golden["images"][0]).resize((100, 80), Image.Resampling.BICUBIC)
    picture.save(tmp_path / "a b.png")
    picture.save(tmp_path / "c.jpg")
    paths = tmp_path / "a b.png", tmp_path / "c.jpg"
    done = arm64.run(site_of(case), bundle / "classify.py", "--json", *paths, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    wanted = in_process("export", "predict", artifact, *paths, "--json", "-").record["predictions"]
    assert [line["image"] for line in lines] == [str(path) for path in paths]
    for line, prediction in zip(lines, wanted, strict=True):
        here = {one["label"]: one["probability"] for one in prediction["top"]}
        there = {one["label"]: one["probability"] for one in line["top"]}
        for label in here.keys() & there.keys():
            assert there[label] == pytest.approx(here[label], abs=case.bound)
        assert next(iter(there)) == next(iter(here))


def _answers(run, model, bundle, kernels, folder):
    """Returns the outputs of ``model`` for the golden images, from a Python that ``run`` runs."""
    with np.load(bundle / "golden.npz") as golden:
        np.save(folder / "images.npy", golden["inputs"])
    script, found = folder / "answers.py", folder / "answers.npz"
    script.write_text(ANSWERS)
    done = run(script, model, folder / "images.npy", kernels, found)
    assert done.returncode == 0, done.stderr
    with np.load(found) as answers:
        return dict(answers)


@pytest.fixture
def in_both_places(arm64, site_of, bundle_of, tmp_path):
    """Returns what a .tflite file answers here and on arm64, by the names of its outputs."""

    def here(*arguments):
        command = [sys.executable, "-P", *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    def there(*arguments):
        return arm64.run(site_of(INTEGERS_ONLY), *arguments, cwd=tmp_path)

    def get(model, kernels):
        bundle = bundle_of(INTEGERS_ONLY)[1]
        return [_answers(run, model, bundle, kernels, tmp_path) for run in (here, there)]

    return get


def _assert_bit_equal(both):
    ours, theirs = both
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        assert values.dtype == theirs[name].dtype == np.int8
        assert np.array_equal(values, theirs[name]), name


def test_integers_only_are_bit_equal(in_both_places, bundle_of, tell):
    both = in_both_places(bundle_of(INTEGERS_ONLY)[1] / "model.tflite", "BUILTIN_REF")
    _assert_bit_equal(both)
    assert len(np.unique(both[0]["logits"])) > 10
    tell(f"{PI_5} {INTEGERS_ONLY!s:27} bit-equal with LiteRT's reference kernels")


def test_fast_kernels_are_bit_equal_up_to_the_first_softmax(
    in_both_places, bundle_of, tmp_path, tell
):
    # LiteRT's int8 softmax is another one on Arm, which now and then rounds to the other side.
    content = (bundle_of(INTEGERS_ONLY)[1] / "model.tflite").read_bytes()
    parts = list(prefixes(content))
    first = [part.name for part in parts].index("block_0/attention/weights")
    before = tmp_path / "before.tflite"
    before.write_bytes(parts[first - 1].content)
    both = in_both_places(before, "AUTO")
    assert "block_0|attention|scores" in both[0]
    _assert_bit_equal(both)
    tell(f"{PI_5} {INTEGERS_ONLY!s:27} bit-equal with XNNPACK up to the first softmax")
