"""The file with the weights of a format that has them in a file of their own, as ncnn does."""

from pathlib import Path

_LAYERS, _WEIGHTS = ".ncnn.param", ".ncnn.bin"


def path_of(artifact: Path) -> Path | None:
    """Returns where the weights are, ``m.ncnn.bin`` for ``m.ncnn.param``; None if in the file.

    Those of one that failed parity, ``m.ncnn.param.rejected``, are in ``m.ncnn.bin.rejected``.
    """
    name, layers, ending = artifact.name.rpartition(_LAYERS)
    return artifact.with_name(f"{name}{_WEIGHTS}{ending}") if layers else None


def size_of(artifact: Path) -> int:
    """Returns the bytes of a file and, where they are in another, of its weights."""
    beside = path_of(artifact)
    files = [artifact] if beside is None else [artifact, beside]
    return sum(file.stat().st_size for file in files)
