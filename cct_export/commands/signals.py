"""Signals that end a command: what it has begun is cleaned up, and none is ignored."""

import os
import signal
import sys
import threading
import time
from typing import Any

# Interrupted, terminated, and the terminal closed, which Windows does not have.
_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
# How long native code may keep Python from raising an exception, and how long cleaning up may take.
_RAISE_LIMIT_S = 3.0
_CLEAN_UP_LIMIT_S = 30.0
_INTERVAL_S = 0.05


class _State:
    """What has become of the signals so far.

    Attributes:
        received: the last one; 0 before the first.
        raised: whether its exception was raised.
        lost: whether the exception was raised where Python drops it, such as in a callback of the
            garbage collector.
    """

    received = 0
    raised = False
    lost = False


def install() -> None:
    """Makes signals end the program with 128 and their number, after cleaning up.

    Python handles a signal between two of its own instructions, and so never while native code
    runs: a thread ends the program if that takes too long. Signals that are ignored, as under
    nohup, stay ignored.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _raise)
    sys.unraisablehook = _note_lost
    arrived, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    # A fork shares the pipe: what ends it must not end this process.
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    threading.Thread(target=_watch, args=(arrived,), daemon=True).start()


def exit_code() -> int | None:
    """Returns what the program has to end with after a signal, None before any.

    An exception that a signal raised may come out as another one, such as an ``ImportError`` of the
    import that it interrupted.
    """
    return 128 + _State.received if _State.received else None


def _raise(number: int, frame: object) -> None:
    _State.received, _State.raised = number, True
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def _note_lost(dropped: Any) -> None:
    """Takes note of an exception that Python drops; all but those of signals are shown."""
    if _State.received and isinstance(dropped.exc_value, KeyboardInterrupt | SystemExit):
        _State.lost = True
    else:
        sys.__unraisablehook__(dropped)


def _watch(arrived: int) -> None:
    """Ends the program some time after a signal, unless it has ended by then."""
    while (number := os.read(arrived, 1)[0]) not in _SIGNALS:
        pass  # such as the size of the terminal
    start = time.monotonic()
    while time.monotonic() - start < (_CLEAN_UP_LIMIT_S if _State.raised else _RAISE_LIMIT_S):
        time.sleep(_INTERVAL_S)
        if _State.lost:
            _State.lost = False
            signal.pthread_kill(threading.main_thread().ident or 0, number)
    os._exit(128 + number)
