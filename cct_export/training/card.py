"""The model card: what the weights are, how they came to be, how good they are."""

import shlex
from typing import Any

from cct_export.files import write_text
from cct_export.model.presets import PRESETS
from cct_export.specs import ModelSpec, TrainSpec
from cct_export.training.run import History, RunDirectory

_FRONT = """---
library_name: keras
pipeline_tag: image-classification
tags:
- image-classification
- compact-convolutional-transformer
---
"""


def write(run: RunDirectory, history: History) -> None:
    """Writes ``README.md`` of a finished run from its record and history."""
    record = run.record()
    model, train, test = record["model"], record["train"], record["test"]
    best = max(history, key=lambda entry: entry["val_accuracy"])
    environment = ", ".join(f"{key} {value}" for key, value in record["environment"].items())
    lines = [
        _FRONT,
        f"# {model['name']}",
        "",
        "A Compact Convolutional Transformer (arXiv:2104.05704) that takes raw "
        f"{'RGB' if model['channels'] == 3 else 'grey'} pixels (0-255, "
        f"{model['image_size']}×{model['image_size']}) and gives {model['classes']} logits.",
        "",
        f"Classes: {', '.join(model['labels'])}.",
        "",
        "## Result",
        "",
        "| split | images | top-1 | top-5 |",
        "|---|---|---|---|",
        f"| test | {test['samples']:,} | {test['top1']:.2%} | {test['top5']:.2%} |",
        f"| validation (best epoch, {best['epoch']}) | {train['validation']:.0%} of training "
        f"| {best['val_accuracy']:.2%} | {best['val_top5']:.2%} |",
        "",
        f"The best of {len(history)} epochs was chosen by validation top-1; the test split was "
        "used once, at the end.",
        "",
        "## Recipe",
        "",
        "| | |",
        "|---|---|",
        "| optimizer | AdamW |",
        *_rows({key: value for key, value in train.items() if key != "freeze"}),
        *_start_rows(record),
        "| augmentation | horizontal flip |",
        *_architecture_rows(model),
        "",
        "## Made by",
        "",
        "```",
        command(model, train, record.get("start")),
        "```",
        "",
        f"Environment: {environment}.",
        "",
        "## Limits",
        "",
        "It knows its training classes only and answers with one of them for any picture. "
        "Accuracy on images from another source than the test split is not known.",
        "",
    ]
    write_text(run.card_file, "\n".join(lines))


def _architecture_rows(model: dict[str, Any]) -> list[str]:
    keys = (
        "block", "filters", "layers", "heads", "head_dim", "mlp_units", "positional", "dropout",
        "stochastic_depth", "stochastic_depth_mode",
    )  # fmt: skip
    return _rows({key: model[key] for key in keys})


def _rows(fields: dict[str, Any]) -> list[str]:
    return [f"| {key.replace('_', ' ')} | {value} |" for key, value in fields.items()]


def _start_rows(record: dict[str, Any]) -> list[str]:
    """Returns what was fine-tuned, and what of it is as it was."""
    start, frozen = record.get("start"), record["train"].get("freeze")
    said = {"frozen": ", ".join(frozen)} if frozen else {}
    if start is not None:
        said["fine-tuned from"] = f"{start['source']} (sha256 {start['sha256'][:12]})"
    return _rows(said)


def command(
    model: dict[str, Any], train: dict[str, Any], start: dict[str, Any] | None = None
) -> str:
    """Returns the command line that repeats a run.

    Args:
        model: a ``ModelSpec`` as plain JSON types.
        train: a ``TrainSpec`` as plain JSON types.
        start: where its weights were from, see ``RunDirectory.begin``.
    """
    options = {"from": start["source"]} if start is not None else {"model": model["name"]}
    usual = TrainSpec("").to_dict()
    named = PRESETS.get(model["name"])
    # What the checkpoint was for is not in the record: said again, it does no harm.
    if start is not None or (named is not None and named.image_size != model["image_size"]):
        options["image_size"] = model["image_size"]
    if start is not None or model["stochastic_depth_mode"] != ModelSpec.stochastic_depth_mode:
        options["stochastic_depth_mode"] = model["stochastic_depth_mode"]
    options |= {key: train[key] for key in ("data", "epochs", "batch", "seed")}
    rare = ("learning_rate", "weight_decay")
    options |= {key: train[key] for key in rare if train[key] != usual[key]}
    if train.get("freeze"):
        options["freeze"] = ",".join(train["freeze"])
    words = (
        word
        for key, value in options.items()
        for word in (f"--{key.replace('_', '-')}", str(value))
    )
    return shlex.join(["cct-export", "train", *words])
