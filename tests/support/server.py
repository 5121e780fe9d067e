"""A real served process for tests: ``bentoml serve`` on free ports."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
START_LIMIT = 120.0
"""Seconds; a quiet machine needs about five."""


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def bentoml(*arguments: str) -> list[str]:
    """Return the command line of BentoML in this environment."""
    return [sys.executable, "-m", "bentoml", *arguments]


def environment(home: Path, **settings: object) -> dict[str, str]:
    """Return the environment of a host process: a registry and CIPHERSCORE_* settings."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CIPHERSCORE_")}
    chosen = {f"CIPHERSCORE_{name.upper()}": str(value) for name, value in settings.items()}
    return {
        **clean,
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "True",
        "CIPHERSCORE_GRPC_HOST": "127.0.0.1",
        **chosen,
    }


@dataclass
class Server:
    """A running server."""

    process: subprocess.Popen[bytes]
    http: str
    grpc: str
    log: Path
    tls: ssl.SSLContext | None = None
    """What a client of a server with TLS needs."""

    def ready(self) -> bool:
        """Return whether it answers ``/readyz``."""
        try:
            with urllib.request.urlopen(
                f"{self.http}/readyz", timeout=5, context=self.tls
            ) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def wait_ready(self) -> None:
        """Wait until it answers; fail with its log when it ends or takes too long."""
        end = time.monotonic() + START_LIMIT
        while not self.ready():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.05)

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def serving(
    home: Path,
    log: Path,
    target: str = "serving.service:CipherScore",
    cwd: Path = ROOT,
    tls: ssl.SSLContext | None = None,
    python: str = sys.executable,
    **settings: object,
) -> Iterator[Server]:
    """Serve the registry in ``home`` until the block ends.

    With ``tls``, what its clients need, the server's certificate must be for ``localhost``;
    ``python`` is the interpreter that serves.
    """
    http_port, grpc_port = free_port(), free_port()
    _, *arguments = bentoml("serve", target, "--host", "127.0.0.1", "--port", str(http_port))
    command = [python, *arguments]
    settings.setdefault("grpc_port", grpc_port)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment(home, **settings),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    http = f"http://127.0.0.1:{http_port}" if tls is None else f"https://localhost:{http_port}"
    server = Server(process, http, f"127.0.0.1:{settings['grpc_port']}", log, tls)
    try:
        server.wait_ready()
        yield server
    finally:
        try:
            server.stop()
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
