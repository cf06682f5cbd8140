"""An OpenSSH server on this machine, with temporary keys and configuration."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path

import psutil

APT_S = 240
SSHD = "/usr/sbin/sshd"


class Unavailable(Exception):
    """There can be no server here; the message says why."""


def install():
    """Installs OpenSSH's server through apt, without starting it.

    Raises:
        Unavailable: it is missing and may not be installed.
    """
    if Path(SSHD).exists() and shutil.which("ssh"):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Unavailable("there is no sshd, and apt-get may not install it")
    # With a runlevel in the environment, Debian's scripts start no service.
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    install = ["install", "-y", "--no-install-recommends", "openssh-server", "openssh-client"]
    for arguments in (["update"], install):
        try:
            done = subprocess.run(
                ["apt-get", *arguments],
                env=environment, capture_output=True, text=True, timeout=APT_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Unavailable(f"apt-get {arguments[0]} took over {APT_S} s") from None
        if done.returncode:
            raise Unavailable(f"apt-get {arguments[0]} failed: {done.stderr.strip()[-300:]}")


class Server:
    """A running server.

    Args:
        folder: for keys and configurations.

    Attributes:
        remote: the folder that stands for the disk of the remote machine.
        home: home folder of the user on it.
        cache: where programs on it keep files.
    """

    def __init__(self, folder):
        self.folder, self.remote = folder, folder / "remote"
        self.home = self.remote / "home"
        self.home.mkdir(parents=True)
        self.cache = self.remote / "cache"
        self.known_hosts = folder / "known_hosts"
        self.port = _free_port()
        for name in ("host", "key", "stranger"):
            self._key(name)
        (folder / "authorized").write_bytes((folder / "key.pub").read_bytes())
        self.set_known_key()
        self._configure()
        self._process = None
        self.start()

    def _key(self, name):
        path = self.folder / name
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True, timeout=60
        )

    def set_known_key(self, key="host"):
        """Writes the key of the server that the client knows."""
        public = " ".join((self.folder / f"{key}.pub").read_text().split()[:2])
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public}\n")

    def _configure(self):
        pip = {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
        environment = {"HOME": self.home, "XDG_CACHE_HOME": self.cache, **pip}
        assignments = " ".join(f'"{key}={value}"' for key, value in environment.items())
        (self.folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.folder}/host\n"
            f"AuthorizedKeysFile {self.folder}/authorized\nStrictModes no\nUsePAM no\n"
            f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nPidFile none\n"
            f"MaxStartups 100\nSetEnv {assignments}\n"
        )
        for name, key in (("config", "key"), ("strange", "stranger")):
            (self.folder / name).write_text(
                f"Host pi\n HostName 127.0.0.1\n Port {self.port}\n"
                f"Host behind\n HostName 127.0.0.1\n Port {self.port}\n"
                f" ProxyCommand ssh -F {self.folder}/config -W %h:%p pi\n"
                f"Host *\n User {_user()}\n IdentityFile {self.folder}/{key}\n"
                f" IdentitiesOnly yes\n UserKnownHostsFile {self.known_hosts}\n"
                " GlobalKnownHostsFile /dev/null\n"
            )

    def client(self, config="config"):
        """Returns the variables with which a command connects."""
        return {"CCT_EXPORT_SSH": f"ssh -F {self.folder}/{config}"}

    def start(self):
        """Starts the server, and waits until it listens."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        with (self.folder / "sshd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", self.folder / "sshd_config"], stderr=log
            )
        limit = time.monotonic() + 20
        while time.monotonic() < limit:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        raise Unavailable(f"sshd: {(self.folder / 'sshd.log').read_text()[-300:]}")

    def drop(self):
        """Cuts every connection, as a network that fails."""
        for child in self._children("sshd"):
            child.kill()

    def workers(self, seconds=0.0):
        """Returns the Python processes of the server that have worked for so long."""
        return [child for child in self._children("python") if _cpu_s(child) >= seconds]

    def _children(self, name):
        """Returns the server's processes of that name; one that ends meanwhile is left out."""
        children = []
        for child in psutil.Process(self._process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.name().startswith(name):
                    children.append(child)
        return children

    def stop(self):
        """Ends the server and its connections."""
        self.drop()
        self._process.terminate()
        self._process.wait(timeout=20)


def _cpu_s(process):
    try:
        return process.cpu_times().user
    except psutil.NoSuchProcess:
        return -1.0


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _user():
    return pwd.getpwuid(os.getuid()).pw_name
