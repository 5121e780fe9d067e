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


def _idle() -> float:
    """Return the seconds all cores together have been idle."""
    return float(Path("/proc/uptime").read_text().split()[1])


def _own(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
