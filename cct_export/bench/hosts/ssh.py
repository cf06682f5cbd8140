"""A machine behind ssh that runs workers, such as a Raspberry Pi."""

import gzip
import io
import tarfile
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from cct_export import data as sources
from cct_export.bench import schedule
from cct_export.bench.hosts.ssh_connection import Connection, digest_of
from cct_export.bench.protocol import WORKER
from cct_export.data.dataset import ImageShape
from cct_export.errors import InvalidRequest, NotAvailable
from cct_export.files import check_file, sha256
from cct_export.records import BenchResult, MachineInfo, sidecar
from cct_export.runtimes import ENGINES
from cct_export.specs import BenchJob, BenchPlan, BenchSpec
from cct_export.specs.progress import StatusProgress, no_progress
from cct_export.workers import PROGRAM, Channel, package_root

# Everything on the machine is below this folder; a login shell may print a greeting before it.
_ROOT = """
root="${XDG_CACHE_HOME:-$HOME/.cache}/cct-export"
mkdir -p "$root" || exit 1
if [ -x "$root/venv/bin/python" ]; then ready=yes; else ready=no; fi
printf '\\ncct-export:%s:%s\\n' "$ready" "$root"
"""
_UNPACK = """
cd "$1" || exit 1
[ -d "$2" ] && exit 0
# Of several commands at a time each unpacks for itself, and the first names the folder.
new=$(mktemp -d "$2.XXXXXX") || exit 1
tar -xzf "$2.tar.gz" -C "$new" || { rm -rf "$new"; exit 1; }
mv -T "$new" "$2" 2>/dev/null || { rm -rf "$new"; [ -d "$2" ]; }
"""
# The shell stays, so that it can tell by which signal an engine was killed. An empty line ends
# what a login shell may have printed.
_WORK = """
cd "$1" || exit 1
echo
OPENBLAS_NUM_THREADS=1 "$1/venv/bin/python" -P -c "$2" "$3" "$4"
exit $?
"""


class SSHHost:
    """A machine behind ssh. See ``Device`` and ``Host``.

    Args:
        connection: to the machine; need not be open yet.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.name = connection.name
        self._progress: StatusProgress = no_progress

    @classmethod
    def at(cls, address: str) -> "SSHHost":
        """Returns the machine ``[USER@]HOST[:PORT]``; nothing connects yet.

        Raises:
            InvalidRequest: the address is not of that form.
        """
        return cls(Connection(address))

    def choose_delegate(self, runtime: str, name: str) -> str:
        """Returns a delegate as its engine names it; see ``Device``."""
        return ENGINES[runtime].choose_delegate(name)

    def check(self, specs: Sequence[BenchSpec], plan: BenchPlan) -> None:
        """Refuses Keras, which is for larger machines, and ncnn; see ``Device``."""
        for other, what in (("keras", "Keras models"), ("ncnn", "those of ncnn")):
            if any(spec.runtime == other for spec in specs):
                raise InvalidRequest(f"{self.name} measures .tflite and .onnx files, not {what}")

    def measure(
        self, jobs: Sequence[BenchJob], plan: BenchPlan, progress: StatusProgress
    ) -> list[BenchResult]:
        """Measures jobs; see ``Device``.

        Raises:
            NotAvailable: the machine cannot be reached, or was not set up.
        """
        self._progress = progress
        return schedule.measure(jobs, plan, self, progress)

    @cached_property
    def _state(self) -> tuple[bool, str]:
        """Whether the machine was set up, and the folder that everything is below."""
        last = self.connection.run(_ROOT).strip().rpartition("\n")[2]
        mark, ready, root = [*last.split(":", 2), "", ""][:3]
        if mark != "cct-export":
            raise NotAvailable(f"{self.name} has no POSIX shell: it printed {last[:80]!r}")
        return ready == "yes", root

    @property
    def root(self) -> str:
        """The folder on the machine that everything is below."""
        return self._state[1]

    @cached_property
    def _code(self) -> str:
        """The folder on the machine with the same version of this package as here."""
        ready, root = self._state
        if not ready:
            raise NotAvailable(
                f"{self.name} cannot measure yet: `cct-bench device setup {self.name}` puts an "
                "engine there"
            )
        archive = package_archive()
        name = digest_of(archive)[:16]
        with tempfile.TemporaryDirectory() as folder:
            packed = Path(folder) / f"{name}.tar.gz"
            packed.write_bytes(archive)
            self.connection.send(packed, f"{root}/code", sha256(packed), self._progress)
        self.connection.run(_UNPACK, f"{root}/code", name)
        return f"{root}/code/{name}"

    def start(self, subject: str) -> Channel:
        """Starts a worker; see ``Host``."""
        return self.connection.channel(subject, _WORK, self.root, PROGRAM, self._code, WORKER)

    def copy_artifact(self, path: Path) -> str:
        """Sends an artifact and its sidecar; see ``Host``.

        Raises:
            InvalidRequest: there is no such file.
        """
        check_file(path)
        files = [path, *filter(Path.is_file, [sidecar.path_of(path)])]
        folder = f"{self.root}/artifacts/{digest_of(*(file.read_bytes() for file in files))[:32]}"
        for file in reversed(files):
            self.connection.send(file, folder, sha256(file), self._progress)
        return f"{folder}/{path.name}"

    def copy_test_images(self, data: str, shape: ImageShape) -> str:
        """Sends the test images of a dataset; see ``Host``."""
        dataset = sources.read(data, shape)
        count = len(dataset.test.labels)
        arrays: dict[str, np.ndarray] = {
            "x_test": dataset.test.images(range(count)),
            "y_test": np.asarray(dataset.test.labels),
            "classes": np.asarray(dataset.classes),
        }
        # The format needs training images, which nothing on the machine reads.
        arrays |= {"x_train": arrays["x_test"][:1], "y_train": arrays["y_test"][:1]}
        digest = digest_of(*(array.tobytes() for array in arrays.values()))[:32]
        with tempfile.TemporaryDirectory() as folder:
            packed = Path(folder) / "test.npz"
            np.savez(packed, **arrays)  # type: ignore[arg-type]
            remote_folder = f"{self.root}/data/{digest}"
            return self.connection.send(packed, remote_folder, sha256(packed), self._progress)

    def describe(self) -> MachineInfo:
        """Returns ``machine.describe`` of the machine; see ``Host``."""
        with self.start(self.name) as channel:
            return channel.ask("machine", MachineInfo)

    def close(self) -> None:
        """Ends the connection."""
        self.connection.close()


def package_archive() -> bytes:
    """Returns the modules of this package as a ``.tar.gz``; of the same ones the same bytes."""
    root = package_root()
    stream = io.BytesIO()
    with (
        # Without mtime its header would hold the time.
        gzip.GzipFile(fileobj=stream, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for path in sorted((root / "cct_export").rglob("*.py")):
            content = path.read_bytes()
            member = tarfile.TarInfo(str(path.relative_to(root)))
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()
