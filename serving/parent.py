"""A worker must not outlive the process that started it: it would keep the ports."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

VARIABLE = "CIPHERSCORE_PARENT"
"""Environment variable in which the parent tells its workers its process id.  Not for operators."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def announce() -> None:
    """In the parent, before it starts workers: say who it is."""
    os.environ[VARIABLE] = str(os.getpid())


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
