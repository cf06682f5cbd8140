"""Short names for the steps of a plan: those of the layers, where one step is all of a layer."""

from collections import Counter
from dataclasses import replace

from cct_export.graph.lowering.builder import COUNTER
from cct_export.graph.plan import Plan

OUTPUT = "logits"


def named(plan: Plan) -> Plan:
    """Returns the plan with a step that is all there is of a layer named after that layer.

    A step whose name is taken gets a number. The last one is called as the output of every file.
    """
    bases = [step.output.partition(COUNTER)[0] for step in plan.steps]
    sizes = Counter(prefix for base in bases for prefix in _prefixes(base))
    names = {Plan.INPUT: Plan.INPUT, plan.output: OUTPUT}
    for step, base in zip(plan.steps, bases, strict=True):
        short = next(prefix for prefix in _prefixes(base) if sizes[prefix] == 1 or prefix == base)
        name, count = short, 0
        while name in names.values():
            count += 1
            name = f"{short}_{count}"
        names.setdefault(step.output, name)
    steps = (
        replace(step, output=names[step.output], inputs=tuple(names[name] for name in step.inputs))
        for step in plan.steps
    )
    return Plan(plan.image_shape, tuple(steps))


def _prefixes(name: str) -> list[str]:
    """Returns the names of the layers that a step is part of, the outermost first, and its own."""
    parts = name.split("/")
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]
