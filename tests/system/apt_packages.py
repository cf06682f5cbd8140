"""Debian packages unpacked into a folder of their own: nothing on this machine is changed."""

import shutil
import subprocess

APT_S = 240


class Unavailable(Exception):
    """The packages cannot be had here; the message says why."""


def unpacked(folder, *packages):
    """Fetches packages, and those they need, through apt's own configuration.

    Returns:
        The folder that stands for ``/``.

    Raises:
        Unavailable: no apt, no network, no such package.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise Unavailable("it is fetched through apt-get, and there is none")
    lists, cache, root = (folder / name for name in ("lists", "cache", "root"))
    for made in (lists / "partial", cache / "archives" / "partial"):
        made.mkdir(parents=True)
    options = {
        "Dir::State::lists": lists,
        "Dir::Cache": cache,
        "Dir::Cache::archives": cache / "archives",
        "APT::Sandbox::User": "root",  # another could not write here
        "Debug::NoLocking": "true",  # the locks are those of the machine
    }
    apt = ["apt-get", "-q", *(f"-o{key}={value}" for key, value in options.items())]
    _run(*apt, "update", "--error-on=any")
    # Reinstalled: a package that the machine has would not be downloaded.
    wanted = ["--no-install-recommends", "--reinstall", "--download-only", "-y", "install"]
    _run(*apt, *wanted, *packages)
    for package in sorted((cache / "archives").glob("*.deb")):
        _run("dpkg", "-x", package, root)
    return root


def _run(*command):
    try:
        done = subprocess.run(
            [str(part) for part in command],
            capture_output=True, text=True, errors="replace", timeout=APT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{command[0]} took over {APT_S} s") from None
    if done.returncode:
        said = " ".join(done.stderr.split())[-300:]
        raise Unavailable(f"{command[0]} failed: {said}")
