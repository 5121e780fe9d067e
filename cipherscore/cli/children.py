"""Child processes of ``cipherscore run``: steps that end, and servers that stay.

Host processes get an environment without anything that opens a keyset.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape

from cipherscore.cli.common import Home, err, out
from cipherscore.errors import CipherScoreError

START_TIMEOUT = 90.0
STOP_TIMEOUT = 20.0
SECRET_VARIABLES = ("CIPHERSCORE_PASSPHRASE", "CIPHERSCORE_KEYSET", "CIPHERSCORE_API_KEY_FILE")


class StepFailed(CipherScoreError):
    """A step of the main job ended with an error; it has printed what went wrong."""


class Steps:
    """Runs commands of this program one after the other, or side by side from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False

    def run(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        capture: bool = False,
        label: str = "",
    ) -> str:
        """Run one command; return what it printed if ``capture``, else pass it on, labelled.

        Raises:
            StepFailed: It ended with an error.
        """
        if not capture:
            out.print(f"[dim]$ cipherscore {escape(' '.join(arguments))}[/dim]")
        pipe = subprocess.PIPE if label or capture else None
        child = self._start(arguments, environment, pipe)
        try:
            text = _pump(child, capture, label) if pipe else ""
            code = child.wait()
        except BaseException:
            child.terminate()
            raise
        finally:
            with self._lock:
                self._running.discard(child)
        if code:
            raise StepFailed(f"`cipherscore {' '.join(arguments)}` ended with code {code}")
        return text

    def stop(self) -> None:
        """End what runs and let nothing more start."""
        with self._lock:
            self._stopped = True
            for child in self._running:
                child.terminate()

    def _start(
        self, arguments: Sequence[str], environment: Mapping[str, str], pipe: int | None
    ) -> subprocess.Popen[str]:
        with self._lock:
            if self._stopped:
                raise StepFailed(f"`cipherscore {' '.join(arguments)}` was not started")
            child = subprocess.Popen(  # noqa: S603 - our own command line
                [sys.executable, "-m", "cipherscore", *arguments],
                env=environment, stdout=pipe, stderr=pipe, text=True,
            )  # fmt: skip
            self._running.add(child)
            return child


class Servers:
    """The service and the gateway, as child processes that end with this one."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._children: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}

    def __enter__(self) -> Servers:  # noqa: PYI034 - Self is of 3.11
        return self

    def start(
        self, ports: tuple[int, int, int], models: Mapping[str, str], secret: Sequence[str]
    ) -> None:
        """Start both and return when both answer.

        Args:
            ports: HTTP and gRPC of the service, HTTP of the gateway.
            models: Model kind to the name of the model to serve.
            secret: Options that give the gateway its passphrase.

        Raises:
            StepFailed: One ended, or did not answer in `START_TIMEOUT` seconds.
        """
        http, grpc, gateway = map(str, ports)
        served = ["serve", "--http-port", http, "--grpc-port", grpc]
        served += [option for kind, name in models.items() for option in (f"--{kind}", name)]
        self._spawn("service", served, host_environment(), self.home.host)
        guarded = ["gateway", "--port", gateway, "--address", f"127.0.0.1:{grpc}", *secret]
        self._spawn("gateway", guarded, dict(os.environ), self.home.owner)
        deadline = time.monotonic() + START_TIMEOUT
        while not _answers(f"http://127.0.0.1:{gateway}/readyz"):
            self._check_alive()
            if time.monotonic() > deadline:
                raise StepFailed(
                    f"no answer after {START_TIMEOUT:.0f} s; see the logs in {self.home.root}"
                )
            time.sleep(0.1)

    def wait(self) -> None:
        """Stay until Ctrl-C, SIGTERM, SIGHUP, or the end of a server."""
        try:
            while True:
                self._check_alive()
                time.sleep(0.5)
        except KeyboardInterrupt:
            out.print("stopping …")

    def __exit__(self, *_: object) -> None:
        # A second Ctrl-C must not leave a server behind.
        numbers = (signal.SIGINT, signal.SIGTERM)
        previous = [signal.signal(number, signal.SIG_IGN) for number in numbers]
        for child, _path in self._children.values():
            if child.poll() is None:
                child.terminate()
        deadline = time.monotonic() + STOP_TIMEOUT
        for name, (child, _path) in self._children.items():
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                err.print(f"{name} did not stop in time and is killed")
                os.killpg(child.pid, signal.SIGKILL)
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)
        if self._children:
            out.print("stopped")

    def _spawn(
        self, name: str, arguments: list[str], environment: Mapping[str, str], folder: Path
    ) -> None:
        log = folder / f"{name}.log"
        with log.open("wb") as stream:
            # A session of its own: Ctrl-C reaches this process, which stops its children in order.
            child = subprocess.Popen(  # noqa: S603 - our own command line
                [sys.executable, "-m", "cipherscore", *arguments],
                env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
                start_new_session=True,
            )  # fmt: skip
        self._children[name] = (child, log)

    def _check_alive(self) -> None:
        for name, (child, log) in self._children.items():
            if child.poll() is not None:
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
                raise StepFailed(f"the {name} ended with code {child.returncode}:\n{tail}")


def host_environment() -> dict[str, str]:
    """Return the environment of a host process: nothing that is the owner's alone."""
    return {name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES}


def _pump(child: subprocess.Popen[str], capture: bool, label: str) -> str:
    """Show a command's lines with a label in front until it ends; keep its stdout if ``capture``."""
    kept: list[str] = []

    def display(line: str) -> None:
        out.print(f"[cyan]{label:<10}[/cyan] {escape(line)}" if label else escape(line))

    def pump(stream: Any, use: Callable[[str], object]) -> None:
        for line in stream:
            use(line.rstrip("\n"))

    # Daemons: after Ctrl-C nobody waits for them.
    other = threading.Thread(target=pump, args=(child.stderr, display), daemon=True)
    other.start()
    pump(child.stdout, kept.append if capture else display)
    other.join()
    return "\n".join(kept)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - our own loopback address
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
