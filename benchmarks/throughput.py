"""Compares the training throughput of cct-export with that of the keras.io example's own code.

``python benchmarks/throughput.py`` alternates epochs: of the example's ``fit``, of cct-export as it
trains, and on JAX also of cct-export with a step in a dispatch and its images from the host, which
is how it trained before. The first epoch of each is not timed. The images are random, which costs
a step as much as any.

On JAX it also tells how much of a step is the host's, and how far the step is from what the machine
can do: see ``roofline.py``.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click

EXAMPLE = "cct_keras_io"
# A model whose steps are as short on a CPU as those of a preset are on a GPU.
TINY = "tiny"


@dataclass
class Trainer:
    """Code that trains.

    Attributes:
        name: for the table.
        fit: trains an epoch with a list of callbacks.
        alone: times a round of compiled steps alone; None where there is none.
        seconds: of a step, in every epoch.
        alone_seconds: of a compiled step alone, in every round.
        dispatches: in an epoch.
    """

    name: str
    fit: Callable[[list[Any]], object]
    alone: Any = None
    seconds: list[float] = field(default_factory=list)
    alone_seconds: list[float] = field(default_factory=list)
    dispatches: int = 0

    def train(self, steps: int) -> None:
        """Trains an epoch of so many steps, and times it."""
        import keras

        times: list[float] = []

        class Timer(keras.callbacks.Callback):  # type: ignore[misc]
            def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
                times.append(time.perf_counter())

            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                float(logs["loss"])  # as the check for NaN does: waits for the step
                times.append(time.perf_counter())

        self.fit([Timer()])
        self.dispatches = len(times) - 1
        self.seconds.append((times[-1] - times[0]) / steps)
        if self.alone is not None:
            self.alone_seconds.append(self.alone.seconds())

    def forget(self) -> None:
        """Forgets the times of the first epoch, in which XLA compiles."""
        self.seconds.clear()
        self.alone_seconds.clear()


@dataclass(frozen=True)
class Throughput:
    """How fast a trainer is.

    Attributes:
        name: of the trainer.
        images_per_s: median over the epochs.
        ratio: median of its rate over the first trainer's, epoch by epoch.
        dispatches: in an epoch.
        host_share: median share of a step in which no compiled step runs; None off JAX.
        roofline_images_per_s: what the machine's matrix products and memory allow; None off JAX.
        rates: images per second of every epoch.
    """

    name: str
    images_per_s: float
    ratio: float
    dispatches: int
    host_share: float | None
    roofline_images_per_s: float | None
    rates: list[float]


@click.command()
@click.option("--model", default=EXAMPLE, show_default=True, help="A preset, or tiny.")
@click.option("--recipe", default="keras-io", show_default=True, help="Of cct-export's rows.")
@click.option("--batch", type=click.IntRange(1), default=128, show_default=True)
@click.option("--precision", multiple=True, default=("float32", "mixed_bfloat16"))
@click.option("--steps", type=click.IntRange(2), default=40, help="Steps of an epoch.")
@click.option("--rounds", type=click.IntRange(1), default=7, help="Timed epochs of each.")
@click.option("--dispatch", type=click.IntRange(1), help="Steps of a dispatch; JAX only.")
@click.option("--xla", is_flag=True, help="Also compile the steps of cct-export with XLA.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the record as JSON.")
def main(
    model: str, recipe: str, batch: int, precision: tuple[str, ...], steps: int, rounds: int,
    dispatch: int | None, xla: bool, out: Path | None,
) -> None:  # fmt: skip
    """Compare the throughput of training."""
    import keras

    from cct_export import machine

    case = _Case(model, recipe, batch, steps, dispatch)
    trainers = [_example(case)] if model == EXAMPLE else []
    for name in precision:
        if keras.backend.backend() == "jax":
            trainers.append(_ours(case, "a step in a dispatch, from the host", name, before=True))
        trainers.append(_ours(case, "cct-export", name))
        if xla:
            trainers.append(_ours(case, "cct-export, XLA", name, jit="on"))
    for number in range(rounds + 1):
        for trainer in trainers:
            trainer.train(steps)
            if not number:
                trainer.forget()
    rows = _summary(trainers, batch)
    for row in rows:
        click.echo(_line(row))
    if out is not None:
        record = {
            "backend": keras.backend.backend(),
            "options": asdict(case),
            "machine": asdict(machine.describe()),
            "versions": machine.versions("tensorflow", "keras", "jax"),
            "rows": [asdict(row) for row in rows],
        }
        out.write_text(json.dumps(record, indent=2) + "\n")


@dataclass(frozen=True)
class _Case:
    """What all rows have in common.

    Attributes:
        model: a preset, or ``TINY``.
        recipe: name of one.
        batch: images per step.
        steps: of an epoch.
        dispatch: steps of a dispatch; None for what cct-export takes.
    """

    model: str
    recipe: str
    batch: int
    steps: int
    dispatch: int | None

    def images(self, shape: tuple[int, int, int], classes: int) -> Any:
        """Returns random images for an epoch, uint8, and their labels."""
        import numpy as np

        random, count = np.random.default_rng(0), self.batch * self.steps
        pixels = random.integers(0, 256, (count, *shape), np.uint8)
        return pixels, random.integers(0, classes, count)


def _tiny() -> Any:
    from cct_export.specs import ModelSpec

    return ModelSpec(
        name=TINY, image_size=8, filters=(4, 8), layers=1, heads=1, head_dim=4, mlp_units=(8, 8)
    )


def _line(row: Throughput) -> str:
    host = "" if row.host_share is None else f"  host {row.host_share:4.0%}"
    limit = row.roofline_images_per_s
    roofline = "" if limit is None else f"  roofline {limit:9.0f} images/s"
    return (
        f"{row.name:52} {row.images_per_s:8.0f} images/s  {row.ratio:5.2f} x  "
        f"{row.dispatches:4} dispatches{host}{roofline}"
    )


def _summary(trainers: list[Trainer], batch: int) -> list[Throughput]:
    first = trainers[0].seconds
    return [
        Throughput(
            trainer.name,
            batch / statistics.median(trainer.seconds),
            statistics.median(b / a for a, b in zip(trainer.seconds, first, strict=True)),
            trainer.dispatches,
            _host_share(trainer),
            None if trainer.alone is None else batch / trainer.alone.limit_seconds(),
            [batch / seconds for seconds in trainer.seconds],
        )
        for trainer in trainers
    ]


def _host_share(trainer: Trainer) -> float | None:
    """Returns the median share of a step that is not the compiled step, 0 at least."""
    if not trainer.alone_seconds:
        return None
    pairs = zip(trainer.alone_seconds, trainer.seconds, strict=True)
    return max(0.0, statistics.median(1 - alone / whole for alone, whole in pairs))


def _example(case: _Case) -> Trainer:
    import example
    import keras

    pixels, labels = case.images((32, 32, 3), 10)
    targets = keras.utils.to_categorical(labels, 10)
    model = example.build()

    def fit(callbacks: list[Any]) -> None:
        model.fit(pixels, targets, batch_size=case.batch, callbacks=callbacks, verbose=0)

    return Trainer("the example's code", fit)


def _ours(
    case: _Case, name: str, precision: str, *, before: bool = False, jit: str = "auto"
) -> Trainer:
    """Returns cct-export; with ``before`` the images of every step are from the host."""
    import keras
    import numpy as np

    from cct_export.data.dataset import ArraySplit
    from cct_export.model.cct import CCT
    from cct_export.model.presets import PRESETS
    from cct_export.training import learner
    from cct_export.training.batches import Subset
    from cct_export.training.device_jax import JaxDevice
    from cct_export.training.distribution_base import Distribution
    from cct_export.training.recipes import resolve

    spec = _tiny() if case.model == TINY else PRESETS[case.model]
    overrides = {"batch": case.batch, "precision": precision, "jit": jit}
    recipe = resolve(case.recipe, "random", overrides)
    is_jax = keras.backend.backend() == "jax"
    device = JaxDevice(case.dispatch) if is_jax and not before else Distribution()
    keras.config.set_dtype_policy(precision)
    model = learner.compiled(CCT(spec), recipe, case.steps, device.learner_type)
    keras.config.set_dtype_policy("float32")
    model.optimizer.build(model.trainable_variables)
    # At the end of fit Keras puts the averages in the place of the weights; an epoch is a fit here.
    model.optimizer.finalize_variable_values = lambda variables: None
    shape = (spec.image_size, spec.image_size, spec.channels)
    pixels, labels = case.images(shape, spec.classes)
    subset = Subset(ArraySplit(pixels, labels), np.arange(len(labels)), spec.classes)
    batches = device.batches(subset, case.batch, 0)
    alone = None
    if is_jax:
        from roofline import StepAlone

        alone = StepAlone(model, subset.batch(np.arange(case.batch)), precision)

    def fit(callbacks: list[Any]) -> None:
        model.fit(batches, callbacks=callbacks, shuffle=False, verbose=0)

    return Trainer(f"{name}, {precision}", fit, alone)


if __name__ == "__main__":
    main()
