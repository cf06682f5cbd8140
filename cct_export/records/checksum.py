"""The checksum of a whole file that its contract carries, in any format.

It is the SHA-256 of the file with zeros in place of these very digits. TFLite and ONNX both store
the JSON of the contract as it is, so the digits are found without parsing the file.
"""

import hashlib

# What stands in the contract until the rest of the file is known.
UNSEALED = "0" * 64
_FIELD = b'"content_sha256": "'


def sealed(content: bytes) -> bytes:
    """Returns a file whose contract has ``UNSEALED`` as checksum with the checksum in its place."""
    start, end = _digits(content)
    if content[start:end] != UNSEALED.encode():
        raise ValueError("the file has no contract with an open checksum")
    return content[:start] + _digest(content, start, end).encode() + content[end:]


def carried(content: bytes) -> str:
    """Returns the checksum that a file carries, as its digits are there; empty without one."""
    start, end = _digits(content)
    return content[start:end].decode("ascii", "replace")


def is_intact(content: bytes) -> bool | None:
    """Returns whether a file is what its checksum was made of; None if it carries none."""
    start, end = _digits(content)
    if start == end:
        return None
    return content[start:end] == _digest(content, start, end).encode()


def _digits(content: bytes) -> tuple[int, int]:
    """Returns where the digits begin and end; the same position twice if there are none."""
    found = content.find(_FIELD)
    start = found + len(_FIELD) if found >= 0 else len(content)
    return start, min(start + len(UNSEALED), len(content))


def _digest(content: bytes, start: int, end: int) -> str:
    view = memoryview(content)
    digest = hashlib.sha256(view[:start])
    digest.update(UNSEALED.encode())
    digest.update(view[end:])
    return digest.hexdigest()
