"""Packages of Debian in a folder of their own: nothing on this machine is changed.

apt-get, with a private configuration, downloads them, and dpkg unpacks them.
"""

import re
import shutil
import subprocess
from pathlib import Path

LIMIT_S = 240
SETTINGS = Path("/etc/apt")


class Unavailable(Exception):
    """The packages, or what is made of them, cannot be had here; the message says why."""


def unpack(folder, *packages, backports=False, architecture=None):
    """Downloads packages with what they depend on, and unpacks them.

    Args:
        folder: a folder of its own.
        packages: names of binary packages.
        backports: prefer those of the release's backports.
        architecture: another one than this machine's, as Debian names it. Then everything that the
            packages depend on is unpacked; else what this machine has not got.

    Returns:
        The folder that stands for the root of the system.

    Raises:
        Unavailable: no Debian, no network, no such package.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise Unavailable("it is fetched through apt-get, and there is none")
    codename = _codename()
    apt = _configured(folder, codename, architecture)
    run(*apt, "update", "--error-on=any")
    release = ["-t", f"{codename}-backports"] if backports else []
    # Reinstalled: a package that the machine has would not be downloaded.
    wanted = ["--no-install-recommends", "--reinstall", "--download-only", "-y", "install"]
    run(*apt, *release, *wanted, *packages)
    root = folder / "root"
    for package in sorted((folder / "cache" / "archives").glob("*.deb")):
        run("dpkg", "-x", package, root)
    return root


def unpack_alone(folder, *packages, release):
    """Downloads packages of any release, without what they depend on, and unpacks them.

    Args:
        folder: a folder of its own.
        packages: names of binary packages.
        release: codename of a Debian release.

    Returns:
        The folder that stands for the root of the system.

    Raises:
        Unavailable: no Debian, no network, no such package.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise Unavailable("it is fetched through apt-get, and there is none")
    apt = _configured(folder, _codename(), None, release)
    run(*apt, "update", "--error-on=any")
    archives = folder / "cache" / "archives"
    run(*apt, "download", *(f"{package}/{release}" for package in packages), folder=archives)
    for package in sorted(archives.glob("*.deb")):
        run("dpkg", "-x", package, folder / "root")
    return folder / "root"


def _configured(folder, codename, architecture, release=None):
    """Returns the beginning of a command that has all its state in ``folder``."""
    sources, lists, cache = (folder / name for name in ("sources", "lists", "cache"))
    for made in (sources, lists / "partial", cache / "archives" / "partial"):
        made.mkdir(parents=True)
    name, text = archive(codename, SETTINGS)
    if release is not None:
        text = text.replace(f"{codename}-backports", release)
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
    if architecture is not None:
        installed = folder / "installed"
        installed.touch()
        # A machine's own entry may be for the machine's own architecture only.
        (sources / name).write_text(re.sub(r"(?m)^Architectures:.*\n", "", text))
        options |= {
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "Dir::State::status": installed,  # nothing is
        }
    return ["apt-get", "-q", *(f"-o{key}={value}" for key, value in options.items())]


def _codename():
    release = Path("/etc/os-release")
    text = release.read_text() if release.is_file() else ""
    fields = dict(re.findall(r'^(\w+)="?([^"\n]*)', text, re.MULTILINE))
    if fields.get("ID") != "debian" or "VERSION_CODENAME" not in fields:
        raise Unavailable(f"it is fetched from Debian's archive, and this is {fields.get('ID')}")
    return fields["VERSION_CODENAME"]


def archive(codename, settings):
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


def run(*command, folder=None):
    """Runs a command in a folder; raises ``Unavailable`` where that fails."""
    try:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=folder, capture_output=True, text=True, errors="replace", timeout=LIMIT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{command[0]} took over {LIMIT_S} s") from None
    if done.returncode:
        said = " ".join(done.stderr.split())[-300:]
        raise Unavailable(f"{command[0]} failed: {said}")
