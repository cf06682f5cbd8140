"""The model card of a run, with the front matter that the Hugging Face Hub reads."""

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cct_export.data.recompressed import QUALITY
from cct_export.errors import InvalidModel
from cct_export.files import write_text
from cct_export.model.presets import PRESETS
from cct_export.model.sizes import parameter_count
from cct_export.specs import ModelSpec
from cct_export.specs.train import OF_TEACHER, Value
from cct_export.text import printable
from cct_export.training import plots
from cct_export.training.recipes import DEFAULT, RECIPES, resolve
from cct_export.training.run import Accuracy, EpochMetrics, RunDirectory, RunRecord

# Placeholder for the repository until the card is pushed to one, see cct_export.training.hub.
REPOSITORY = "hf:OWNER/NAME"
# Number of classes, name and identifier of the datasets that --data downloads. A folder or file of
# the same name may hold other images, or recompressed ones: it is not the dataset of the Hub.
_PUBLIC = {
    "cifar10": (10, "CIFAR-10", "uoft-cs/cifar10"),
    "cifar100": (100, "CIFAR-100", "uoft-cs/cifar100"),
}
_ARCHITECTURE = (
    "block", "filters", "kernel", "stride", "padding", "layers", "heads", "head_dim", "mlp_units",
    "activation", "gelu", "positional", "dropout", "stochastic_depth", "stochastic_depth_mode",
)  # fmt: skip
# Options in every command, so that it does not depend on later defaults.
_ALWAYS = ("data", "epochs", "batch", "seed")
_METRICS = {
    "loss": "loss", "accuracy": "top-1", "top5": "top-5", "val_loss": "validation loss",
    "val_accuracy": "validation top-1", "val_top5": "validation top-5",
    "learning_rate": "learning rate",
}  # fmt: skip

_ABOUT_JPEG = (
    f"\n\n*As JPEG* are the same test images after JPEG compression (quality {QUALITY}, 4:2:0), as "
    "photographs mostly are stored and sent. The difference between the two rows is what this "
    "model loses on such images."
)
# Hyperparameters that do nothing at 0.
_OFF_AT_0 = (
    "warmup", "clip_norm", "ema", "crop", "rand_augment", "mixup", "cutmix", "erasing", "patience",
    "embedding_weight",
)  # fmt: skip
# The name of a card in its front matter, without characters that YAML escapes.
_NAME = re.compile(r'(?<=\nmodel-index:\n- name: )"([^"\\\n]+)"')

# What a field of a spec may be as plain JSON types.
_Field = Value | Sequence[Value] | None


def write(run: RunDirectory, metrics: list[EpochMetrics]) -> None:
    """Writes ``README.md`` and ``model.png`` of a finished run.

    Args:
        run: the run directory.
        metrics: of every epoch.

    Raises:
        InvalidModel: the run is not finished.
        OutputError: the directory cannot be written.
    """
    record = run.record()
    if record.test is None:
        raise InvalidModel(f"the run in {run.path} is not finished")
    plots.draw_architecture(record.model, run.diagram_file)
    sections = (
        _front_matter(run.name, record, record.test),
        _about(run.name, record.model),
        _use(),
        _limits(record.model),
        _result(record, record.test, metrics),
        _hyperparameters(record),
        _training_metrics(metrics),
        _architecture(record.model, run.diagram_file.name),
        _reproduction(record),
    )
    write_text(run.card_file, "\n\n".join(sections) + "\n")


def for_repository(card: str, hub_id: str) -> str:
    """Returns a card with the name of its repository on the Hub, for its title too.

    Args:
        card: content of ``README.md``; a title that was changed by hand stays.
        hub_id: ``OWNER/NAME``.
    """
    card = card.replace(REPOSITORY, f"hf:{hub_id}")
    name = _NAME.search(card)
    title = f"\n# {_escaped(name[1])}\n" if name else ""
    if name is None or title not in card:
        return card
    card = f'{card[: name.start()]}"{hub_id}"{card[name.end() :]}'
    return card.replace(title, f"\n# {hub_id}\n", 1)


@dataclass(frozen=True)
class TrainingData:
    """The dataset of a model card.

    Attributes:
        name: for people.
        identifier: of the Hub; for the user's own data, a slug of its name.
        public: whether the dataset is on the Hub.
    """

    name: str
    identifier: str
    public: bool


def training_data(data: str, classes: int) -> TrainingData:
    """Returns the dataset of ``--data DATA``, which has ``classes`` classes."""
    stem = Path(data).name.removesuffix(".npz") or "data"
    if data in _PUBLIC and _PUBLIC[data][0] == classes:
        _, name, identifier = _PUBLIC[data]
        return TrainingData(name, identifier, public=True)
    slug = re.sub(r"[^A-Za-z0-9._]+", "-", stem).strip("-.") or "data"
    return TrainingData(stem, slug, public=False)


def _front_matter(name: str, record: RunRecord, test: Accuracy) -> str:
    """Returns the YAML header of the card between its lines of dashes."""
    data = training_data(record.train.data, record.model.classes)
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
        f"- name: {_quoted(name)}",
        "  results:",
        "  - task:",
        "      type: image-classification",
        "      name: Image classification",
        "    dataset:",
        f"      name: {_quoted(data.name)}",
        f"      type: {_quoted(data.identifier)}",
        "      split: test",
        "    metrics:",
    ]
    for kind, metric, value in (
        ("accuracy", "Top-1", test.top1), ("top_5_accuracy", "Top-5", test.top5)
    ):  # fmt: skip
        lines += [
            f"    - type: {kind}",
            f"      name: {metric} accuracy on {test.samples:,} images",
            f"      value: {value:.6f}",
        ]
    return "\n".join(["---", *lines, "---"])


def _quoted(text: str) -> str:
    """Returns a string of YAML, which reads JSON's; characters as they are, without surrogates."""
    return json.dumps(printable(text), ensure_ascii=False)


def _about(name: str, model: ModelSpec) -> str:
    labels = ", ".join(map(_escaped, model.labels))
    colors, size = "RGB" if model.channels == 3 else "grayscale", model.image_size
    return (
        f"# {_escaped(name)}\n\n"
        f"An image classifier: {_escaped(model.name)}, a Compact Convolutional Transformer "
        f"([arXiv:2104.05704](https://arxiv.org/abs/2104.05704)) with {parameter_count(model):,} "
        f"parameters. The input is raw {colors} pixels (0-255, {size}×{size}), the output "
        f"{model.classes} logits. It was trained with cct-export, which also exports it to TFLite "
        "and ONNX.\n\n"
        f"Classes: {labels}."
    )


def _use() -> str:
    return (
        "## Intended use\n\n"
        "Classification of images like those of the training data into the classes above, on a "
        "phone, a Raspberry Pi or a server; and as pretrained weights for fine-tuning "
        "(`cct-export train --from`). It is not meant for decisions about people, nor where a "
        "wrong prediction does harm.\n\n"
        "In the run directory:\n\n"
        "```bash\n"
        "cct-export predict . photo.jpg\n"
        "cct-export tflite . --quantize int8\n"
        "```\n\n"
        f"From the Hugging Face Hub, write `{REPOSITORY}` in place of the dot."
    )


def _limits(model: ModelSpec) -> str:
    size = model.image_size
    return (
        "## Limitations\n\n"
        "- It predicts one of its training classes for any image.\n"
        f"- Its input has {size}×{size} pixels. `cct-export predict` resizes other images and does "
        "not keep the aspect ratio; detail is lost.\n"
        "- Normalization is part of the model: the input is raw pixels. Pixels divided by 255 give "
        "wrong predictions.\n"
        "- Accuracy on images from another source than the test split is not known. The "
        "calibration of its probabilities was not measured.\n"
        "- Bias was not studied: accuracy is likely lower on what is rare, or uniform, in the "
        "training data."
    )


def _result(record: RunRecord, test: Accuracy, metrics: list[EpochMetrics]) -> str:
    best = _best(metrics)
    rows = [
        ("split", "images", "top-1", "top-5"),
        ("---",) * 4,
        *(
            (name, f"{accuracy.samples:,}", f"{accuracy.top1:.2%}", f"{accuracy.top5:.2%}")
            for name, accuracy in (("test", test), ("test, as JPEG", record.test_jpeg))
            if accuracy is not None
        ),
        (
            f"validation (best epoch, {best['epoch']})",
            f"{record.train.validation:.0%} of training",
            f"{best['val_accuracy']:.2%}",
            f"{best['val_top5']:.2%}" if "val_top5" in best else "",
        ),
    ]
    data = training_data(record.train.data, record.model.classes)
    return (
        f"## Result\n\nOn {_escaped(data.name)}:\n\n{_table(rows)}\n\n"
        f"The validation top-1 selected the best of {len(metrics)} epochs; the test split was used "
        "for the final evaluation only." + (_ABOUT_JPEG if record.test_jpeg else "")
    )


def _hyperparameters(record: RunRecord) -> str:
    fields = _resolved(record)
    if record.start is not None:
        fields["fine-tuned from"] = f"{record.start.source} (sha256 {record.start.sha256[:12]})"
    if record.teacher is not None:
        fields["teacher"] = f"{record.teacher.source} (sha256 {record.teacher.sha256[:12]})"
    return "## Hyperparameters\n\n" + _properties(fields)


def _resolved(record: RunRecord) -> dict[str, _Field]:
    """Returns the hyperparameters as the run used them; None for those without effect."""
    train, model = record.train, record.model
    fields: dict[str, _Field] = {
        **train.to_dict(),
        "warmup": train.warmup_epochs,
        "dropout": model.dropout,
        "stochastic_depth": model.stochastic_depth,
    }
    unused = [name for name in _OFF_AT_0 if fields[name] == 0]
    if train.schedule == "constant":
        unused.append("final_rate")
    if not train.rand_augment:
        unused.append("magnitude")
    if not (train.mixup or train.cutmix):
        unused.append("mix_probability")
    if train.teacher_loss != "kl":
        unused.append("temperature")
    fields |= dict.fromkeys(unused)
    if record.teacher is None:
        fields = {name: value for name, value in fields.items() if name not in OF_TEACHER}
    if train.jit == "auto":
        fields["jit"] = "left to Keras"
    return fields


def _training_metrics(metrics: list[EpochMetrics]) -> str:
    """Returns the metrics of the first, best, last and every tenth epoch."""
    best = _best(metrics)
    shown = [
        epoch
        for epoch in metrics
        if epoch in (metrics[0], best, metrics[-1]) or epoch["epoch"] % 10 == 0
    ]
    names = [name for name in metrics[0] if name != "epoch"]
    rows: list[tuple[str, ...]] = [
        ("epoch", *(_METRICS.get(name, name) for name in names)), ("---",) * (len(names) + 1)
    ]  # fmt: skip
    for epoch in shown:
        number = f"{epoch['epoch']}{' (best)' if epoch is best else ''}"
        rows.append((number, *(_formatted(name, epoch.get(name)) for name in names)))
    return (
        f"## Training metrics\n\n{_table(rows)}\n\n"
        "All epochs are in `metrics.csv`.\n\n"
        "![Loss and top-1 accuracy by epoch, training and validation](curves.png)"
    )


def _best(metrics: list[EpochMetrics]) -> EpochMetrics:
    return max(metrics, key=lambda epoch: epoch["val_accuracy"])


def _formatted(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2%}" if name.endswith(("accuracy", "top5")) else f"{value:.4g}"


def _architecture(model: ModelSpec, diagram: str) -> str:
    fields = model.to_dict() | ({"gelu": "exact"} if model.block == "paper" else {})
    if model.activation != "gelu":
        del fields["gelu"]
    rows = _properties({name: fields[name] for name in _ARCHITECTURE if name in fields})
    return (
        "## Model\n\n"
        f"![From image to logits: output shape and parameters of every step]({diagram})\n\n{rows}"
    )


def _reproduction(record: RunRecord) -> str:
    return (
        f"## Training command\n\n```bash\n{printable(command(record))}\n```\n\nEnvironment:\n\n"
        + _properties({**(record.environment or {})})
    )


def _properties(fields: dict[str, _Field]) -> str:
    """Returns a table of names and values."""
    rows = [(name.replace("_", " "), _value(value)) for name, value in fields.items()]
    return _table([("", ""), ("---", "---"), *rows], escape=True)


def _value(value: _Field) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in ([], ""):
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _table(rows: Sequence[tuple[str, ...]], escape: bool = False) -> str:
    cells = ([_escaped(cell) if escape else cell for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _escaped(text: str) -> str:
    """Returns a name of the user's with the characters escaped that mean something in Markdown."""
    escaped = printable(text).replace("\\", "\\\\")
    for letter in "|<`*[":
        escaped = escaped.replace(letter, f"\\{letter}")
    return escaped


def command(record: RunRecord) -> str:
    """Returns the command line that repeats a run.

    Every field of a ``TrainSpec`` is an option of the same name. Hyperparameters of a TOML file
    become options: the file may be gone.
    """
    model, start = record.model, record.start
    options: dict[str, _Field] = {"model": model.name} if start is None else {"from": start.source}
    preset = PRESETS.get(model.name)
    # The record does not have what the pretrained model was.
    if start is not None or (preset is not None and preset.image_size != model.image_size):
        options["image_size"] = model.image_size
    for name in ("stochastic_depth_mode", "activation"):
        value = getattr(model, name)
        if start is not None or value != getattr(ModelSpec, name):
            options[name] = value
    if record.teacher is not None:
        options["teacher"] = record.teacher.source
    recipe = record.train.recipe if record.train.recipe in RECIPES else DEFAULT
    if recipe != DEFAULT or start is not None:
        options["recipe"] = recipe
    train = record.train.to_dict()
    defaults = resolve(recipe, "").to_dict() | {"recipe": train["recipe"]}
    options |= {name: train[name] for name in _ALWAYS}
    options |= {
        name: value
        for name, value in train.items()
        if name not in _ALWAYS and value != defaults[name]
    }
    words = (word for name, value in options.items() for word in _option(name, value))
    return shlex.join(["cct-export", "train", *words])


def _option(name: str, value: _Field) -> list[str]:
    """Returns the words of an option."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", ",".join(map(str, value)) if isinstance(value, list) else str(value)]
