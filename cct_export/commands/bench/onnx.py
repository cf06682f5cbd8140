"""``cct-bench onnx``."""

from cct_export.commands import measuring

command = measuring.command(
    "onnx",
    "Measure latency, memory and, if asked, accuracy of ONNX files.\n\n"
    "A MODEL is exported first; without an argument the shipped CIFAR-10 model is.",
)
