"""Unpacks Debian packages into a folder, without installing anything on this machine.

apt-get downloads them with a private configuration, and dpkg unpacks them.
"""

import re
import shutil
import subprocess
from pathlib import Path

TIMEOUT_S = 240
SETTINGS = Path("/etc/apt")


class Unavailable(Exception):
    """The packages cannot be downloaded or used here; the message says why."""


def unpack(folder, *packages, backports=False, architecture=None):
    """Downloads packages with their dependencies, and unpacks them.

    Args:
        folder: a new folder.
        packages: names of binary packages.
        backports: prefer the packages of the release's backports.
        architecture: Debian's name of another architecture than this machine's. Then all
            dependencies are unpacked, otherwise those that are not installed on this machine.

    Returns:
        The folder that corresponds to the root of the file system.

    Raises:
        Unavailable: no Debian, no network, no such package.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise Unavailable("downloading it needs apt-get and dpkg")
    codename = _codename()
    apt = _configured(folder, codename, architecture)
    run(*apt, "update", "--error-on=any")
    release = ["-t", f"{codename}-backports"] if backports else []
    # --reinstall: otherwise apt-get skips packages that are installed.
    install = ["--no-install-recommends", "--reinstall", "--download-only", "-y", "install"]
    run(*apt, *release, *install, *packages)
    root = folder / "root"
    for package in sorted((folder / "cache" / "archives").glob("*.deb")):
        run("dpkg", "-x", package, root)
    return root


def unpack_alone(folder, *packages, release):
    """Downloads packages of any release without their dependencies, and unpacks them.

    Args:
        folder: a new folder.
        packages: names of binary packages.
        release: codename of a Debian release.

    Returns:
        The folder that corresponds to the root of the file system.

    Raises:
        Unavailable: no Debian, no network, no such package.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise Unavailable("downloading it needs apt-get and dpkg")
    apt = _configured(folder, _codename(), None, release)
    run(*apt, "update", "--error-on=any")
    archives = folder / "cache" / "archives"
    run(*apt, "download", *(f"{package}/{release}" for package in packages), folder=archives)
    for package in sorted(archives.glob("*.deb")):
        run("dpkg", "-x", package, folder / "root")
    return folder / "root"


def _configured(folder, codename, architecture, release=None):
    """Returns an ``apt-get`` command that has all its state in ``folder``."""
    sources, lists, cache = (folder / name for name in ("sources", "lists", "cache"))
    for subfolder in (sources, lists / "partial", cache / "archives" / "partial"):
        subfolder.mkdir(parents=True)
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
        "APT::Sandbox::User": "root",  # another user could not write here
        "Debug::NoLocking": "true",  # the locks are the machine's
    }
    if architecture is not None:
        installed = folder / "installed"
        installed.touch()
        # The machine's entry may be limited to the machine's architecture.
        (sources / name).write_text(re.sub(r"(?m)^Architectures:.*\n", "", text))
        options |= {
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "Dir::State::status": installed,  # an empty list
        }
    return ["apt-get", "-q", *(f"-o{key}={value}" for key, value in options.items())]


def _codename():
    release = Path("/etc/os-release")
    text = release.read_text() if release.is_file() else ""
    fields = dict(re.findall(r'^(\w+)="?([^"\n]*)', text, re.MULTILINE))
    if fields.get("ID") != "debian" or "VERSION_CODENAME" not in fields:
        raise Unavailable(f"downloading it needs Debian, and this is {fields.get('ID')}")
    return fields["VERSION_CODENAME"]


def archive(codename, settings):
    """Returns name and text of a file of apt sources: the machine's archive and its backports.

    The archive is the entry with both ``codename`` and its updates: the security archive has no
    backports, and third parties' archives have no updates.

    Args:
        codename: of the Debian release.
        settings: folder of apt's configuration.

    Raises:
        Unavailable: there is no such entry.
    """
    for path in sorted(settings.glob("sources.list.d/*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text()):
            suites = re.search(r"^Suites:(.*)$", stanza, re.MULTILINE)
            disabled = re.search(r"^Enabled:\s*no", stanza, re.MULTILINE)
            if (
                suites
                and not disabled
                and {codename, f"{codename}-updates"} <= {*suites[1].split()}
            ):
                backports = stanza.replace(suites[0], f"Suites: {codename}-backports")
                stanzas = (text.strip("\n") for text in (stanza, backports))
                return "archive.sources", "\n\n".join(stanzas) + "\n"
    lists = [settings / "sources.list", *sorted(settings.glob("sources.list.d/*.list"))]
    text = "\n".join(path.read_text() for path in lists if path.is_file())
    lines = re.findall(r"^(deb\s+(?:\[[^]]*\]\s+)?)(\S+)\s+(\S+)\s+(.*)$", text, re.MULTILINE)
    for start, address, suite, rest in lines:
        siblings = {other for _, url, other, _ in lines if url == address}
        if suite == codename and f"{codename}-updates" in siblings:
            suites = (codename, f"{codename}-updates", f"{codename}-backports")
            entries = (f"{start}{address} {suite} {rest}\n" for suite in suites)
            return "archive.list", "".join(entries)
    raise Unavailable(f"apt has no archive of {codename} and {codename}-updates")


def run(*command, folder=None):
    """Runs a command in a folder; raises ``Unavailable`` if it fails."""
    try:
        process = subprocess.run(
            [str(part) for part in command],
            cwd=folder, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{command[0]} took over {TIMEOUT_S} s") from None
    if process.returncode:
        message = " ".join(process.stderr.split())[-300:]
        raise Unavailable(f"{command[0]} failed: {message}")
