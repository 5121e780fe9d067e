"""What the figures were measured on, and how busy it was with other things."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

_NOTICED = 2e-4
"""Seconds between two looks at the clock from which on something else had the core."""


def facts(server_core: int, client_core: int) -> dict[str, Any]:
    """Return the machine's facts."""
    information = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*:\s*(.+)", information)
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    flags = set(re.search(r"flags\s*:\s*(.+)", information)[1].split())  # type: ignore[index]
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8")
    return {
        "cpu": model[1].strip() if model else platform.processor(),
        "cores": os.cpu_count(),
        "cpu_features": [flag for flag in wanted if flag in flags],
        "memory_gib": round(int(memory[1]) / 2**20) if memory else None,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "onnxruntime": _own("onnxruntime-gpu") or _own("onnxruntime"),
        "h2load": h2load_version(),
        "server_core": server_core,
        "client_core": client_core,
        "stalls": {str(core): stalls(core) for core in (server_core, client_core)},
    }


def h2load_version() -> str:
    """Return the version of h2load, or nothing where there is none."""
    try:
        done = subprocess.run(["h2load", "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def own_versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of packages in this environment."""
    return {package: version for package in packages if (version := _own(package))}


def busy(seconds: float = 0.3) -> float:
    """Return how many cores' worth of work runs now, before the benchmark adds its own."""
    idle_before, start = _idle(), time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - start
    return max(0.0, (os.cpu_count() or 1) - (_idle() - idle_before) / passed)


def stalls(core: int, seconds: float = 5.0) -> dict[str, float]:
    """Return how far a core is taken away from a process that does nothing but look at the clock.

    No server can have a better tail than that: an open-loop percentile above ``share`` measures the
    machine.

    Args:
        core: The core.
        seconds: How long to look.

    Returns:
        ``share`` of the time that was lost, and the ``longest`` time at once in seconds.
    """
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    lost = longest = 0.0
    try:
        start = before = time.perf_counter()
        while before - start < seconds:
            now = time.perf_counter()
            gap = now - before
            if gap > _NOTICED:
                lost += gap
                longest = max(longest, gap)
            before = now
    finally:
        os.sched_setaffinity(0, allowed)
    return {"share": lost / seconds, "longest": longest}


def _idle() -> float:
    """Return the seconds all cores together have been idle."""
    return float(Path("/proc/uptime").read_text().split()[1])


def _own(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
