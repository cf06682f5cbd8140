"""Writes requirements/*.txt, which `make` installs from: `python docs/write_requirements.py`.

Each file has what an extra of pyproject.toml needs, in the versions of constraints.txt, and the
SHA-256 of every wheel that pip may choose on a system of `SYSTEMS`, as the package index states
it. uv (`pip install uv`) resolves and asks the index. Its address is in none of the files, so pip
takes the wheels from the index that it is set to.
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.markers import Marker
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

ROOT = Path(__file__).resolve().parent.parent
# In this order: each file contains the one before it.
EXTRAS = ("all", "dev")
PYTHONS = ((3, 11), (3, 12), (3, 13))
# Platform tags of wheels, and what markers ask for.
SYSTEMS = {
    r"any|manylinux\w+_x86_64": {
        "sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64",
    },
    r"any|manylinux\w+_aarch64": {
        "sys_platform": "linux", "platform_system": "Linux", "platform_machine": "aarch64",
    },
    r"any|macosx_\w+_(arm64|universal2)": {
        "sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64",
    },
}  # fmt: skip
HEAD = "# Written by docs/write_requirements.py from constraints.txt.\n"


def main() -> None:
    """Writes the file of each extra."""
    written: dict[str, str] = {}
    for extra in EXTRAS:
        blocks = {package["name"]: _block(package) for package in _resolve(extra)}
        before = "".join(f"-r {name}.txt\n" for name in EXTRAS[: EXTRAS.index(extra)])
        added = {name: block for name, block in blocks.items() if block and name not in written}
        path = ROOT / "requirements" / f"{extra}.txt"
        path.write_text(HEAD + before + "".join(added.values()))
        written |= added


def _resolve(extra: str) -> list[Mapping[str, Any]]:
    """Returns the packages of pylock.toml (PEP 751) for an extra, the build backend among them."""
    backend = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    done = subprocess.run(
        [
            "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11",
            "--format", "pylock.toml", "--constraint", "constraints.txt",
            "pyproject.toml", "--extra", extra, "-",
        ],
        cwd=ROOT, input="\n".join(backend), capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"error: uv cannot resolve [{extra}]: {done.stderr.strip()}")
    return tomllib.loads(done.stdout)["packages"]


def _block(package: Mapping[str, Any]) -> str:
    """Returns the lines of a package; empty if no system needs it.

    Raises:
        ValueError: a system that needs it has no wheel of it.
    """
    hashes, needed = set(), []
    marker = Marker(package["marker"]) if "marker" in package else None
    for platform, system in SYSTEMS.items():
        for python in PYTHONS:
            version = ".".join(map(str, python))
            environment = {**system, "python_version": version, "python_full_version": version}
            needed.append(marker is None or marker.evaluate(environment))
            if needed[-1]:
                hashes |= _hashes(package, platform, python)
    if not any(needed):
        return ""
    condition = "" if all(needed) else f" ; {marker}"
    lines = (f" \\\n    --hash=sha256:{digest}" for digest in sorted(hashes))
    return f"{package['name']}=={package['version']}{condition}{''.join(lines)}\n"


def _hashes(package: Mapping[str, Any], platform: str, python: tuple[int, int]) -> set[str]:
    """Returns the SHA-256 of the wheels that a Python takes on the systems of a platform tag."""
    hashes = {
        wheel["hashes"]["sha256"]
        for wheel in package.get("wheels", ())
        if _fits(_tags(wheel["url"]), platform, python)
    }
    if not hashes:
        version = ".".join(map(str, python))
        raise ValueError(f"no wheel of {package['name']} for Python {version} on {platform}")
    return hashes


def _tags(url: str) -> Iterable[Tag]:
    return parse_wheel_filename(unquote(urlsplit(url).path.rpartition("/")[2]))[3]


def _fits(tags: Iterable[Tag], platform: str, python: tuple[int, int]) -> bool:
    return any(
        re.fullmatch(platform, tag.platform) and tag in _taken(tag.platform, python) for tag in tags
    )


def _taken(platform: str, python: tuple[int, int]) -> Iterator[Tag]:
    """Yields the tags of wheels for a platform that a Python takes."""
    interpreter = f"cp{python[0]}{python[1]}"
    yield from cpython_tags(python, platforms=[platform])
    yield from compatible_tags(python, interpreter=interpreter, platforms=[platform])


if __name__ == "__main__":
    main()
