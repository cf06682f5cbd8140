"""Running the libraries' own converters and quantizers: without their chatter, errors in a line."""

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator

from cct_export.errors import ConversionError
from cct_export.text import one_line

# Their messages can hold a whole graph.
_LONGEST_REASON = 300
# How LiteRT and ONNX Runtime name the operator that they cannot run.
_OPERATOR = re.compile(
    r"Node number \d+ \((\w+)\) failed to|Could not find an implementation for (\w+)"
)


@contextlib.contextmanager
def quiet_tools() -> Iterator[None]:
    """Hides the progress bars, sizes and advice that the tools print, log and warn of."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    nowhere = io.StringIO()
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            yield
    finally:
        logging.disable(before)


def not_run(engine: str, error: object, way_out: str = "compute it of other operations") -> str:
    """Returns that an engine cannot run an operator; empty where ``error`` names none.

    Args:
        engine: its name.
        error: what it raised.
        way_out: what to do; by default what helps where it cannot run the operator in float either.
    """
    found = _OPERATOR.search(str(error))
    return f"{engine} cannot run {found[1] or found[2]} of this model: {way_out}" if found else ""


@contextlib.contextmanager
def refusals(tool: str, way_out: str) -> Iterator[None]:
    """Turns whatever a tool raises, bare ``Exception`` included, into one line.

    Args:
        tool: its name.
        way_out: what to do.

    Raises:
        ConversionError: the tool raised something.
    """
    try:
        with quiet_tools():
            yield
    except ConversionError:
        raise
    except Exception as error:
        if message := not_run(tool, error):
            raise ConversionError(message) from error
        reason = one_line(error) or type(error).__name__
        if len(reason) > _LONGEST_REASON:
            reason = reason[:_LONGEST_REASON].rsplit(" ", 1)[0] + " …"
        raise ConversionError(f"{tool} refused the model: {reason}: {way_out}") from error
