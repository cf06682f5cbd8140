"""What a run was asked for, so that it is not to be said again when it goes on."""

import json
from pathlib import Path
from typing import Any

from cct_export.specs.train import knobs

# Options of a run that are no knobs, and where the record has them.
_DATA = ("data", "freeze")
_MODEL = ("image_size", "stochastic_depth_mode")


def fill_in(folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Returns the options of a run with those that were not given as its record has them.

    Args:
        folder: the run directory. Without a record in it, which a worker that is not the chief
            does not have, nothing is filled in.
        given: options by name, None where one was not given: ``model``, ``start``, ``recipe``,
            ``data``, ``freeze``, ``image_size``, ``stochastic_depth_mode`` and the knobs. With a
            recipe, the knobs are that one's; without, ``recorded`` comes along, its name.
    """
    try:
        record = json.loads((folder / "run.json").read_text())
        train, model = record["train"], record["model"]
        remembered = {name: train.get(name) for name in _DATA}
        remembered |= {name: model.get(name) for name in _MODEL}
        remembered["freeze"] = ",".join(train.get("freeze", ())) or None
        if given["model"] is None and given["start"] is None:
            start = record.get("start")
            remembered |= {"start": start["source"]} if start else {"model": model["name"]}
        if given["recipe"] is None:
            names = [knob.name for knob in knobs()]
            remembered |= {name: train[name] for name in names if name in train}
            remembered["recorded"] = train.get("recipe")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return given  # the run itself says what is wrong with its record
    filled = {name: value for name, value in given.items() if value is not None}
    return given | remembered | filled
