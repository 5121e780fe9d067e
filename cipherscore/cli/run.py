"""``cipherscore run``: the main job, from nothing to a served model, on one machine.

Each step is a process of its own running one of the commands above, with the passphrase given to
the owner's steps only, so that the demonstration has the same walls as a real deployment.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from cipherscore.cli.common import DEFAULT_SCHEMA, Home, err, out
from cipherscore.errors import CipherScoreError, ConfigurationError
from cipherscore.files import write_bytes, write_json

KINDS = ("classifier", "generator")
START_TIMEOUT = 90.0
STOP_TIMEOUT = 20.0
SECRET_VARIABLES = ("CIPHERSCORE_PASSPHRASE", "CIPHERSCORE_KEYSET")


class StepFailed(CipherScoreError):
    """A step of the main job ended with an error; it has printed what went wrong."""


def run(
    schema: Annotated[str, typer.Option(help="Built-in schema name or TOML file.")] = DEFAULT_SCHEMA,
    data: Annotated[Path | None, typer.Option(help="Raw table, file or folder (see `cipherscore data`).")] = None,
    seed: Annotated[int, typer.Option(help="Seed of split and trainings.", min=0)] = 0,
    http_port: Annotated[int, typer.Option(help="HTTP port of the host.")] = 3000,
    grpc_port: Annotated[int, typer.Option(help="gRPC port of the host.")] = 50051,
    gateway_port: Annotated[int, typer.Option(help="HTTP port of the owner's gateway.")] = 8049,
    again: Annotated[bool, typer.Option("--again", help="Encrypt and train again even if models are in production.")] = False,
) -> None:  # fmt: skip
    """Do it all: key, data, encrypt, train, export, register, promote, serve, score, generate.

    Stays in the foreground; Ctrl-C stops everything.  A second run serves what the registry holds.
    """
    job = MainJob(Home(), schema, data, seed)
    for port in (http_port, grpc_port, gateway_port):
        _check_free(port)
    started = time.monotonic()
    signal.signal(signal.SIGTERM, _interrupt)
    if again or not job.ready():
        job.make_models()
        out.print(f"models ready after {time.monotonic() - started:.0f} s")
    else:
        out.print("serving the models in production (--again trains anew)")
    with Servers(job.home) as servers:
        servers.start(http_port, grpc_port, gateway_port, job)
        job.show_answers(f"127.0.0.1:{grpc_port}")
        out.print(f"up after {time.monotonic() - started:.0f} s")
        _show_urls(job.home, http_port, grpc_port, gateway_port)
        servers.wait()


class MainJob:
    """The steps from nothing to promoted models, and the questions asked of the service."""

    def __init__(self, home: Home, schema: str, data: Path | None, seed: int) -> None:
        self.home = home
        self.schema = schema
        self.data = ["--data", str(data)] if data else []
        self.seed = str(seed)
        self.passphrase = home.owner / "passphrase"
        self.applicant = home.owner / "applicant.json"

    def ready(self) -> bool:
        """Whether keyset, fitted schema, applicant and both production models are there."""
        needed = (self.home.keyset, self.home.schema, self.passphrase, self.applicant)
        if not all(path.exists() for path in needed):
            return False
        versions = json.loads(self._host("models", "list", "--json", capture=True))
        names = [v["model"].split(":")[0] for v in versions if v["stage"] == "production"]
        return all(any(name.endswith(f"-{kind}") for name in names) for kind in KINDS)

    def make_models(self) -> None:
        """Key, data, encryption, both trainings, export, registration and promotion."""
        if not self.home.keyset.exists():
            if not self.passphrase.exists():
                write_bytes(self.passphrase, secrets.token_urlsafe(24).encode() + b"\n", 0o600)
            self._owner("keys", "create")
        self._owner("encrypt", "--schema", self.schema, "--seed", self.seed, *self.data)
        self._pick_applicant()
        with ThreadPoolExecutor(len(KINDS)) as pool:
            done = [pool.submit(self._make_model, kind) for kind in KINDS]
            for future in done:
                future.result()

    def show_answers(self, address: str) -> None:
        """Score the applicant and draw ten synthetic ones."""
        out.print("\n[bold]One real applicant of the test rows, scored on tokens:[/bold]")
        self._owner("score", str(self.applicant), "--address", address)
        out.print("\n[bold]Ten synthetic applicants, made on tokens, decrypted here:[/bold]")
        self._owner("generate", "-n", "10", "--seed", self.seed, "--address", address)

    def _make_model(self, kind: str) -> None:
        self._host("train", kind, "--seed", self.seed, label=kind)
        exported = json.loads(self._host("export", kind, "--json", capture=True, label=kind))
        self._host("models", "promote", exported["model"], label=kind)

    def _pick_applicant(self) -> None:
        """Write the first test row's raw record, for the scoring commands shown at the end."""
        from cipherscore.client.sources import find_table, read_records
        from cipherscore.dataset import TEST, read_tokens
        from cipherscore.schema_file import load_schema

        row = int((read_tokens(self.home.tokens).split == TEST).argmax())
        schema = load_schema(self.schema)
        path = Path(self.data[1]) if self.data else None
        record = read_records(find_table(schema, path), schema, [row])[0]
        del record[schema.target.name]
        write_json(self.applicant, [record], mode=0o600)

    def _owner(self, *arguments: str) -> None:
        secret: tuple[str, ...] = ()
        if not os.environ.get("CIPHERSCORE_PASSPHRASE"):
            secret = ("--passphrase-file", str(self.passphrase))
        _step([*arguments, *secret], dict(os.environ))

    def _host(self, *arguments: str, capture: bool = False, label: str = "") -> str:
        return _step(list(arguments), _host_environment(), capture=capture, label=label)


class Servers:
    """The service and the gateway, as child processes that end with this one."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._children: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}

    def __enter__(self) -> Servers:  # noqa: PYI034 - Self is of 3.11
        return self

    def start(self, http_port: int, grpc_port: int, gateway_port: int, job: MainJob) -> None:
        """Start both and return when both answer.

        Raises:
            StepFailed: One ended, or did not answer in `START_TIMEOUT` seconds.
        """
        ports = ["--http-port", str(http_port), "--grpc-port", str(grpc_port)]
        self._spawn("service", ["serve", *ports], _host_environment(), self.home.host)
        secret = [] if os.environ.get("CIPHERSCORE_PASSPHRASE") else [
            "--passphrase-file", str(job.passphrase)
        ]  # fmt: skip
        ports = ["--port", str(gateway_port), "--address", f"127.0.0.1:{grpc_port}"]
        self._spawn("gateway", ["gateway", *ports, *secret], dict(os.environ), self.home.owner)
        deadline = time.monotonic() + START_TIMEOUT
        while not _answers(f"http://127.0.0.1:{gateway_port}/readyz"):
            self._check_alive()
            if time.monotonic() > deadline:
                raise StepFailed(
                    f"no answer after {START_TIMEOUT:.0f} s; see the logs in {self.home.root}"
                )
            time.sleep(0.1)

    def wait(self) -> None:
        """Stay until Ctrl-C, SIGTERM, or the end of a server."""
        try:
            while True:
                self._check_alive()
                time.sleep(0.5)
        except KeyboardInterrupt:
            out.print("stopping …")

    def __exit__(self, *_: object) -> None:
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
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
        signal.signal(signal.SIGINT, previous)
        if self._children:
            out.print("stopped")

    def _spawn(
        self, name: str, arguments: list[str], environment: dict[str, str], folder: Path
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


def _step(
    arguments: list[str], environment: dict[str, str], *, capture: bool = False, label: str = ""
) -> str:
    """Run one command; return what it printed if ``capture``, else pass it on, labelled.

    Raises:
        StepFailed: It ended with an error.
    """
    command = [sys.executable, "-m", "cipherscore", *arguments]
    if not capture:
        out.print(f"[dim]$ cipherscore {escape(' '.join(arguments))}[/dim]")
    if not label and not capture:
        code, text = subprocess.run(command, env=environment, check=False).returncode, ""  # noqa: S603
    else:
        code, text = _labelled(command, environment, capture, label)
    if code:
        raise StepFailed(f"`cipherscore {' '.join(arguments)}` ended with code {code}")
    return text


def _labelled(
    command: list[str], environment: dict[str, str], capture: bool, label: str
) -> tuple[int, str]:
    """Run a command whose lines are shown with a label in front; stdout is kept if ``capture``."""
    child = subprocess.Popen(  # noqa: S603 - our own command line
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    kept: list[str] = []

    def pump(stream: Any, use: Callable[[str], object]) -> None:
        for line in stream:
            use(line.rstrip("\n"))

    def display(line: str) -> None:
        out.print(f"[cyan]{label:<10}[/cyan] {escape(line)}" if label else escape(line))

    threads = [
        threading.Thread(target=pump, args=(child.stdout, kept.append if capture else display)),
        threading.Thread(target=pump, args=(child.stderr, display)),
    ]
    for thread in threads:
        thread.start()
    try:
        code = child.wait()
    except BaseException:
        child.terminate()
        raise
    for thread in threads:
        thread.join()
    return code, "\n".join(kept)


def _host_environment() -> dict[str, str]:
    """Return the environment of a host process: nothing that opens a keyset."""
    return {name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES}


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigurationError(
                f"port {port} cannot be used ({error.strerror}); stop what listens there or choose "
                "another (--http-port, --grpc-port, --gateway-port)"
            ) from None


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - our own loopback address
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _show_urls(home: Home, http_port: int, grpc_port: int, gateway_port: int) -> None:
    applicant = home.owner / "applicant.json"
    secret = f"--passphrase-file {home.owner / 'passphrase'}"
    address = "" if grpc_port == 50051 else f" --address 127.0.0.1:{grpc_port}"
    view = Table(box=None, show_header=False, pad_edge=False)
    view.add_row("service, HTTP", f"http://127.0.0.1:{http_port}/v1/docs")
    view.add_row(
        "service, gRPC", f"127.0.0.1:{grpc_port}  (cipherscore.v1.CipherScore, reflection on)"
    )
    view.add_row("gateway", f"http://127.0.0.1:{gateway_port}/predictCreditRisk")
    view.add_row("logs", f"{home.host / 'service.log'}  {home.owner / 'gateway.log'}")
    out.print("\n[bold]Running.[/bold]  Ctrl-C stops everything.")
    out.print(view)
    out.print("\nTry, in another terminal:")
    for line in (
        f"curl -s -d @{applicant} http://127.0.0.1:{gateway_port}/predictCreditRisk",
        f".venv/bin/cipherscore score {applicant} {secret}{address}",
        f".venv/bin/cipherscore generate -n 5 --credit bad {secret}{address}",
        f"curl -s http://127.0.0.1:{http_port}/v1/models",
        ".venv/bin/cipherscore models list",
    ):
        out.print(f"  {escape(line)}")
