"""Writes the table of docs/models.md from the presets: `python docs/write_models.py`."""

from pathlib import Path

import cct_export
from cct_export.model.presets import PRESETS, preset

PAGE = Path(__file__).with_name("models.md")
BEGIN = "<!-- written by docs/write_models.py -->\n"
END = "<!-- until here -->\n"
HEAD = (
    "| preset | image | tokens | classes | parameters | MACs | exported: parameters | MACs |",
    "|---|---:|---:|---:|---:|---:|---:|---:|",
)


def table() -> str:
    """Returns a line per preset; twins, which differ in positions or head, have none."""
    names = [name for name in PRESETS if not name.endswith(("_sine", "_c100"))]
    return "\n".join([*HEAD, *map(_row, names)]) + "\n"


def _row(name: str) -> str:
    found = cct_export.inspect_model(name)
    size, spec = found.image_shape[0], preset(name)
    tokens = next(layer.shape for layer in found.layers if layer.name == "tokenizer/tokens")
    figures = (
        f"{size}×{size}",
        tokens[0],
        spec.classes,
        found.trainable + found.fixed,
        found.macs,
        found.folded.parameters,
        found.folded.macs,
    )
    cells = (value if isinstance(value, str) else f"{value:,}" for value in figures)
    return f"| `{name}` | {' | '.join(cells)} |"


def page() -> str:
    """Returns the page with its table as it should be; raises ``ValueError`` without its place."""
    text = PAGE.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{PAGE.name} needs one {BEGIN.strip()} and one {END.strip()}")
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page())
