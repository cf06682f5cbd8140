"""The folder of a bundle: its files are rendered from templates and written all or not at all.

Below ``templates/TARGET`` a file whose name ends with ``.j2`` is a Jinja2 template, rendered under
its name without that suffix; every other file is copied as it is. Names of files and folders may
hold variables too.
"""

import hashlib
import re
import shlex
import shutil
import tempfile
from pathlib import Path

from cct_export.bundles import c_source
from cct_export.errors import OutputError
from cct_export.files import (
    TEMPORARY,
    check_writable,
    followed,
    make_folder,
    permissions,
    remove_leftovers,
)
from cct_export.text import one_line

# Contents of the files of a bundle, by path below its folder.
Files = dict[str, bytes]

TEMPLATES = Path(__file__).with_name("templates")
TEMPLATE_SUFFIX = ".j2"
CHECKSUMS = "SHA256SUMS"


def render(target: str, **variables: object) -> Files:
    """Returns the files that a target has templates for.

    Templates escape nothing by themselves. A string that a user may have written goes through the
    filter of the language around it: ``shell`` (one word), ``inline_code`` (Markdown) or
    ``c_string`` (a literal with its quotes).

    Args:
        target: a folder below ``templates``.
        variables: of the templates, and of the names of files and folders.

    Raises:
        jinja2.UndefinedError: a template uses another variable.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters |= {
        "shell": shlex.quote, "inline_code": inline_code, "c_string": c_source.string,
    }  # fmt: skip
    files = {}
    root = TEMPLATES / target
    for path in sorted(root.rglob("*")):
        if path.is_dir() or path.parent.name == "__pycache__":  # pip compiles the scripts
            continue
        name, content = path.relative_to(root).as_posix(), path.read_bytes()
        if name.endswith(TEMPLATE_SUFFIX):
            name = name.removesuffix(TEMPLATE_SUFFIX)
            content = environment.from_string(content.decode()).render(variables).encode()
        files[environment.from_string(name).render(variables)] = content
    return files


def inline_code(text: str) -> str:
    """Returns any text as inline code of Markdown, on one line.

    Example:
        >>> inline_code("a `quoted` word")
        '``a `quoted` word``'
    """
    line = one_line(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    padding = " " if not line or "`" in (line[0], line[-1]) else ""
    return f"{fence}{padding}{line}{padding}{fence}"


def checksums(files: Files) -> bytes:
    """Returns the SHA-256 of every file, as ``sha256sum --check`` reads them, sorted by path."""
    lines = (f"{hashlib.sha256(files[path]).hexdigest()}  {path}\n" for path in sorted(files))
    return "".join(lines).encode()


def check_available(folder: Path) -> None:
    """Raises ``OutputError`` unless ``folder`` has a name, is empty or missing, and can appear."""
    if not folder.name:
        raise OutputError(f"{folder} has no name for a bundle: name its folder with -o")
    check_writable(folder, is_folder=True)
    try:
        folder = followed(folder)
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}") from error
    if taken:
        raise OutputError(f"{folder} exists already: name another folder with -o, or remove it")


def write(files: Files, folder: Path) -> None:
    """Writes files below ``folder``, which appears when it is complete; raises ``OutputError``.

    A link is followed: it stays, and the folder that it leads to appears.
    """
    temporary = None
    try:
        target = followed(folder)
        make_folder(target.parent if folder.is_symlink() else folder.parent)
        remove_leftovers(target.parent)
        temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=target.parent))
        for name, content in files.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        # mkdtemp makes folders private.
        temporary.chmod(permissions(target, new=0o777))
        temporary.replace(target)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
