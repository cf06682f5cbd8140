"""``.npy`` and ``.npz`` files with headers and members that may say anything."""

import io
import struct
import zipfile


def npy(descr, shape, content=b"", fortran=False, version=1):
    """Returns an array as ``.npy`` has it, with a header that may say anything."""
    header = f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
    return with_header(header, content, version)


def with_header(header, content=b"", version=1):
    """Returns ``header`` and ``content`` as ``.npy`` has them."""
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + content


def npz(**members):
    """Returns an ``.npz`` with these files in it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()
