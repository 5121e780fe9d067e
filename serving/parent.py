"""Parent and workers: none is to go on alone.

A worker must not outlive the process that started it: it would keep the ports.  And what a worker
cannot cure by being restarted must end the parent, which would restart it for ever.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import threading
from types import FrameType

VARIABLE = "CIPHERSCORE_PARENT"
"""Environment variable in which the parent tells its workers its process id.  Not for operators."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_GIVE_UP = signal.SIGUSR2
_FAILED = 1
_given_up = threading.Event()


def announce() -> None:
    """In the parent, before it starts workers: say who it is, and listen to them."""
    os.environ[VARIABLE] = str(os.getpid())
    if threading.current_thread() is threading.main_thread():
        signal.signal(_GIVE_UP, _end)
        atexit.register(_leave)


def _end(_signal: int, _frame: FrameType | None) -> None:
    """End as by SIGTERM, but not with exit code 0."""
    _given_up.set()
    os.kill(os.getpid(), signal.SIGTERM)


def _leave() -> None:
    """Set the exit code, which BentoML's command makes 0 after every SIGTERM."""
    if _given_up.is_set():
        _leave_now()


def _leave_now() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_FAILED)


def give_up() -> None:
    """In a worker: end, and have the parent end, because no restart of this worker would help.

    Returns where there is no parent that listens.
    """
    if os.environ.get(VARIABLE) == str(os.getppid()):
        os.kill(os.getppid(), _GIVE_UP)
        _leave_now()


def end_with_parent() -> None:
    """In a worker: have the kernel send SIGTERM when the parent dies, even by SIGKILL.

    A parent that died while this worker was starting is noticed too.  Linux only; elsewhere nothing
    is done.  See prctl(2).
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.environ.get(VARIABLE, str(os.getppid())) != str(os.getppid()):
        os.kill(os.getpid(), signal.SIGTERM)
