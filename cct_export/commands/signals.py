"""Signals that end a command: what it has begun is cleaned up, and none is ignored."""

import os
import signal
import threading

# Interrupted, terminated, and the terminal closed, which Windows does not have.
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
# How long native code may keep Python from raising an exception, and how long cleaning up may take.
_RAISE_LIMIT_S = 3.0
_CLEAN_UP_LIMIT_S = 30.0

_raised = threading.Event()


def install() -> None:
    """Makes signals end the program with 128 and their number, after cleaning up.

    Python handles a signal between two of its own instructions, and so never while native code
    runs: a thread ends the program if that takes too long. Signals that are ignored, as under
    nohup, stay ignored.
    """
    for name in _SIGNALS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _raise)
    arrived, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    # A fork shares the pipe: what ends it must not end this process.
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    threading.Thread(target=_watch, args=(arrived,), daemon=True).start()


def _raise(number: int, frame: object) -> None:
    _raised.set()
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def _watch(arrived: int) -> None:
    """Ends the program some time after a signal, unless it has ended by then."""
    ending = {getattr(signal, name, None) for name in _SIGNALS}
    while (number := os.read(arrived, 1)[0]) not in ending:
        pass  # such as the size of the terminal
    if _raised.wait(_RAISE_LIMIT_S):
        threading.Event().wait(_CLEAN_UP_LIMIT_S)
    os._exit(128 + number)
