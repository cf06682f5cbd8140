"""Where measurements run: on this machine, over ssh, over adb."""

from collections.abc import Callable

from cct_export.bench.hosts import adb, local, ssh
from cct_export.bench.hosts.host import Device
from cct_export.errors import InvalidRequest

FORMS = ("local", "ssh:USER@HOST[:PORT]", "adb or adb:SERIAL")
# What stands before the colon, and what opens the device that is named behind it.
DEVICES: dict[str, Callable[[str], Device]] = {
    "local": local.open_device,
    "ssh": ssh.open_device,
    "adb": adb.open_device,
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
        raise InvalidRequest(f"no device {name!r}: say {', '.join(FORMS)}")
    return DEVICES[word](rest)
