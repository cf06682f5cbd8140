"""A fake Android phone: the protocol of adbd, on a loopback port.

The protocol is that of adb's own documents (protocol.txt, SYNC.TXT, SERVICES.TXT): messages of a
header of 24 bytes, streams in them, the shell protocol and file sync in those. Its shell is the
sh of this machine, where ``/data/local/tmp`` is a folder of the test and ``getprop`` and
``dumpsys`` are scripts.
"""

import contextlib
import os
import queue
import socket
import struct
import subprocess
import threading
from pathlib import Path

TEMPORARY = "/data/local/tmp"
VERSION, MOST = 0x01000001, 256 * 1024
BANNER = "device::ro.product.name=fake;ro.product.model=Fake;features={}"
TOKEN, SIGNATURE, PUBLIC_KEY = 1, 2, 3
STDOUT, EXIT = 1, 3
HEADER = struct.Struct("<4s5I")
CHUNK = 64 * 1024

PROGRAMS = {
    "getprop": """
echo '[ro.soc.manufacturer]: [Fake]'
echo '[ro.soc.model]: [S1000]'
echo '[ro.build.version.release]: [14]'
echo '[ro.build.version.sdk]: [34]'
echo '[ro.product.manufacturer]: [Nobody]'
echo '[ro.product.model]: [Phone]'
""",
    "dumpsys": """
case $1 in
thermalservice) echo 'IsStatusOverride: false'; echo "Thermal Status: ${THERMAL:-0}"
    echo 'Temperature{mValue=41.5, mType=0, mName=CPU0, mStatus=0}' ;;
battery) echo 'Current Battery Service state:'; echo "  status: ${BATTERY_STATUS:-3}"
    echo "  level: ${BATTERY:-80}"; echo '  temperature: 275' ;;
esac
""",
}


class Device:
    """A phone on a loopback port.

    Args:
        folder: of the test.

    Attributes:
        folder: what ``/data/local/tmp`` is.
        trusts: whether it lets this machine in.
        answers: whether it answers at all.
        features: what it announces.
        file_limit: bytes that fit into a file; None for any number.
        environment: variables of its programs.
        commands: that its shell has run.
    """

    def __init__(self, folder: Path):
        self.folder = folder / "tmp"
        self.folder.mkdir(parents=True)
        self.trusts = self.answers = True
        self.features = "shell_v2,cmd"
        self.file_limit = None
        self.environment = {}
        self.commands = []
        self._programs = folder / "bin"
        self._programs.mkdir()
        for name, text in PROGRAMS.items():
            (self._programs / name).write_text(f"#!/bin/sh\n{text}")
            (self._programs / name).chmod(0o755)
        self._connections = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.serial = f"127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def vanish(self):
        """Disconnects, as if somebody pulled the cable."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connection in self._connections:
            connection.cut()

    def local(self, path):
        """Returns where a path of the phone is on this machine."""
        return path.replace(TEMPORARY, str(self.folder))

    def start(self, command):
        """Starts a command of its shell."""
        self.commands.append(command)
        path = f"{self._programs}:{os.environ['PATH']}"
        return subprocess.Popen(
            ["sh", "-c", self.local(command)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=os.environ | {"PATH": path} | self.environment,
        )  # fmt: skip

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection = _Connection(self, self._listening.accept()[0])
                self._connections.append(connection)
                threading.Thread(target=connection.serve, daemon=True).start()


class _Connection:
    """The connection of an adb server."""

    def __init__(self, device, sock):
        self.device, self._socket = device, sock
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._streams = {}
        self._lock = threading.Lock()

    def cut(self):
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def send(self, command, first, second, data=b""):
        magic = struct.unpack("<I", command)[0] ^ 0xFFFFFFFF
        header = HEADER.pack(command, first, second, len(data), sum(data), magic)
        with self._lock, contextlib.suppress(OSError):
            self._socket.sendall(header + data)

    def serve(self):
        with contextlib.suppress(OSError, EOFError):
            while True:
                command, first, second, size, _, _ = HEADER.unpack(self._exactly(HEADER.size))
                data = self._exactly(size)
                if self.device.answers:
                    getattr(self, f"_{command.decode().lower()}")(first, second, data)
        for stream in list(self._streams.values()):
            stream.inbox.put(b"")

    def _exactly(self, size):
        content = bytearray()
        while len(content) < size:
            part = self._socket.recv(size - len(content))
            if not part:
                raise EOFError
            content += part
        return bytes(content)

    def _cnxn(self, version, most, data):
        if self.device.trusts:
            banner = BANNER.format(self.device.features)
            self.send(b"CNXN", VERSION, MOST, banner.encode())
        else:
            self.send(b"AUTH", TOKEN, 0, bytes(20))

    def _auth(self, kind, _, data):
        if kind == SIGNATURE:
            self.send(b"AUTH", TOKEN, 0, bytes(20))
        # A public key is shown to the owner, who has not confirmed it.

    def _open(self, remote, _, data):
        local = len(self._streams) + 1
        stream = self._streams[local] = _Stream(self, local, remote)
        self.send(b"OKAY", local, remote)
        service, _, rest = data.rstrip(b"\0").decode().partition(":")
        work = {"sync": _sync, "shell": _old_shell}.get(service, _shell)
        threading.Thread(target=work, args=(stream, rest, self.device), daemon=True).start()

    def _okay(self, remote, local, data):
        self._streams[local].acknowledged.release()

    def _wrte(self, remote, local, data):
        self._streams[local].inbox.put(data)
        self.send(b"OKAY", local, remote)

    def _clse(self, remote, local, data):
        if local in self._streams:
            self._streams[local].inbox.put(b"")
            self._streams[local].acknowledged.release()


class _Stream:
    """One of several in a connection; a write waits until the one before it has arrived."""

    def __init__(self, connection, local, remote):
        self._connection, self._local, self._remote = connection, local, remote
        self.inbox = queue.Queue()
        self.acknowledged = threading.Semaphore(1)
        self._rest = b""

    def write(self, data):
        for start in range(0, len(data), CHUNK):
            self.acknowledged.acquire()
            part = data[start : start + CHUNK]
            self._connection.send(b"WRTE", self._local, self._remote, part)

    def read(self, size):
        while len(self._rest) < size:
            part = self.inbox.get()
            if not part:
                raise EOFError
            self._rest += part
        content, self._rest = self._rest[:size], self._rest[size:]
        return content

    def close(self):
        self.acknowledged.acquire()
        self._connection.send(b"CLSE", self._local, self._remote)


def _shell(stream, command, device):
    """The shell protocol: packets of a kind, a length and as many bytes."""
    process = device.start(command)
    for part in iter(lambda: process.stdout.read1(CHUNK), b""):
        stream.write(struct.pack("<BI", STDOUT, len(part)) + part)
    stream.write(struct.pack("<BIB", EXIT, 1, process.wait() & 0xFF))
    stream.close()


def _old_shell(stream, command, device):
    """The shell of phones before Android 7: bytes, and no exit code."""
    process = device.start(command)
    for part in iter(lambda: process.stdout.read1(CHUNK), b""):
        stream.write(part)
    process.wait()
    stream.close()


def _sync(stream, _, device):
    """File sync: requests of a name, a length and a path."""
    with contextlib.suppress(EOFError):
        while True:
            kind, size = struct.unpack("<4sI", stream.read(8))
            if kind == b"QUIT":
                break
            path = stream.read(size).decode()
            {b"STAT": _stat, b"SEND": _send, b"RECV": _receive}[kind](stream, path, device)
    stream.close()


def _stat(stream, path, device):
    try:
        status = Path(device.local(path)).stat()
        fields = status.st_mode, status.st_size, int(status.st_mtime)
    except OSError:
        fields = 0, 0, 0
    stream.write(struct.pack("<4sIII", b"STAT", *fields))


def _send(stream, path_and_mode, device):
    path, _, mode = path_and_mode.rpartition(",")
    content = bytearray()
    while True:
        kind, size = struct.unpack("<4sI", stream.read(8))
        if kind == b"DONE":
            break
        content += stream.read(size)
    if device.file_limit is not None and len(content) > device.file_limit:
        _fail(stream, "No space left on device")
        return
    file = Path(device.local(path))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    file.chmod(int(mode) & 0o777)
    stream.write(struct.pack("<4sI", b"OKAY", 0))


def _receive(stream, path, device):
    try:
        content = Path(device.local(path)).read_bytes()
    except OSError:
        _fail(stream, "No such file or directory")
        return
    for start in range(0, len(content), CHUNK):
        part = content[start : start + CHUNK]
        stream.write(struct.pack("<4sI", b"DATA", len(part)) + part)
    stream.write(struct.pack("<4sI", b"DONE", 0))


def _fail(stream, reason):
    stream.write(struct.pack("<4sI", b"FAIL", len(reason)) + reason.encode())
