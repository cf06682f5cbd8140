"""MediaPipe's image classifier takes an exported file as it is, by its standard metadata."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cct_export import api

pytestmark = pytest.mark.slow
PIP_S = 900

READ_AND_CLASSIFY = """
import json, sys
import mediapipe
from mediapipe.tasks import python
from mediapipe.tasks.metadata import metadata_schema_py_generated, schema_py_generated
from mediapipe.tasks.python import vision

model_path, *images = sys.argv[1:]
content = open(model_path, "rb").read()
model = schema_py_generated.ModelT.InitFromObj(schema_py_generated.Model.GetRootAs(content, 0))
buffers = {entry.name: bytes(model.buffers[entry.buffer].data) for entry in model.metadata}
root = metadata_schema_py_generated.ModelMetadata.GetRootAs(buffers[b"TFLITE_METADATA"], 0)
graph = metadata_schema_py_generated.ModelMetadataT.InitFromObj(root).subgraphMetadata[0]
image, scores = graph.inputTensorMetadata[0], graph.outputTensorMetadata[0]
options = image.processUnits[0].options
about = {
    "mean": list(map(float, options.mean)),
    "std": list(map(float, options.std)),
    "colour space": image.content.contentProperties.colorSpace,
    "label file": scores.associatedFiles[0].name.decode(),
}
base = python.BaseOptions(model_asset_path=model_path)
with vision.ImageClassifier.create_from_options(
    vision.ImageClassifierOptions(base_options=base)
) as classifier:
    results = [classifier.classify(mediapipe.Image.create_from_file(name)) for name in images]
best = [
    {category.category_name: category.score for category in result.classifications[0].categories}
    for result in results
]
print(json.dumps({"metadata": about, "scores": best}))
"""


@pytest.fixture(scope="module")
def mediapipe(tmp_path_factory):
    """Returns what MediaPipe reads in a file, and its scores of images."""
    venv = tmp_path_factory.mktemp("mediapipe") / "venv"
    python = venv / "bin" / "python"
    for command in (
        [sys.executable, "-m", "venv", venv],
        [python, "-m", "pip", "install", "--quiet", "mediapipe"],
    ):
        process = subprocess.run(command, capture_output=True, text=True, timeout=PIP_S)
        if process.returncode:
            pytest.skip(f"no MediaPipe: {process.stderr.strip().splitlines()[-1]}")

    def classify(path, images):
        command = [python, "-c", READ_AND_CLASSIFY, path, *images]
        process = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert process.returncode == 0, process.stderr
        return json.loads(process.stdout.splitlines()[-1])

    return classify


@pytest.mark.parametrize(("scheme", "io"), [("none", "float32"), ("int8", "uint8")])
def test_mediapipe_reads_the_metadata_and_gives_our_logits(
    mediapipe, exports, digit_images, tmp_path, scheme, io
):
    exported = exports("tflite", scheme, io)
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path, pixels in zip(paths, digit_images[0], strict=False):
        Image.fromarray(pixels).save(path)
    read = mediapipe(exported.path, paths)
    assert read["metadata"] == {
        "mean": [0.0], "std": [1.0], "colour space": 1, "label file": "labels.txt",
    }  # fmt: skip
    predictions = api.predict(exported.path, images=paths, top=10)
    for scores, prediction in zip(read["scores"], predictions, strict=True):
        logits = np.array([scores[label] for label, _ in prediction.top])
        probabilities = np.exp(logits - logits.max())
        expected = [probability for _, probability in prediction.top]
        assert probabilities / probabilities.sum() == pytest.approx(expected, abs=1e-4)
