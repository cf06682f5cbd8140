"""The virtual environments that peers run in, one for each, with exact versions.

They lie in the user's cache and are reused while the versions are the same.
"""

import hashlib
import logging
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from cct_export.errors import NotAvailable
from cct_export.files import cache_folder

log = logging.getLogger("benchmarks")
# PyTorch is large.
PIP_LIMIT_S = 1800
READY = "ready"


@dataclass(frozen=True)
class Peer:
    """What a virtual environment holds.

    Attributes:
        name: what ``--engines`` calls it.
        pins: packages as ``name==version``, installed with what they need.
        alone: packages installed without what they ask for.
    """

    name: str
    pins: tuple[str, ...]
    alone: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where the environment lies; other versions, or another Python, lie elsewhere."""
        content = repr((self.pins, self.alone, sys.version_info[:2]))
        digest = hashlib.sha256(content.encode()).hexdigest()[:12]
        return cache_folder() / "peers" / f"{self.name}-{digest}"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"


PEERS = {
    peer.name: peer
    for peer in (
        Peer("openvino", ("openvino==2026.4.1", "nncf==3.4.0", "onnx==1.23.2", "numpy==2.4.6")),
        Peer("mnn", ("MNN==3.6.1", "numpy==2.4.6")),
        # The wheel of pnnx asks for PyTorch; its converter of ONNX files does without.
        Peer("ncnn", ("ncnn==1.0.20261020", "numpy==2.4.6"), ("pnnx==20261020",)),
        Peer(
            "executorch",
            ("executorch==1.4.1", "torch==2.13.0", "torchao==0.18.0", "torchvision==0.28.0",
             "onnx2torch==1.5.15", "onnx==1.23.2", "numpy==2.4.6"),
        ),
    )
}  # fmt: skip


def python_of(peer: Peer) -> Path:
    """Returns the interpreter of a peer's environment, which is made where there is none.

    Raises:
        NotAvailable: it cannot be made; the message is one line.
    """
    ready = peer.folder / READY
    if not ready.is_file():
        log.info("installing %s", " ".join((*peer.pins, *peer.alone)))
        # --clear: what an interrupted installation left is made anew.
        _call(peer, sys.executable, "-m", "venv", "--clear", str(peer.folder))
        _install(peer, *peer.pins)
        if peer.alone:
            _install(peer, "--no-deps", *peer.alone)
        ready.touch()
    return peer.python


def _install(peer: Peer, *arguments: str) -> None:
    pip = (str(peer.python), "-m", "pip", "--disable-pip-version-check", "--no-input", "install")
    # Not wheels alone: something that ExecuTorch needs is published as source in Python.
    _call(peer, *pip, "--quiet", "--prefer-binary", *arguments)


def _call(peer: Peer, *command: str) -> None:
    """Runs a command; raises ``NotAvailable`` with the line of its messages that tells why."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_LIMIT_S)
    except subprocess.TimeoutExpired:
        reason = f"it took over {PIP_LIMIT_S} s"
        raise NotAvailable(f"{peer.name} cannot be installed: {reason}") from None
    if done.returncode:
        lines = (
            done.stderr.strip().splitlines() or done.stdout.strip().splitlines() or ["no reason"]
        )
        errors = [line for line in lines if line.startswith("ERROR")]
        raise NotAvailable(f"{peer.name} cannot be installed: {(errors or lines)[-1]}")
