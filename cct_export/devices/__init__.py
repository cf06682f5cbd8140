"""Where measurements run: on this machine, over ssh, over adb."""

from cct_export import registry
from cct_export.devices.device import Device
from cct_export.errors import InvalidRequest

# Each is a module here with ``open_device``.
DEVICES = {
    "local": "local",
    "ssh": "ssh:USER@HOST[:PORT]",
    "adb": "adb or adb:SERIAL",
}


def open_device(name: str) -> Device:
    """Returns the device that ``--device name`` means; nothing is asked of it yet.

    Args:
        name: the kind of a device and, behind a colon, which one.

    Raises:
        InvalidRequest: there is no such kind, or it cannot be called so.
    """
    word, _, rest = name.partition(":")
    if word not in DEVICES:
        raise InvalidRequest(f"no device {name!r}: say {', '.join(DEVICES.values())}")
    device: Device = registry.load(__name__, word).open_device(rest)
    return device
