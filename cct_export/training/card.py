"""The model card: what the weights are, how they came to be, how good they are."""

import functools
import shlex
from collections.abc import Sequence
from typing import Any

from cct_export.files import write_text
from cct_export.model.presets import PRESETS
from cct_export.model.sizes import parameter_count
from cct_export.specs import ModelSpec
from cct_export.text import printable
from cct_export.training import diagram
from cct_export.training.front_matter import (
    REPOSITORY,
    front_matter,
    training_data,
)
from cct_export.training.recipes import DEFAULT, RECIPES, resolve
from cct_export.training.run import History, RunDirectory

DIAGRAM = "model.png"
_ARCHITECTURE = (
    "block", "filters", "kernel", "stride", "padding", "layers", "heads", "head_dim", "mlp_units",
    "gelu", "positional", "dropout", "stochastic_depth", "stochastic_depth_mode",
)  # fmt: skip
# Said in every command, whatever the defaults will be one day.
_ALWAYS = ("data", "epochs", "batch", "seed")


def write(run: RunDirectory, history: History) -> None:
    """Writes ``README.md`` and ``model.png`` of a finished run from its record and history.

    Args:
        run: the run directory.
        history: of every epoch.

    Raises:
        OutputError: the folder cannot be written.
    """
    record = run.record()
    diagram.draw(ModelSpec(**record["model"]), run.path / DIAGRAM)
    sections = (
        front_matter(record),
        _about(record["model"]),
        _use(record["model"]),
        _limits(record["model"]),
        _result(record, history),
        _hyperparameters(record),
        _metrics(history),
        _architecture(record["model"]),
        _reproduction(record),
    )
    write_text(run.card_file, "\n\n".join(sections) + "\n")


def _about(model: dict[str, Any]) -> str:
    labels = ", ".join(map(_text, model["labels"]))
    return (
        f"# {_text(model['name'])}\n\n"
        "A Compact Convolutional Transformer ([arXiv:2104.05704]"
        "(https://arxiv.org/abs/2104.05704)) of "
        f"{parameter_count(ModelSpec(**model)):,} parameters. It "
        f"takes {_picture(model)} and gives {model['classes']} logits. It was trained with "
        "cct-export, which also makes TFLite and ONNX files of it.\n\n"
        f"Classes: {labels}."
    )


def _picture(model: dict[str, Any]) -> str:
    size, colours = model["image_size"], "RGB" if model["channels"] == 3 else "grey"
    return f"raw {colours} pixels (0-255, {size}×{size})"


def _use(model: dict[str, Any]) -> str:
    return (
        "## Intended use\n\n"
        "Telling the classes above apart in pictures like those that it was trained on, on a "
        "phone, a Raspberry Pi or a server; and as a start for fine-tuning "
        "(`cct-export train --from`). It is not meant for decisions about people, nor where a "
        "wrong answer does harm.\n\n"
        "In a folder that holds the files of this run:\n\n"
        "```bash\n"
        "cct-export predict . photo.jpg\n"
        f"cct-export tflite . --quantize int8 -o {shlex.quote(model['name'])}.tflite\n"
        "```\n\n"
        f"From the Hugging Face Hub, `{REPOSITORY}` takes the place of the dot."
    )


def _limits(model: dict[str, Any]) -> str:
    size = model["image_size"]
    return (
        "## Limits\n\n"
        "- It knows its training classes only and answers with one of them for any picture.\n"
        f"- It sees {size}×{size} pixels. `cct-export predict` resizes other pictures, without "
        "keeping their proportions; detail is lost.\n"
        "- Scaling of the pixels is part of the model: it takes them as they are in the file. "
        "Who divides them by 255 first gets wrong answers.\n"
        "- Accuracy on images from another source than the test split is not known. Whether its "
        "probabilities are calibrated was not measured.\n"
        "- No study of bias was made: what is rare or shown in one way only in the training "
        "images is likely to be told worse."
    )


def _result(record: dict[str, Any], history: History) -> str:
    train, test = record["train"], record["test"]
    best = _best(history)
    rows = [
        ("split", "images", "top-1", "top-5"),
        ("---",) * 4,
        ("test", f"{test['samples']:,}", f"{test['top1']:.2%}", f"{test['top5']:.2%}"),
        (
            f"validation (best epoch, {best['epoch']})",
            f"{train['validation']:.0%} of training",
            f"{best['val_accuracy']:.2%}",
            f"{best['val_top5']:.2%}" if "val_top5" in best else "",
        ),
    ]
    data = training_data(train["data"], record["model"]["classes"])
    return (
        f"## Result\n\nOn {_text(data.name)}:\n\n{_table(rows)}\n\n"
        f"The best of {len(history)} epochs was chosen by validation top-1; the test split "
        "chose nothing."
    )


def _hyperparameters(record: dict[str, Any]) -> str:
    """Returns all that was asked of the training, whatever that may be one day."""
    # Records of before there was a choice do not say it.
    said = {"recipe": DEFAULT, "optimizer": "adamw"} | record["train"]
    start = record.get("start")
    if start is not None:
        said["fine-tuned from"] = f"{start['source']} (sha256 {start['sha256'][:12]})"
    return "## Hyperparameters\n\n" + _pairs(said)


def _metrics(history: History) -> str:
    """Returns the first, best, last and every tenth epoch; the curves show the others."""
    best = _best(history)
    chosen = [
        entry
        for entry in history
        if entry in (history[0], best, history[-1]) or entry["epoch"] % 10 == 0
    ]
    names = [name for name in history[0] if name != "epoch"]
    words = (("val_", "validation "), ("accuracy", "top-1"), ("top5", "top-5"), ("_", " "))
    titles = [functools.reduce(lambda name, word: name.replace(*word), words, n) for n in names]
    rows: list[tuple[str, ...]] = [("epoch", *titles), ("---",) * (len(names) + 1)]
    for entry in chosen:
        epoch = f"{entry['epoch']}{' (best)' if entry is best else ''}"
        rows.append((epoch, *(_measure(name, entry.get(name)) for name in names)))
    return (
        f"## Training metrics\n\n{_table(rows)}\n\n"
        "All epochs are in `metrics.csv`.\n\n"
        "![Loss and top-1 accuracy by epoch, training and validation](curves.png)"
    )


def _best(history: History) -> dict[str, float]:
    return max(history, key=lambda entry: entry["val_accuracy"])


def _measure(name: str, value: float | None) -> str:
    if value is None:
        return ""
    share = name.endswith(("accuracy", "top5"))
    return f"{value:.2%}" if share else f"{value:.4g}"


def _architecture(model: dict[str, Any]) -> str:
    rows = _pairs({key: model[key] for key in _ARCHITECTURE if key in model})
    return (
        "## Model\n\n"
        f"![From image to logits: shapes and parameters of every step]({DIAGRAM})\n\n{rows}"
    )


def _reproduction(record: dict[str, Any]) -> str:
    line = command(record["model"], record["train"], record.get("start"))
    return f"## Made by\n\n```bash\n{printable(line)}\n```\n\nEnvironment:\n\n" + _pairs(
        record["environment"]
    )


def _pairs(fields: dict[str, Any]) -> str:
    """Returns a table of names and values."""
    rows = [(key.replace("_", " "), _value(value)) for key, value in fields.items()]
    return _table([("", ""), ("---", "---"), *rows], escape=True)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in ([], ""):
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _table(rows: Sequence[tuple[str, ...]], escape: bool = False) -> str:
    cells = ([_text(cell) if escape else cell for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _text(text: str) -> str:
    """Returns a name of the user's without what Markdown would take for its own."""
    escaped = printable(text).replace("\\", "\\\\")
    for letter in "|<`*[":
        escaped = escaped.replace(letter, f"\\{letter}")
    return escaped


def command(
    model: dict[str, Any], train: dict[str, Any], start: dict[str, Any] | None = None
) -> str:
    """Returns the command line that repeats a run.

    Every field of a ``TrainSpec`` is an option of the same name, on and off for true and false,
    with commas between the parts of a list.

    Args:
        model: a ``ModelSpec`` as plain JSON types.
        train: a ``TrainSpec`` as plain JSON types.
        start: where its weights were from, see ``RunDirectory.begin``.
    """
    options: dict[str, Any] = {"from": start["source"]} if start else {"model": model["name"]}
    named = PRESETS.get(model["name"])
    # What the checkpoint was for is not in the record: said again, it does no harm.
    if start is not None or (named is not None and named.image_size != model["image_size"]):
        options["image_size"] = model["image_size"]
    if start is not None or model["stochastic_depth_mode"] != ModelSpec.stochastic_depth_mode:
        options["stochastic_depth_mode"] = model["stochastic_depth_mode"]
    # What a file said is said by options: the file itself may be gone.
    recipe = train.get("recipe", DEFAULT)
    recipe = recipe if recipe in RECIPES else DEFAULT
    usual = resolve(recipe, "").to_dict() | {"recipe": train.get("recipe")}
    if recipe != DEFAULT or start is not None:
        options["recipe"] = recipe
    options |= {key: train[key] for key in _ALWAYS}
    options |= {
        key: value
        for key, value in train.items()
        if key not in _ALWAYS and (key not in usual or value != usual[key])
    }
    words = (word for key, value in options.items() for word in _option(key, value))
    return shlex.join(["cct-export", "train", *words])


def _option(key: str, value: Any) -> list[str]:
    """Returns the words that ask for ``value``; none for None, which no option says."""
    name = key.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    if value is None:
        return []
    return [f"--{name}", ",".join(map(str, value)) if isinstance(value, list) else str(value)]
