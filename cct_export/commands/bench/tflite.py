"""``cct-bench tflite``."""

from cct_export.commands import measuring

command = measuring.command(
    "tflite",
    "Measure latency, memory and, if asked, accuracy of TFLite files.\n\n"
    "A MODEL is exported first; without an argument the shipped CIFAR-10 model is.",
)
