"""The options of a delegate that both tools share."""

import re
from collections.abc import Collection
from dataclasses import dataclass

from cct_export.errors import InvalidRequest, NotAvailable
from cct_export.specs import Delegation

PRECISIONS = ("fp32", "fp16")
MASK = "cpu_mask"


@dataclass(frozen=True)
class Settings:
    """What the options of a delegate come to.

    Attributes:
        mask: hexadecimal mask of the cores that may be used, empty for all.
        half: whether computing in fp16 is allowed.
        others: options that the tool hands on as they are.
    """

    mask: str = ""
    half: bool = False
    others: tuple[tuple[str, str], ...] = ()

    @property
    def prefix(self) -> list[str]:
        """What stands before the command."""
        return ["taskset", self.mask] if self.mask else []


def read(
    delegation: Delegation, delegates: Collection[str], known: Collection[str] | None, tool: str
) -> Settings:
    """Reads the options of a delegate.

    Args:
        delegation: what was asked for.
        delegates: the names that there are.
        known: options of this delegate beside ``cpu_mask``; None if the tool takes any.
        tool: named in the errors.

    Raises:
        InvalidRequest: an option that there is not, or a value that it does not have.
        NotAvailable: there is no such delegate.
    """
    if delegation.name not in delegates:
        raise NotAvailable(
            f"{tool} has no delegate {delegation.name!r}: choose {', '.join(delegates)}"
        )
    options = dict(delegation.options)
    mask = options.pop(MASK, "")
    if MASK in dict(delegation.options) and not re.fullmatch(r"[0-9a-fA-F]{1,16}", mask):
        raise InvalidRequest(f"cpu_mask is a hexadecimal mask of cores such as f0, not {mask!r}")
    precision = PRECISIONS[0]
    if known is None:
        return Settings(mask, others=tuple(options.items()))
    if "precision" in known:
        precision = options.pop("precision", precision)
    if options or precision not in PRECISIONS:
        wanted = "cpu_mask=f0" + (" or precision=fp32 or fp16" if "precision" in known else "")
        said = ", ".join(f"{name}={value}" for name, value in delegation.options)
        raise InvalidRequest(f"{delegation.name} on a phone takes the options {wanted}, not {said}")
    return Settings(mask, precision == "fp16")
