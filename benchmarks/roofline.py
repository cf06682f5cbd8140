"""A compiled training step alone, and the time that this machine needs for it at least; on JAX.

The least time is that of its floating-point operations at the rate of one large matrix product, or
that of the bytes that it reads and writes at the rate of one large copy, whichever takes longer.
Operations and bytes are those that XLA counts in what it compiled; it fuses operations, and does
not know what a cache holds, so that its bytes are an upper bound.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

# Long enough for a rate, short on a CPU too.
_ROUND_S = 0.5
_REPEATS = 5
_SIDES = {"cpu": 2048}
_ACCELERATOR_SIDE = 8192
_COPIED_NUMBERS = 2**26


class StepAlone:
    """A training step on arrays that are on the device, without the loop around it.

    Args:
        model: a compiled learner, built with its optimizer; its weights stay as they are.
        batch: a batch from the host.
        precision: dtype policy of the model, which decides the rate of matrix products.
    """

    def __init__(self, model: Any, batch: dict[str, Any], precision: str) -> None:
        import jax
        import jax.numpy as jnp

        self._data = (jax.device_put(batch),)
        parts = (
            model.trainable_variables, model.non_trainable_variables,
            model.optimizer.variables, model.metrics_variables,
        )  # fmt: skip
        self._state = tuple([jnp.array(variable.value) for variable in part] for part in parts)
        step = jax.jit(model.train_step, donate_argnums=0).lower(self._state, self._data)
        self._step = step.compile()
        self._dtype = "bfloat16" if precision == "mixed_bfloat16" else "float32"

    def seconds(self) -> float:
        """Returns the time of a step, of several that are dispatched back to back."""
        import jax

        count, begin = 0, time.perf_counter()
        while not count or time.perf_counter() - begin < _ROUND_S:
            for _ in range(_REPEATS):
                _, self._state = self._step(self._state, self._data)
            jax.block_until_ready(self._state)
            count += _REPEATS
        return (time.perf_counter() - begin) / count

    def limit_seconds(self) -> float:
        """Returns the time that a step takes this machine at least."""
        cost = self._step.cost_analysis()
        return max(cost["flops"] / product_rate(self._dtype), cost["bytes accessed"] / copy_rate())


@functools.cache
def product_rate(dtype: str) -> float:
    """Returns the floating-point operations per second of a large matrix product."""
    import jax
    import jax.numpy as jnp

    side = _SIDES.get(jax.default_backend(), _ACCELERATOR_SIDE)
    matrix = jnp.asarray(np.random.default_rng(0).normal(size=(side, side)), dtype)
    return float(2 * side**3 / _least_seconds(jax.jit(lambda x: x @ x), matrix))


@functools.cache
def copy_rate() -> float:
    """Returns the bytes per second that a large copy reads and writes."""
    import jax
    import jax.numpy as jnp

    numbers = jnp.zeros(_COPIED_NUMBERS, "float32")
    return float(2 * numbers.nbytes / _least_seconds(jax.jit(lambda x: x + 1), numbers))


def _least_seconds(function: Callable[[Any], Any], argument: Any) -> float:
    import jax

    jax.block_until_ready(function(argument))
    times = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        jax.block_until_ready(function(argument))
        times.append(time.perf_counter() - begin)
    return min(times)
