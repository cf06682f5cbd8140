"""One file in one engine, in a process of its own: converts, computes logits, times bursts.

``python -I benchmarks/peer_worker.py ENGINE`` answers questions, a line of JSON each, as
``cct_export.workers.Channel`` asks them. It runs in a peer's environment and needs numpy and that
engine only: nothing of cct-export is in it.
"""

import importlib
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import TextIO

# Set before an engine is imported. One thread, even of a library that knows no such option; no
# engine reports its use; and none installs anything as it runs, as MNN's own scripts try to.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "CI": "true",
    "NNCF_CI": "1",
    "PIP_NO_INDEX": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.defpath)),
}
LONGEST_ERROR = 200
# Of absolute paths, whose folders are this machine's alone.
FOLDERS = re.compile(r"(?<![\w/:])/(?:[^\s/'\",:]+/)+")


class Worker:
    """Answers the questions: each is a public method.

    Args:
        engine: a module of ``peer_engines``.
    """

    def __init__(self, engine: str) -> None:
        self._engine = importlib.import_module(f"peer_engines.{engine}")

    def convert(self, source: str, precision: str, calibration: str, folder: str) -> dict:
        """Makes the engine's file of ours.

        Args:
            source: our file.
            precision: ``float32``, ``bf16``, ``fp16`` or ``int8``.
            calibration: uint8 ``(N, H, W, C)`` in an .npy file.
            folder: where new files go.
        """
        import numpy as np

        start = time.perf_counter()
        images = np.load(calibration).astype(np.float32)
        path = self._engine.convert(Path(source), precision, images, Path(folder))
        size = sum(part.stat().st_size for part in self._engine.parts(path))
        seconds = time.perf_counter() - start
        return {"path": str(path), "size_bytes": size, "seconds": seconds}

    def open(self, path: str, precision: str, images: str) -> None:
        """Opens a file that ``convert`` made, and prepares the image that is timed."""
        import numpy as np

        self._session = self._engine.Session(Path(path), precision)
        self._image = self._session.prepare(np.load(images, mmap_mode="r")[:1].astype(np.float32))

    def logits(self, images: str, output: str) -> None:
        """Writes the logits of all images, ``(N, classes)``, to an .npy file."""
        import numpy as np

        prepare, run = self._session.prepare, self._session.run
        pixels = (image[np.newaxis].astype(np.float32) for image in np.load(images, mmap_mode="r"))
        rows = [np.array(run(prepare(image)), np.float32).reshape(-1) for image in pixels]
        np.save(output, np.stack(rows))

    def burst(self, runs: int, warmup: int) -> dict:
        """Times runs on one image, after some that are not timed."""
        run, image, clock = self._session.run, self._image, time.perf_counter_ns
        for _ in range(warmup):
            run(image)
        times = []
        for _ in range(runs):
            start = clock()
            run(image)
            times.append(clock() - start)
        return {"times_ns": times}


def serve(worker: object, questions: TextIO, replies: TextIO) -> None:
    """Answers until the questions end; whatever an engine raises is an answer too."""
    for line in questions:
        question = json.loads(line)
        try:
            reply = {"answer": getattr(worker, question["method"])(**question["arguments"])}
        except Exception as error:
            reply = {"error": one_line(error), "kind": "EngineFailed"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def one_line(error: Exception) -> str:
    """Returns what an error says; its kind where it says nothing."""
    text = " ".join(str(error).split()) or "no message"
    text = FOLDERS.sub("", text)
    return f"{type(error).__name__}: {text}"[:LONGEST_ERROR]


class _Failing:
    """Stands in for an engine that cannot be imported: every question fails with the reason."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, method: str) -> object:
        raise self._error


def main(engine: str) -> None:
    """Serves on standard input and output; what an engine prints goes to standard error."""
    os.environ.update(ENVIRONMENT)
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # Behind everything else: a module beside this one must not stand in for one of an engine's.
    sys.path.append(str(Path(__file__).parent))
    try:
        worker: object = Worker(engine)
    except Exception as error:
        worker = _Failing(error)
    serve(worker, sys.stdin, replies)


if __name__ == "__main__":
    main(sys.argv[1])
