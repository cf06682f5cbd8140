"""``cct-bench keras``."""

from cct_export.commands import measuring

command = measuring.command(
    "keras",
    "Measure latency, memory and, if asked, accuracy of Keras models.\n\n"
    "Without an argument the shipped CIFAR-10 model. KERAS_BACKEND chooses the backend.",
)
