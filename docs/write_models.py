"""Writes the table of docs/models.md from the presets: `python docs/write_models.py`."""

from pathlib import Path

import cct_export
from cct_export.model.presets import PRESETS, preset

PAGE = Path(__file__).with_name("models.md")
BEGIN = "<!-- models: written by docs/write_models.py -->\n"
END = "<!-- /models -->\n"
HEAD = (
    "| preset | image | tokens | classes | parameters | MACs | exported: parameters | MACs |",
    "|---|---:|---:|---:|---:|---:|---:|---:|",
)


def table() -> str:
    """Returns a row for each preset, without those that differ in positions or head alone."""
    names = [name for name in PRESETS if not name.endswith(("_sine", "_c100"))]
    return "\n".join([*HEAD, *map(_row, names)]) + "\n"


def _row(name: str) -> str:
    architecture = cct_export.inspect_model(name)
    size = architecture.image_shape[0]
    tokens = next(layer for layer in architecture.layers if layer.name == "tokenizer/tokens")
    figures = (
        f"{size}×{size}",
        tokens.shape[0],
        preset(name).classes,
        architecture.trainable + architecture.fixed,
        architecture.macs,
        architecture.folded.parameters,
        architecture.folded.macs,
    )
    cells = (value if isinstance(value, str) else f"{value:,}" for value in figures)
    return f"| `{name}` | {' | '.join(cells)} |"


def page() -> str:
    """Returns the page with its table up to date; raises ``ValueError`` without its markers."""
    text = PAGE.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{PAGE.name} needs one {BEGIN.strip()} and one {END.strip()}")
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page())
