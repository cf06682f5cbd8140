"""The checksum of a whole file that its contract carries, in any format.

It is the SHA-256 of the file with zeros in place of these very digits. TFLite and ONNX both store
the JSON of the contract as it is, so the digits are found without parsing the file.
"""

import hashlib

# What stands in the contract until the rest of the file is known.
UNSEALED = "0" * 64
_FIELD = b'"content_sha256": "'


def sealed(content: bytes) -> bytes:
    """Returns a file whose contract has ``UNSEALED`` as checksum with the checksum in its place.

    Raises:
        ValueError: there is no such contract in it.
    """
    if carried(content) != UNSEALED:
        raise ValueError("the file has no contract with an open checksum")
    start, end = _digits(content)
    view = memoryview(content)  # whose parts are no copies
    return b"".join([view[:start], _digest(content).encode(), view[end:]])


def carried(content: bytes) -> str:
    """Returns the checksum that a file carries, whatever is there; empty if it carries none."""
    if _FIELD not in content:
        return ""
    start, end = _digits(content)
    return content[start:end].decode("ascii", "replace")


def is_intact(content: bytes) -> bool | None:
    """Returns whether a file is what its checksum was made of; None if it carries none."""
    return carried(content) == _digest(content) if _FIELD in content else None


def _digits(content: bytes) -> tuple[int, int]:
    """Returns where the digits of the checksum begin and end."""
    start = content.index(_FIELD) + len(_FIELD)
    return start, start + len(UNSEALED)


def _digest(content: bytes) -> str:
    start, end = _digits(content)
    view = memoryview(content)
    digest = hashlib.sha256(view[:start])
    digest.update(UNSEALED.encode())
    digest.update(view[end:])
    return digest.hexdigest()
