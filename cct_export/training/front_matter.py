"""What stands at the head of a model card for the Hugging Face Hub: YAML, written by hand.

Strings are quoted as JSON quotes them, which YAML reads as they are.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cct_export.text import printable

# Stands for the repository until the card is sent to one, see cct_export.training.hub.
REPOSITORY = "hf:OWNER/NAME"
# What --data says, how many classes; name and id there. A folder or file of that name may hold
# other images, or the same ones compressed: what is true of them is not true of the Hub's.
_PUBLIC = {
    "cifar10": (10, "CIFAR-10", "uoft-cs/cifar10"),
    "cifar100": (100, "CIFAR-100", "uoft-cs/cifar100"),
}


@dataclass(frozen=True)
class TrainingData:
    """What a model was trained on, as a card says it.

    Attributes:
        name: for people.
        identifier: the Hub's, or for data of one's own a word made of its name.
        public: the identifier is the Hub's.
    """

    name: str
    identifier: str
    public: bool


def training_data(data: str, classes: int) -> TrainingData:
    """Returns what ``data``, with that many classes, is called.

    Args:
        data: what ``--data`` said.
        classes: that the model has.
    """
    stem = Path(data).name.removesuffix(".npz") or "data"
    found = _PUBLIC.get(data)
    if found is not None and found[0] == classes:
        return TrainingData(found[1], found[2], public=True)
    word = re.sub(r"[^A-Za-z0-9._]+", "-", stem).strip("-.") or "data"
    return TrainingData(stem, word, public=False)


def front_matter(record: dict[str, Any]) -> str:
    """Returns the front matter of a finished run, between its lines of dashes.

    Args:
        record: the content of ``run.json``.
    """
    model, test = record["model"], record["test"]
    data = training_data(record["train"]["data"], model["classes"])
    lines = [
        "library_name: keras",
        "pipeline_tag: image-classification",
        "tags:",
        "- image-classification",
        "- compact-convolutional-transformer",
        "- cct",
        "- tflite",
        "- onnx",
        *(["datasets:", f"- {data.identifier}"] if data.public else []),
        "metrics:",
        "- accuracy",
        "model-index:",
        f"- name: {_quoted(model['name'])}",
        "  results:",
        "  - task:",
        "      type: image-classification",
        "      name: Image classification",
        "    dataset:",
        f"      name: {_quoted(data.name)}",
        f"      type: {_quoted(data.identifier)}",
        "      split: test",
        "    metrics:",
        *_metric("accuracy", f"Top-1 accuracy on {test['samples']:,} images", test["top1"]),
        *_metric("top_5_accuracy", f"Top-5 accuracy on {test['samples']:,} images", test["top5"]),
    ]
    return "\n".join(["---", *lines, "---"])


def _metric(kind: str, name: str, value: float) -> list[str]:
    return [f"    - type: {kind}", f"      name: {name}", f"      value: {value:.6f}"]


def _quoted(text: str) -> str:
    # Characters as they are: YAML has no pairs of surrogates.
    return json.dumps(printable(text), ensure_ascii=False)
