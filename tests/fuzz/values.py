"""Values that programs tend to handle wrongly, for fields of any format."""

import math

import numpy as np

INTEGERS = (
    0, 1, -1, 2, 3, 7, 127, 128, 255, 256, -129, 2**15, 2**16 - 1, 2**16, 10**6, 2**31 - 1, 2**31,
    -(2**31), 2**32 - 1, 2**32, 2**53 + 1, 2**62, 2**63 - 1, -(2**63), 2**63, 2**64 - 1,
)  # fmt: skip
FLOATS = (
    math.nan, math.inf, -math.inf, 0.0, -0.0, -1.0, 0.5, 1.0000001, 5e-324, 1e-30, 1e15, 1.1e15,
    3.4e38, 1.7e308, -1e308,
)  # fmt: skip
# Text that controls a terminal, misleads a reader, or names what must not be run or contacted.
STRINGS = (
    "", " ", "\x1b[2J", "\x1b]8;;http://localhost/\x07link\x1b]8;;\x07", "\x9b31m", "a\nb", "\r",
    "\x08", "\N{RIGHT-TO-LEFT OVERRIDE}exe", "\N{ZERO WIDTH SPACE}", "\x00", "\N{BOM}", "é", "🙂",
    ".", "..", "../../outside", "/", "/dev/zero", "/dev/full", "/proc/self/mem", "~nosuchuser/x",
    "hf:owner/name", "keras-io/name", "http://localhost:9/x", "ssh:nobody@localhost", "adb",
    "external:/nonexistent/library.so", "plugin:/nonexistent/library.so", "cifar10", "digits",
    "$HOME", "=1+1", "+1", "@x", "a|b", "`x`", "<script>x</script>", "javascript:x", "{{7*7}}",
    "{0.__class__}", "%s%n", "nan", "1e999", "true", "null", "A" * 300, "A" * 100_000,
    "__import__('os')", "os.system", "builtins.eval",
)  # fmt: skip


def integer(random: np.random.Generator, near: int = 0) -> int:
    """Returns an integer at some boundary, or close to ``near``."""
    if random.random() < 0.4:
        return near + int(random.integers(-2, 3))
    return INTEGERS[random.integers(len(INTEGERS))]


def number(random: np.random.Generator) -> float:
    """Returns a float at some boundary."""
    return FLOATS[random.integers(len(FLOATS))]


def text(random: np.random.Generator) -> str:
    """Returns a nasty string."""
    return STRINGS[random.integers(len(STRINGS))]
