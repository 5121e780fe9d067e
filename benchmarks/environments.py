"""Peers' environments: a venv each under ``.cache/peers``, made from its locked requirements.

A peer is a folder that holds ``requirements.in`` and its lock, ``requirements.txt``; the
environment is called as the folder is.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".cache" / "peers"
INSTALL_LIMIT = 900.0
"""Seconds."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Variables of a process that is to compute on one thread."""


class CannotInstallError(Exception):
    """A peer's environment cannot be made; the message says why in a line."""


def ensure(peer: Path) -> Path:
    """Return the Python of a peer's environment, which is made or renewed if it has to be.

    Raises:
        CannotInstallError: It cannot be made.
    """
    requirements = peer / "requirements.txt"
    folder = CACHE / peer.name
    python = folder / "bin" / "python"
    stamp = folder / ".stamp"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"{peer.name}: installing into {folder.relative_to(ROOT)}", flush=True)
    # uv from the project's environment; it reads and writes nothing but this folder and its cache.
    uv = Path(sys.executable).parent / "uv"
    if not uv.exists():
        raise CannotInstallError("uv is not in the project's environment; `make env` puts it there")
    _run([str(uv), "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)])
    _run(
        [
            str(uv), "pip", "install", "--quiet", "--require-hashes", "--no-deps",
            "--python", str(python), "-r", str(requirements),
        ]
    )  # fmt: skip
    stamp.write_text(wanted)
    return python


def versions(peer: Path) -> dict[str, str]:
    """Return what the lock file of a peer pins, package to version."""
    pinned = {}
    for line in (peer / "requirements.txt").read_text().splitlines():
        package, found, rest = line.partition("==")
        if found and not line.startswith((" ", "#")):
            pinned[package] = rest.split()[0]
    return pinned


def _run(command: list[str]) -> None:
    clean = {k: v for k, v in os.environ.items() if k not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    try:
        done = subprocess.run(
            command, env=clean, capture_output=True, text=True, timeout=INSTALL_LIMIT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotInstallError(f"{Path(command[0]).name}: {type(error).__name__}") from error
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        raise CannotInstallError(lines[-1] if lines else f"exit code {done.returncode}")
