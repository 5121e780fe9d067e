"""Server processes: pinned to a core, marked, and ended with everything they started."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MARK = "CIPHERSCORE_BENCHMARK_RUN"
"""Environment variable that every process below a started server inherits."""
STOP_SECONDS = 8.0


@dataclass(frozen=True)
class Running:
    """A started server.

    Attributes:
        process: What was started.
        mark: Value of `MARK` in everything below it.
    """

    process: subprocess.Popen[bytes]
    mark: str

    def cpu_seconds(self) -> float:
        """Return the processor time of its living processes so far."""
        used = 0
        for pid in marked(self.mark):
            for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                with contextlib.suppress(OSError):
                    used += int(path.read_text().split()[0])
        return used / 1e9


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str], core: int, environment: Mapping[str, str], folder: Path, log: Path
) -> Iterator[Running]:
    """Run ``command`` on one core until the block ends; then nothing of it is left.

    A server that put itself or a child into another session (Ray does) is found by its mark.  Were
    this process killed, the server is told to end.
    """
    mark = uuid.uuid4().hex
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", str(core), *command],
            cwd=folder,
            env={**environment, MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Running(process, mark)
    finally:
        _end(process, mark)


def _end(process: subprocess.Popen[bytes], mark: str) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    deadline = time.monotonic() + STOP_SECONDS
    while left := marked(mark):
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes {left} of a server cannot be ended")
        process.poll()
        time.sleep(0.05)
    process.wait()


def marked(mark: str) -> list[int]:
    """Return the living processes that carry a mark."""
    entry = f"{MARK}={mark}".encode()
    found = []
    for path in Path("/proc").iterdir():
        if not path.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            # A zombie has an empty environment, so it is not found.
            if entry in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
    return found
