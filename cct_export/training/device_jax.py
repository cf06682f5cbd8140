"""Training on one device with JAX: the images stay on it, and many steps are one dispatch.

A step of a small model takes an accelerator less time than Python needs to begin one and to copy
a batch. Here a dispatch gets the rows of several batches, and XLA runs their steps in a loop.
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cct_export.data.dataset import ArraySplit, Split
from cct_export.files import cache_folder
from cct_export.training.batches import Batches, Subset, fits_in_memory
from cct_export.training.distribution_base import Distribution
from cct_export.training.learner import Learner

# Steps of a dispatch: at most as many as take this many bytes of images, which is 85 of 128
# CIFAR-10 images, and no more than that of smaller ones. At 17,000 images a second, which an H200
# did with a dispatch per step, this is 0.6 s: progress, Ctrl-C and NaN wait no longer for a step.
_DISPATCH_BYTES = 2**25
_DISPATCH_STEPS = 85

Step = Callable[..., tuple[Any, Any]]


class DeviceBatches(Batches):
    """The same batches, as rows of images that are on the device; an item is a dispatch.

    Args:
        images: uint8 ``(N, height, width, channels)``, on the device.
        labels: int32 ``(N,)``, on the device.
        steps: at most these are a dispatch; the last batch, if smaller, is one of its own.
        subset: the same images.
        size: images per batch.
        seed: see ``Batches``.
        epoch: the first epoch.
    """

    def __init__(
        self,
        images: Any,
        labels: Any,
        steps: int,
        subset: Subset,
        size: int,
        seed: int | None,
        epoch: int = 0,
    ) -> None:
        super().__init__(subset, size, seed, epoch)
        self.images = images
        self.labels = labels
        whole = len(subset.rows) // size
        self._begins = list(range(0, whole, dispatch_steps(whole, steps)))
        if whole < self.steps:
            self._begins.append(whole)

    def __len__(self) -> int:
        """Dispatches in an epoch."""
        return len(self._begins)

    def __getitem__(self, index: int) -> tuple[dict[str, Any]]:
        """Returns the arrays on the device, and ``rows``, int32 ``(steps, size)``."""
        begin, end = self._begins[index], self.steps_done(index)
        rows = self._order[begin * self.size : end * self.size].astype("int32")
        rows = rows.reshape(end - begin, -1)
        return ({"image": self.images, "label": self.labels, "rows": rows},)

    def steps_done(self, index: int) -> int:
        """Returns how many steps of an epoch are done after a dispatch."""
        return [*self._begins, self.steps][index + 1]


def dispatch_steps(steps: int, most: int) -> int:
    """Returns the steps of a dispatch, so that few are left over.

    XLA compiles the dispatch of those that are left over by itself.

    Args:
        steps: in an epoch, of the same size.
        most: steps of a dispatch; the result is a quarter of them or more where there are as many.
    """
    most = max(1, min(most, steps))
    counts = range((most + 3) // 4, most + 1)
    return min(counts, key=lambda count: (steps % count, -count))


class DeviceLearner(Learner):
    """Trains on ``DeviceBatches``, and on batches from the host as every learner does."""

    train_function: Any
    test_function: Any

    def _symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Does nothing: all variables are there.

        Keras calls it before every training and validation. Since some layers without variables
        never count as built, it would trace the model each time, with the rows as images.
        """

    def make_train_function(self, force: bool = False) -> None:
        """Sets the function that ``fit`` calls for a dispatch; Keras calls it."""
        if self.train_function is None or force:
            super().make_train_function(force)
            self.train_function = self._dispatching(self.train_function, self.train_step)

    def make_test_function(self, force: bool = False) -> None:
        """Sets the function that ``evaluate`` calls for a dispatch; Keras calls it."""
        if self.test_function is None or force:
            super().make_test_function(force)
            self.test_function = self._dispatching(self.test_function, self.test_step)

    def _dispatching(self, single: Step, step: Step) -> Step:
        """Returns a function of the state and an iterator over dispatches.

        Args:
            single: Keras' function, of the state and an iterator over batches.
            step: one step, of the state and a batch; it has no side effects.
        """
        import jax

        classes = self.cct.spec.classes

        def batch(images: Any, labels: Any, rows: Any) -> Any:
            return ({"image": images[rows], "target": jax.nn.one_hot(labels[rows], classes)},)

        def loop(state: Any, images: Any, labels: Any, rows: Any) -> tuple[Any, Any]:
            def advance(state: Any, rows: Any) -> tuple[Any, Any]:
                logs, state = step(state, batch(images, labels, rows))
                return state, logs

            state, logs = jax.lax.scan(advance, state, rows)
            return {name: values[-1] for name, values in logs.items()}, state

        # The images are an argument: as a constant they would be part of what is compiled.
        several: Step = jax.jit(loop, donate_argnums=0)
        gather = jax.jit(batch)

        def dispatch(state: Any, iterator: Iterator[Any]) -> tuple[Any, Any]:
            data = next(iterator)
            if "rows" not in data[0]:
                return single(state, iter([data]))
            images, labels, rows = (data[0][name] for name in ("image", "label", "rows"))
            if len(rows) > 1 and self.jit_compile:
                return several(state, images, labels, rows)
            for rows_of_step in rows:
                logs, state = single(state, iter([gather(images, labels, rows_of_step)]))
            return logs, state

        return dispatch


class JaxDevice(Distribution):
    """One device of JAX.

    Args:
        steps: at most these are a dispatch; None for as many as suit the device.
    """

    learner_type = DeviceLearner

    def __init__(self, steps: int | None = None) -> None:
        self._steps = steps
        self._put: tuple[Split, Any, Any] | None = None
        keep_compiled()

    def batches(self, subset: Subset, size: int, seed: int | None, epoch: int = 0) -> Batches:
        """Returns batches on the device where they fit; arguments as of ``Batches``."""
        split = subset.split
        if not isinstance(split, ArraySplit) or not self._fits(split):
            return super().batches(subset, size, seed, epoch)
        if self._put is None or self._put[0] is not split:
            import jax

            self._put = (split, *jax.device_put((split.pixels, split.labels.astype("int32"))))
        _, images, labels = self._put
        steps = self._steps or _suitable_steps(size * math.prod(images.shape[1:]))
        return DeviceBatches(images, labels, steps, subset, size, seed, epoch)

    def _fits(self, split: ArraySplit) -> bool:
        """Returns whether the images take no more than half of the free memory, or are there."""
        if self._put is not None and self._put[0] is split:
            return True
        memory = _device().memory_stats()
        if not memory or "bytes_limit" not in memory:
            return fits_in_memory(split.pixels.nbytes)
        free = memory["bytes_limit"] - memory["bytes_in_use"]
        return bool(split.pixels.nbytes <= free / 2)


def _device() -> Any:
    import jax

    return jax.local_devices()[0]


def _suitable_steps(batch_bytes: int) -> int:
    """Returns how many steps are a dispatch at most."""
    # In a loop XLA computes convolutions on one thread of a CPU, without its fast kernels: steps of
    # cct_2_3x2_32 took 8 times as long on two cores. A step of a CPU takes far longer than a
    # dispatch anyway.
    if _device().platform == "cpu":
        return 1
    return max(1, min(_DISPATCH_STEPS, _DISPATCH_BYTES // batch_bytes))


def keep_compiled() -> None:
    """Keeps what XLA compiles, for the next run of the same model, unless JAX has a folder for it.

    JAX keeps what takes a second or more to compile. Without a folder that can be written nothing
    is kept.
    """
    import jax

    if jax.config.jax_compilation_cache_dir is not None:
        return
    folder = cache_folder() / "jax"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_private(folder):
            jax.config.update("jax_compilation_cache_dir", str(folder))


def _is_private(folder: Path) -> bool:
    """Returns whether this user alone can write the folder, since code in it is run."""
    if os.name == "nt":
        return True
    status = folder.stat()
    return (
        status.st_uid == os.getuid() and not status.st_mode & 0o022 and os.access(folder, os.W_OK)
    )
