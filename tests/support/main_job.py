"""``cipherscore run`` as a real process with files, ports and logs of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from cipherscore.client import Client
from cipherscore.client.encryption import FieldCipher
from cipherscore.client.keys import Keyset
from cipherscore.client.records import RecordCodec
from cipherscore.schema import Schema
from cipherscore.schema_file import BUILT_IN_FOLDER, load_schema
from registry import Registry, Version
from tests.support.processes import command, descendants, is_free, parents
from tests.support.server import free_port

SAMPLE = Path(str(BUILT_IN_FOLDER / "german-credit-sample.csv"))
CIPHERSCORE = Path(sys.executable).with_name("cipherscore")
FIRST_LIMIT = 540.0
"""Seconds from nothing to a served model; two quiet cores need about a minute and a half."""
START_LIMIT = 120.0
COMMAND_LIMIT = 180.0
STOP_LIMIT = 30.0
CLASSIFIER, GENERATOR = "german-credit-classifier", "german-credit-generator"


@dataclass
class MainJob:
    """One project folder and, once started, the job that serves it.

    Args:
        home: CIPHERSCORE_HOME.
        scratch: Working folder of the processes, and their cache.
        scorecards: Whether the host sees scorecards only, as by default, or each field's token.
    """

    home: Path
    scratch: Path
    ports: tuple[int, int, int] = field(
        default_factory=lambda: (free_port(), free_port(), free_port())
    )
    scorecards: bool = False
    process: subprocess.Popen[bytes] | None = None
    seconds: float = 0.0

    # ---- commands

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a user who has set nothing but where the files are."""
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CIPHERSCORE_", "BENTOML_"))
        }
        return {
            **clean,
            "CIPHERSCORE_HOME": str(self.home),
            "XDG_CACHE_HOME": str(self.scratch / "cache"),
            **more,
        }

    def cli(self, *arguments: str, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        """Run one command to its end and check its exit code."""
        done = subprocess.run(
            [CIPHERSCORE, *arguments],
            cwd=self.scratch,
            env=self.environment(**more),
            capture_output=True,
            text=True,
            timeout=COMMAND_LIMIT,
            check=False,
        )
        assert done.returncode == code, (
            f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        assert "Traceback" not in done.stderr
        return done

    @property
    def run_arguments(self) -> list[str]:
        """The arguments of `cipherscore run`."""
        http, grpc, gateway = map(str, self.ports)
        ports = ["--http-port", http, "--grpc-port", grpc, "--gateway-port", gateway]
        cards = [] if self.scorecards else ["--scorecards", "0"]
        return ["run", "--data", str(SAMPLE), *cards, *ports]

    def spawn(self, **more: str) -> subprocess.Popen[bytes]:
        """Start ``cipherscore run`` in a session of its own, as a terminal does."""
        with self.log.open("wb") as output, _hangups_heeded():
            self.process = subprocess.Popen(
                [CIPHERSCORE, *self.run_arguments],
                cwd=self.scratch,
                env=self.environment(**more),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.process

    @contextmanager
    def running(self, limit: float = START_LIMIT, **more: str) -> Iterator[MainJob]:
        """Start the job, wait until it says that it is up, and stop it with Ctrl-C at the end."""
        begun = time.monotonic()
        process = self.spawn(**more)
        try:
            while "Running." not in self.said:
                assert process.poll() is None, self.said
                assert time.monotonic() - begun < limit, self.said
                time.sleep(0.1)
            self.seconds = time.monotonic() - begun
            yield self
            self.stop()
        finally:
            self.abandon()

    def stop(self, number: int = signal.SIGINT) -> None:
        """Send the signal and check that everything ends as it should."""
        assert self.process is not None
        if self.process.poll() is not None:
            return
        below = descendants(self.process.pid)
        assert len(below) >= 3
        self.process.send_signal(number)
        assert self.process.wait(STOP_LIMIT) == 0, self.said
        assert self.said.rstrip().endswith("stopped")
        left = set(below) & parents().keys()
        assert not left, [command(pid) for pid in left]
        assert all(map(is_free, self.ports))

    def abandon(self) -> None:
        """Kill what is still there; after a failure only."""
        if self.process is not None and self.process.poll() is None:
            for pid in [*descendants(self.process.pid), self.process.pid]:
                kill_if_there(pid)
            self.process.wait()

    def copy(self, folder: Path) -> MainJob:
        """Return another job with a copy of all files."""
        scratch = folder / "scratch"
        scratch.mkdir(parents=True)
        shutil.copytree(self.home, folder / "home", symlinks=True)
        return MainJob(folder / "home", scratch)

    # ---- what it said and holds

    @property
    def log(self) -> Path:
        """What ``cipherscore run`` printed."""
        return self.scratch / "run.log"

    @property
    def said(self) -> str:
        """What ``cipherscore run`` printed so far."""
        return self.log.read_text(errors="replace")

    @property
    def keyset_file(self) -> Path:
        return self.home / "owner" / "keyset.json"

    @property
    def passphrase_file(self) -> Path:
        return self.home / "owner" / "passphrase"

    @property
    def passphrase(self) -> str:
        return self.passphrase_file.read_text().strip()

    @property
    def keyset(self) -> Keyset:
        return Keyset.load(self.keyset_file, self.passphrase)

    @cached_property
    def schema(self) -> Schema:
        """The fitted schema."""
        return load_schema(self.home / "owner" / "schema.toml")

    @property
    def codec(self) -> RecordCodec:
        return RecordCodec(FieldCipher(self.keyset, self.schema))

    @property
    def registry(self) -> Registry:
        return Registry(self.home / "host" / "bentoml")

    def production(self, name: str) -> Version:
        return self.registry.production(name)

    # ---- talking to it

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.ports[1]}"

    @property
    def owner_options(self) -> list[str]:
        """Options of a command that opens the keyset and asks the host."""
        return ["--address", self.address, "--passphrase-file", str(self.passphrase_file)]

    def client(self, **more: Any) -> Client:
        return Client(self.keyset, self.schema, self.address, **more)

    def predict(self, content: object) -> httpx.Response:
        """Post raw records to the gateway."""
        url = f"http://127.0.0.1:{self.ports[2]}/predictCreditRisk"
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return httpx.post(url, content=body, timeout=30)

    def post(self, path: str, content: object) -> Any:
        """Post tokens to the service."""
        answer = httpx.post(f"{self.http}/v1/{path}", json=content, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def host_processes(self) -> list[int]:
        """Return the service's parent process and its workers."""
        assert self.process is not None
        found = [pid for pid in descendants(self.process.pid) if "serving.service" in command(pid)]
        assert len(found) >= 2
        return found

    def worker(self) -> int:
        """Return the service's only worker."""
        (found,) = (pid for pid in self.host_processes() if "worker" in command(pid))
        return found

    def gateway_process(self) -> int:
        assert self.process is not None
        (found,) = (
            pid for pid in descendants(self.process.pid) if "cipherscore gateway" in command(pid)
        )
        return found


def kill_if_there(pid: int) -> None:
    """Kill a process that may be gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@contextmanager
def _hangups_heeded() -> Iterator[None]:
    """Under nohup the tests ignore SIGHUP, and what they start would, too."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
