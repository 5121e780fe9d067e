"""A worker must not outlive the process that started it: it would keep the ports."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent dies, even by SIGKILL.

    Linux only; elsewhere nothing is done.  See prctl(2).
    """
    if sys.platform != "linux":
        return
    before = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != before:  # it died in between
        os.kill(os.getpid(), signal.SIGTERM)
