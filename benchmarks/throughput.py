"""Compares how fast cct-export trains with how fast the example's own code does, in one run.

``python benchmarks/throughput.py`` takes turns: an epoch of the example's ``fit``, then an epoch of
``cct_export.train`` with the same recipe, and with other settings. What is timed are the steps of
an epoch but for the first. The images are random, which costs a step as much as any.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

BATCH = 128


@dataclass
class Contender:
    """Something that trains.

    Attributes:
        name: for the table.
        epoch: trains the epoch of that number, from 1, and tells of the end of every step.
        rates: images per second of every turn.
    """

    name: str
    epoch: Callable[[int, Callable[[], None]], None]
    rates: list[float] = field(default_factory=list)

    def turn(self, number: int) -> None:
        """Trains an epoch and notes how fast."""
        ends: list[float] = []
        self.epoch(number, lambda: ends.append(time.perf_counter()))
        self.rates.append(BATCH * (len(ends) - 1) / (ends[-1] - ends[0]))


@click.command()
@click.option("--steps", type=click.IntRange(2), default=40, help="Of an epoch.")
@click.option("--rounds", type=click.IntRange(1), default=7, help="Turns of each.")
@click.option("--xla", is_flag=True, help="Compile the steps of ours with XLA too.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the record as JSON.")
def main(steps: int, rounds: int, xla: bool, out: Path | None) -> None:
    """Compare the throughput of training."""
    import keras

    from cct_export import machine

    with tempfile.TemporaryDirectory() as name:
        data = _images(Path(name), steps)
        contenders = [
            _example(data),
            _ours("cct-export", data),
            _ours("cct-export, mixed_bfloat16", data, precision="mixed_bfloat16"),
            *([_ours("cct-export, XLA", data, jit="on")] if xla else []),
        ]
        for number in range(1, rounds + 1):
            for contender in contenders:
                contender.turn(number)
    rows = _rows(contenders)
    for row in rows:
        click.echo(f"{row['name']:30} {row['images_per_s']:8.0f} images/s  {row['ratio']:.2f} x")
    if out is not None:
        record = {
            "backend": keras.backend.backend(),
            "steps": steps,
            "machine": machine.describe(),
            "versions": machine.versions("tensorflow", "keras", "jax"),
            "rows": rows,
        }
        out.write_text(json.dumps(record, indent=2) + "\n")


def _images(folder: Path, steps: int) -> Path:
    """Writes random images, so many that an epoch has ``steps`` steps."""
    import numpy as np

    random = np.random.default_rng(0)
    count = -(-steps * BATCH * 10 // 9)  # a tenth is held out
    pixels = random.integers(0, 256, (count, 32, 32, 3), np.uint8)
    labels = random.integers(0, 10, count)
    path = folder / "random.npz"
    np.savez(path, x_train=pixels, y_train=labels, x_test=pixels[:BATCH], y_test=labels[:BATCH])
    return path


def _rows(contenders: list[Contender]) -> list[dict[str, Any]]:
    """Returns the rate of each, and the median of its rate over the first's, turn by turn."""
    first = contenders[0].rates
    return [
        {
            "name": one.name,
            "images_per_s": statistics.median(one.rates),
            "ratio": statistics.median(a / b for a, b in zip(one.rates, first, strict=True)),
            "rates": one.rates,
        }
        for one in contenders
    ]


def _example(data: Path) -> Contender:
    import example
    import keras
    import numpy as np

    with np.load(data) as arrays:
        pixels, targets = arrays["x_train"], keras.utils.to_categorical(arrays["y_train"], 10)
    model = example.build()

    def epoch(number: int, step: Callable[[], None]) -> None:
        told = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: step())
        model.fit(
            pixels, targets, batch_size=BATCH, validation_split=0.1, callbacks=[told],
            initial_epoch=number - 1, epochs=number, verbose=0,
        )  # fmt: skip

    return Contender("the example's code", epoch)


def _ours(name: str, data: Path, **knobs: Any) -> Contender:
    import cct_export

    def epoch(number: int, step: Callable[[], None]) -> None:
        recipe = cct_export.recipe("keras-io", data=str(data), epochs=number, batch=BATCH, **knobs)
        cct_export.train(
            data.parent / name, recipe=recipe, resume=number > 1,
            progress=lambda _epoch, done, _of, _metrics: step() if done else None,
        )  # fmt: skip

    return Contender(name, epoch)


if __name__ == "__main__":
    main()
