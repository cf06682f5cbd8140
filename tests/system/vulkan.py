"""Mesa's software Vulkan (lavapipe) in a folder of its own: nothing on this machine is changed.

apt-get, with a private configuration, downloads the packages, and dpkg unpacks them. The stable
release may have a Mesa that LiteRT refuses, so the archive's backports come first.
"""

import re
import shutil
import subprocess
from pathlib import Path

APT_S = 240
PACKAGES = ("mesa-vulkan-drivers", "libvulkan1")
SETTINGS = Path("/etc/apt")
NOWHERE = "/nowhere"


class Unavailable(Exception):
    """Lavapipe cannot be had here; the message says why."""


def environment(folder):
    """Returns the variables with which a child process finds lavapipe, fetched into ``folder``.

    Raises:
        Unavailable: no Debian, no network, no such package.
    """
    root = folder / "root"
    for package in _downloaded(folder):
        _run("dpkg", "-x", package, root)
    loaders = sorted(root.glob("usr/lib/*/libvulkan.so.1"))
    drivers = sorted(root.glob("usr/share/vulkan/icd.d/lvp_icd*.json"))
    if not (loaders and drivers):
        raise Unavailable("the packages hold no Vulkan loader, or no software driver")
    return {
        "LD_LIBRARY_PATH": str(loaders[0].parent),
        "VK_ICD_FILENAMES": str(drivers[0]),
        "MESA_SHADER_CACHE_DIR": str(folder / "shaders"),  # compiling them takes most of the time
    }


def without():
    """Returns the variables with which a child process finds no Vulkan driver."""
    return {"LD_LIBRARY_PATH": NOWHERE, "VK_ICD_FILENAMES": NOWHERE, "VK_DRIVER_FILES": NOWHERE}


def _downloaded(folder):
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise Unavailable("it is fetched through apt-get, and there is none")
    codename = _codename()
    sources, lists, cache = (folder / name for name in ("sources", "lists", "cache"))
    for made in (sources, lists / "partial", cache / "archives" / "partial"):
        made.mkdir(parents=True)
    name, text = backported(codename, SETTINGS)
    (sources / name).write_text(text)
    options = {
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": sources,
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
    _run(*apt, "-t", f"{codename}-backports", *wanted, *PACKAGES)
    return sorted((cache / "archives").glob("*.deb"))


def _codename():
    release = Path("/etc/os-release")
    text = release.read_text() if release.is_file() else ""
    fields = dict(re.findall(r'^(\w+)="?([^"\n]*)', text, re.MULTILINE))
    if fields.get("ID") != "debian" or "VERSION_CODENAME" not in fields:
        raise Unavailable(f"it is fetched from Debian's archive, and this is {fields.get('ID')}")
    return fields["VERSION_CODENAME"]


def backported(codename, settings):
    """Returns name and text of apt sources: the machine's archive, and its backports.

    The archive is where both ``codename`` and its updates are from; that of security has no
    backports, and others' archives have no updates.

    Args:
        codename: of the Debian release.
        settings: the folder of apt's configuration.

    Raises:
        Unavailable: there is no such entry.
    """
    for path in sorted(settings.glob("sources.list.d/*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text()):
            suites = re.search(r"^Suites:(.*)$", stanza, re.MULTILINE)
            off = re.search(r"^Enabled:\s*no", stanza, re.MULTILINE)
            if suites and not off and {codename, f"{codename}-updates"} <= {*suites[1].split()}:
                changed = f"Suites: {codename}-backports"
                both = stanza, stanza.replace(suites[0], changed)
                return "archive.sources", "\n\n".join(part.strip("\n") for part in both) + "\n"
    lists = [settings / "sources.list", *sorted(settings.glob("sources.list.d/*.list"))]
    text = "\n".join(path.read_text() for path in lists if path.is_file())
    lines = re.findall(r"^(deb\s+(?:\[[^]]*\]\s+)?)(\S+)\s+(\S+)\s+(.*)$", text, re.MULTILINE)
    for start, address, suite, rest in lines:
        same = {other for _, where, other, _ in lines if where == address}
        if suite == codename and f"{codename}-updates" in same:
            suites = (codename, f"{codename}-updates", f"{codename}-backports")
            made = (f"{start}{address} {one} {rest}\n" for one in suites)
            return "archive.list", "".join(made)
    raise Unavailable(f"apt knows no archive of {codename} and {codename}-updates")


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
