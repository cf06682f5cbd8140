"""Android phones, through the program ``adb``; LiteRT's or ONNX Runtime's own tool measures."""

from cct_export.bench.hosts.adb.phone import Phone


def open_device(which: str = "") -> Phone:
    """Returns the phone with the serial number ``which``, or the only one that is connected."""
    return Phone(which)
