"""Text that attacks a terminal, in every field of a record, and what it must not leave in bytes."""

import dataclasses
import re
from pathlib import Path

# Clears the screen, sets its title, links to another page, moves the cursor, reverses the direction
# of writing, begins another line, is half of a pair of surrogates, and looks like markup.
HOSTILE = (
    "\x1b[2J\x1b]0;title\x07\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\\x9b31m\x85\x08\x7f"
    "\x00\r\n\u202e\u200b\u2028\udce9<b>[red]|`*"
)
# The same without what no file name can hold; and in UTF-8, which engines need to open a file.
FILE_NAME = HOSTILE.replace("\x00", "").replace("/", "")
UTF8_NAME = FILE_NAME.replace("\udce9", "")
# What rich writes on a terminal: colours, the cursor, and erasing what was a line of status.
RICH = re.compile(rb"\x1b\[(?:[\d;]*m|\?25[hl]|[12]K|1A|2K)|\r")
# In UTF-8: C0 controls but the end of a line, DEL, C1 controls, separators of lines, marks of
# direction, and letters without width.
CONTROLS = re.compile(
    rb"[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\x8b-\x8f\xa8-\xae]|\xe2\x81[\xa0-\xaf]"
)


def poisoned(value):
    """Returns a record, or a tuple, list or dictionary of records, with hostile text everywhere."""
    if dataclasses.is_dataclass(value):
        fields = {
            field.name: poisoned(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.init
        }
        return dataclasses.replace(value, **fields)
    if isinstance(value, Path):
        return Path(str(value) + FILE_NAME)
    if isinstance(value, str):
        return value + HOSTILE
    if isinstance(value, dict):
        return {poisoned(key): poisoned(item) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(map(poisoned, value))
    return value


def controls(content):
    """Returns the control characters in bytes that a stream, a pipe or a file got."""
    return CONTROLS.findall(content)


def controls_on_terminal(content):
    """Returns the control characters in what a terminal got, but for rich's own codes."""
    return controls(RICH.sub(b"", content))
