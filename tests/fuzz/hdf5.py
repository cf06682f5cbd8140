"""Mutation of HDF5 files: links, attributes, shapes and types through h5py, and plain bytes."""

import io

import numpy as np

from fuzz import plain, values

Random = np.random.Generator
_MARKS = (b"\x89HDF", b"OHDR", b"TREE", b"SNOD", b"HEAP", b"GCOL", b"FRHP", b"BTHD", b"OCHK")
_MAX_READ = 2**24


def mutate(content: bytes, random: Random) -> bytes:
    """Changes an entry of the file, or bytes close to one of the format's own structures."""
    if random.random() < 0.5:
        return _near_mark(content, random)
    try:
        return _entry(content, random)
    except Exception:  # damaged by an earlier mutation
        return plain.mutate(content, random)


def _near_mark(content: bytes, random: Random) -> bytes:
    starts = [at for mark in _MARKS for at in _occurrences(content, mark) if at < len(content) - 8]
    if not starts:
        return plain.mutate(content, random)
    start = int(random.choice(starts))
    end = min(len(content), start + 160)
    return content[:start] + plain.mutate(content[start:end], random) + content[end:]


def _occurrences(content: bytes, mark: bytes) -> list[int]:
    found, start = [], content.find(mark)
    while start >= 0 and len(found) < 200:
        found.append(start)
        start = content.find(mark, start + 1)
    return found


def _entry(content: bytes, random: Random) -> bytes:
    import h5py

    stream = io.BytesIO(content)
    with h5py.File(stream, "a") as file:
        names: list[str] = []
        file.visit(names.append)
        name = names[random.integers(len(names))]
        kind = random.integers(7)
        if kind == 0:
            del file[name]
        elif kind == 1:
            file.move(name, f"{name}x")
        elif kind == 2:
            file.attrs[str(random.choice(["keras_version", "vars", "x"]))] = values.number(random)
        elif kind == 3:
            del file[name]
            file[name] = h5py.ExternalLink("/etc/passwd", "/x")
        elif kind == 4:
            del file[name]
            file[name] = h5py.SoftLink("/")
        elif kind == 5:
            file[f"{name}/x" if isinstance(file[name], h5py.Group) else "x"] = np.arange(3)
        else:
            _dataset(file, random)
    return stream.getvalue()


def _dataset(file: "object", random: Random) -> None:
    """Replaces a dataset by one of another shape, type or content."""
    import h5py

    datasets: list[str] = []

    def collect(name: str, entry: object) -> None:
        # An earlier mutation may have declared more than memory holds.
        if isinstance(entry, h5py.Dataset) and entry.nbytes <= _MAX_READ:
            datasets.append(name)

    file.visititems(collect)  # type: ignore[attr-defined]
    name = datasets[random.integers(len(datasets))]
    array = file[name][()]  # type: ignore[index]
    del file[name]  # type: ignore[attr-defined]
    kind = random.integers(6)
    if kind == 0:
        with np.errstate(over="ignore"):
            array = np.full_like(array, values.number(random))
    elif kind == 1:
        array = np.asarray(array).reshape(-1)
    elif kind == 2:
        array = np.asarray(array)[..., :0]
    elif kind == 3:
        array = np.asarray(array).astype(str(random.choice(["f8", "i4", "c16", "f2"])))
    elif kind == 4:
        array = values.text(random).replace("\x00", "")
    else:
        # Declares 16 GiB, of which nothing is stored.
        file.create_dataset(  # type: ignore[attr-defined]
            name, shape=(2**16, 2**16), dtype="f4", chunks=(64, 64)
        )
        return
    file[name] = array  # type: ignore[index]
