"""Writes the files that `cct-export doctor` runs on every engine: `python docs/write_probe.py`.

A CCT with every kind of step and few weights; the sidecar has its Keras logits.
"""

from pathlib import Path

import keras

import cct_export
from cct_export.bench.doctor import PROBES
from cct_export.model.cct import CCT
from cct_export.specs import ModelSpec

SPEC = ModelSpec(
    name="probe", image_size=8, filters=(4,), layers=1, heads=1, head_dim=4, mlp_units=(4,),
    classes=2, labels=("no", "yes"),
)  # fmt: skip


def main() -> None:
    """Writes both files and their sidecars."""
    keras.utils.set_random_seed(0)
    model = CCT(SPEC)
    cct_export.export_tflite(model, output=Path(PROBES["litert"]).name)
    cct_export.export_onnx(model, output=Path(PROBES["onnxruntime"]).name)
    for probe in set(PROBES.values()):
        for name in (probe.name, f"{probe.name}.json"):
            Path(name).replace(probe.with_name(name))


if __name__ == "__main__":
    main()
