"""An environment of Python 3.10 with ONNX Runtime 1.14.1, as the image for old GPUs has it."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.server import ROOT

LOCK = ROOT / "requirements/serve-maxwell.txt"
_CUDA = re.compile(r"nvidia-.*-cu11==")
"""Two gigabytes that the CPU does not need."""


@functools.cache
def interpreter() -> str | None:
    """Return a Python 3.10 of this machine, or None.  PYTHON310 may name one."""
    homes = sorted(Path.home().glob(".pyenv/versions/3.10.*/bin/python3.10"))
    for found in (os.environ.get("PYTHON310"), shutil.which("python3.10"), *map(str, homes)):
        if found and _is_310(found):
            return found
    return None


def _is_310(python: str) -> bool:
    # A shim may stand for an interpreter that is not installed.
    program = "import sys, venv; sys.exit(sys.version_info[:2] != (3, 10))"
    done = subprocess.run([python, "-c", program], capture_output=True, check=False)
    return done.returncode == 0


def environment() -> str:
    """Return the interpreter of the environment; it is made once for each state of the lock."""
    python = interpreter()
    assert python is not None
    lock = "".join(
        package
        for package in re.split(r"^(?=[a-z0-9])", LOCK.read_text(), flags=re.MULTILINE)
        if not _CUDA.match(package)
    )
    name = f"python3.10-{hashlib.sha256(lock.encode()).hexdigest()[:12]}"
    folder = ROOT / ".cache" / name
    made = folder / "bin/python"
    if (folder / "complete").exists():
        return str(made)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([python, "-m", "venv", "--without-pip", str(folder)], check=True)
    (folder / "lock.txt").write_text(lock)
    subprocess.run(
        [
            str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet",
            "--python", str(made), "--require-hashes", "--no-deps", "-r", str(folder / "lock.txt"),
        ],
        check=True,
    )  # fmt: skip
    (folder / "complete").touch()
    return str(made)
