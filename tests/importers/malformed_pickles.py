"""A program that writes valid and malformed .pth files, reads them, and prints the outcome as JSON.

``python malformed_pickles.py FOLDER``
"""

import argparse
import io
import json
import os
import pickle
import struct
import sys
import tarfile
import warnings
import zipfile
from pathlib import Path

import torch

from cct_export.errors import CCTExportError
from cct_export.importers import state_dict

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}
TERABYTES = b"\x8a\x06" + struct.pack("<q", 10**12)[:6]


class Payload:
    """Creates the file ``executed`` when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.system, (f"touch {self.folder}/executed",)


def write_valid(folder):
    torch.save(STATE, folder / "plain.pth")
    torch.save(STATE, folder / "before-1.6.pth", _use_new_zipfile_serialization=False)
    wrapped = {"state_dict": {f"module.{key}": value for key, value in STATE.items()}}
    torch.save(wrapped | {"epoch": 3, "args": argparse.Namespace(lr=1)}, folder / "wrapped.pth")
    torch.save({"model": {k: v.half() for k, v in STATE.items()}}, folder / "half.pth")
    brain = {k: v.bfloat16() for k, v in STATE.items()}
    torch.save({f"_orig_mod.module.{k}": v for k, v in brain.items()}, folder / "bfloat16.pth")
    average = {k: v + 1 for k, v in STATE.items()}
    more = {"optimizer": {"state": {0: {"step": torch.ones(1)}}}, "ema": {"x": torch.ones(1)}}
    torch.save({"model_ema": average, "model": STATE} | more, folder / "averaged.pth")
    inner = {"state_dict": STATE, "state_dict_ema": average}
    torch.save({"model": inner, "model_ema": {"state_dict": average}}, folder / "nested.pth")
    torch.save(STATE | {"a.count": torch.ones(2, dtype=torch.int64)}, folder / "whole.pth")


def write_malformed(folder):
    (folder / "payload.pth").write_bytes(pickle.dumps({"state_dict": Payload(folder)}, protocol=2))
    torch.save({"state_dict": Payload(folder)}, folder / "payload-zip.pth")
    torch.save(torch.nn.Linear(2, 2), folder / "module.pth")
    whole = (folder / "plain.pth").read_bytes()
    (folder / "truncated.pth").write_bytes(whole[: len(whole) // 2])
    old = (folder / "before-1.6.pth").read_bytes()
    (folder / "truncated-old.pth").write_bytes(old[:-8])
    (folder / "empty.pth").write_bytes(b"")
    (folder / "text.pth").write_text("hello")
    with tarfile.open(folder / "tar.pth", "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            entry = tarfile.TarInfo(name)
            entry.size = 4
            archive.addfile(entry, io.BytesIO(b"\x80\x02}."))
    torch.jit.script(torch.nn.Linear(2, 2)).save(folder / "script.pth")
    torch.save({"x": torch.zeros(1).expand(10**12)}, folder / "expanded.pth")
    with zipfile.ZipFile(folder / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb:
        with zipfile.ZipFile(folder / "plain.pth") as good:
            for name in good.namelist():
                bomb.writestr(name.replace("plain/", "bomb/", 1), good.read(name))
        bomb.writestr("bomb/data/999", bytes(1 << 28))
    torch.save({"x": torch.zeros(256)}, folder / "short.pth")
    with (
        zipfile.ZipFile(folder / "short.pth") as good,
        zipfile.ZipFile(folder / "terabytes.pth", "w") as lie,
    ):
        for name in good.namelist():
            content = good.read(name).replace(b"M\x00\x01", TERABYTES)
            lie.writestr(name.replace("short/", "terabytes/", 1), content)
    torch.save([1, 2], folder / "list.pth")
    torch.save({"a": 1}, folder / "number.pth")
    torch.save({"a": torch.zeros(3).to_sparse()}, folder / "sparse.pth")
    torch.save({"a": torch.ones(3) * 1j}, folder / "complex.pth")


def outcome(path):
    try:
        arrays, notes = state_dict.read(path)
    except CCTExportError as error:
        return {"refused": str(error)}
    same = all((STATE[name].numpy() == arrays[name]).all() for name in arrays if name in STATE)
    result = {"names": list(arrays), "same": same, "notes": list(notes)}
    return result | {"types": sorted({array.dtype.name for array in arrays.values()})}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    write_valid(folder)
    write_malformed(folder)
    outcomes = {path.stem: outcome(path) for path in sorted(folder.glob("*.pth"))}
    print(json.dumps(outcomes | {"executed": (folder / "executed").exists()}))
