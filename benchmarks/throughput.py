"""Compares the training throughput of cct-export with that of the keras.io example's own code.

``python benchmarks/throughput.py`` alternates: an epoch of the example's ``fit``, then an epoch of
``cct_export.train`` with the same recipe, and with other settings. The first step of an epoch is
not timed. The images are random, which costs a step as much as any.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click

BATCH = 128


@dataclass
class Trainer:
    """Code that trains, one epoch at a time.

    Attributes:
        name: for the table.
        epoch: trains the epoch of a number, from 1, and calls a function after every step.
        rates: images per second of every epoch.
    """

    name: str
    epoch: Callable[[int, Callable[[], None]], None]
    rates: list[float] = field(default_factory=list)

    def train(self, number: int) -> None:
        """Trains an epoch and adds its rate."""
        ends: list[float] = []
        self.epoch(number, lambda: ends.append(time.perf_counter()))
        self.rates.append(BATCH * (len(ends) - 1) / (ends[-1] - ends[0]))


@dataclass(frozen=True)
class Throughput:
    """How fast a trainer is.

    Attributes:
        name: of the trainer.
        images_per_s: median over the epochs.
        ratio: median of its rate over the first trainer's, epoch by epoch.
        rates: images per second of every epoch.
    """

    name: str
    images_per_s: float
    ratio: float
    rates: list[float]


@click.command()
@click.option("--steps", type=click.IntRange(2), default=40, help="Steps of an epoch.")
@click.option("--rounds", type=click.IntRange(1), default=7, help="Epochs of each.")
@click.option("--xla", is_flag=True, help="Also compile the steps of cct-export with XLA.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the record as JSON.")
def main(steps: int, rounds: int, xla: bool, out: Path | None) -> None:
    """Compare the throughput of training."""
    import keras

    from cct_export import machine

    with tempfile.TemporaryDirectory() as name:
        data = _images(Path(name), steps)
        trainers = [
            _example(data),
            _ours("cct-export", data),
            _ours("cct-export, mixed_bfloat16", data, precision="mixed_bfloat16"),
            *([_ours("cct-export, XLA", data, jit="on")] if xla else []),
        ]
        for number in range(1, rounds + 1):
            for trainer in trainers:
                trainer.train(number)
    rows = _summary(trainers)
    for row in rows:
        click.echo(f"{row.name:30} {row.images_per_s:8.0f} images/s  {row.ratio:.2f} x")
    if out is not None:
        record = {
            "backend": keras.backend.backend(),
            "steps": steps,
            "machine": asdict(machine.describe()),
            "versions": machine.versions("tensorflow", "keras", "jax"),
            "rows": [asdict(row) for row in rows],
        }
        out.write_text(json.dumps(record, indent=2) + "\n")


def _images(folder: Path, steps: int) -> Path:
    """Writes as many random images as ``steps`` steps take."""
    import numpy as np

    random = np.random.default_rng(0)
    count = -(-steps * BATCH * 10 // 9)  # a tenth is held out
    pixels = random.integers(0, 256, (count, 32, 32, 3), np.uint8)
    labels = random.integers(0, 10, count)
    path = folder / "random.npz"
    np.savez(path, x_train=pixels, y_train=labels, x_test=pixels[:BATCH], y_test=labels[:BATCH])
    return path


def _summary(trainers: list[Trainer]) -> list[Throughput]:
    first = trainers[0].rates
    return [
        Throughput(
            trainer.name,
            statistics.median(trainer.rates),
            statistics.median(a / b for a, b in zip(trainer.rates, first, strict=True)),
            trainer.rates,
        )
        for trainer in trainers
    ]


def _example(data: Path) -> Trainer:
    import example
    import keras
    import numpy as np

    with np.load(data) as arrays:
        pixels, targets = arrays["x_train"], keras.utils.to_categorical(arrays["y_train"], 10)
    model = example.build()

    def epoch(number: int, step: Callable[[], None]) -> None:
        callback = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: step())
        model.fit(
            pixels, targets, batch_size=BATCH, validation_split=0.1, callbacks=[callback],
            initial_epoch=number - 1, epochs=number, verbose=0,
        )  # fmt: skip

    return Trainer("the example's code", epoch)


def _ours(name: str, data: Path, **hyperparameters: str) -> Trainer:
    import cct_export

    def epoch(number: int, step: Callable[[], None]) -> None:
        recipe = cct_export.recipe(
            "keras-io", data=str(data), epochs=number, batch=BATCH, **hyperparameters
        )
        cct_export.train(
            data.parent / name, recipe=recipe, resume=number > 1,
            progress=lambda _epoch, done, _steps, _metrics: step() if done else None,
        )  # fmt: skip

    return Trainer(name, epoch)


if __name__ == "__main__":
    main()
