"""``cipherscore run``: the main job, from nothing to a served model, on one machine.

Each step is a process of its own running one of the commands above, with the passphrase given to
the owner's steps only, so that the demonstration has the same walls as a real deployment.

The classifier learns from, and scores, sums of points (docs/scorecards.md).  The generator needs
every field, and whose tokens these are, so its table and its training stay with the owner, and the
host gets the model.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from cipherscore.cli.children import Servers, Steps, host_environment
from cipherscore.cli.common import DEFAULT_SCHEMA, HOME_VARIABLE, Home, out
from cipherscore.errors import ConfigurationError
from cipherscore.files import write_bytes, write_json
from cipherscore.schema import Schema
from cipherscore.schema_file import load_schema, save_schema
from cipherscore.scorecards import DEFAULT_LEVELS, DEFAULT_VIEWS, Scorecards, planned_fields

KINDS = ("classifier", "generator")
PASSPHRASE_VARIABLE = "CIPHERSCORE_PASSPHRASE"  # noqa: S105 - a name, no secret
KEYSET_VARIABLE = "CIPHERSCORE_KEYSET"
SCORECARDS = 1
"""That the host sees by default; docs/frontier.md says why."""


def run(
    schema: Annotated[str, typer.Option(help="Built-in schema name or TOML file.")] = DEFAULT_SCHEMA,
    data: Annotated[Path | None, typer.Option(help="Raw table, file or folder (see `cipherscore data`).")] = None,
    preset: Annotated[str, typer.Option(help="Training preset: default or capstone.")] = "default",
    seed: Annotated[int, typer.Option(help="Seed of split and trainings.", min=0)] = 0,
    http_port: Annotated[int, typer.Option(help="HTTP port of the host.")] = 3000,
    grpc_port: Annotated[int, typer.Option(help="gRPC port of the host.")] = 50051,
    gateway_port: Annotated[int, typer.Option(help="HTTP port of the owner's gateway.")] = 8049,
    scorecards: Annotated[int | None, typer.Option(help="Sums of points that the host sees of an applicant (docs/scorecards.md); 0 shows it each field's token [default: 1, or 0 where the schema smooths fields].", min=0)] = None,
    again: Annotated[bool, typer.Option("--again", help="Encrypt and train again even if models are in production.")] = False,
) -> None:  # fmt: skip
    """Do it all: key, data, encrypt, train, export, register, promote, serve, score, generate.

    Stays in the foreground; Ctrl-C stops everything.  A second run serves what the registry holds.
    """
    ports = (http_port, grpc_port, gateway_port)
    for port in ports:
        _check_free(port)
    job = MainJob(Home(), Plan.of(schema, scorecards), data, preset, seed)
    started = time.monotonic()
    # A closed terminal must not leave servers behind either.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, _interrupt)
    if again or not job.ready():
        job.make_models()
        out.print(f"models ready after {time.monotonic() - started:.0f} s")
    else:
        out.print("serving the models in production (--again trains anew)")
    with Servers(job.home) as servers:
        servers.start(ports, job.models, job.secret)
        job.show_answers(f"127.0.0.1:{grpc_port}")
        out.print(f"up after {time.monotonic() - started:.0f} s")
        _show_notices(http_port)
        _show_urls(job, ports)
        servers.wait()


@dataclass(frozen=True)
class Plan:
    """What of a table the host gets to see.

    Args:
        fields: The schema in which each column is a field.
        scored: The schema that applicants are scored with; the same where there are no scorecards.
    """

    fields: Schema
    scored: Schema

    @classmethod
    def of(cls, name: str, count: int | None) -> Plan:
        """Plan with ``count`` scorecards, where the schema itself says nothing of them.

        Raises:
            SchemaError: There is no such schema, or it cannot have as many scorecards.
        """
        schema = load_schema(name)
        if schema.scorecards is not None:
            return cls(replace(schema, fields=schema.inputs, scorecards=None), schema)
        if count is None:
            smoothed = any(field.smoothing for field in schema.fields)
            count = 0 if smoothed else SCORECARDS
        if not count:
            return cls(schema, schema)
        cards = planned_fields(count, DEFAULT_LEVELS, DEFAULT_VIEWS)
        scored = replace(schema, fields=cards, scorecards=Scorecards(schema.fields))
        return cls(schema, scored)

    @property
    def apart(self) -> bool:
        """Whether the generator has a table of its own, which stays with the owner."""
        return self.scored is not self.fields


class MainJob:
    """The steps from nothing to promoted models, and the questions asked of the service."""

    def __init__(self, home: Home, plan: Plan, data: Path | None, preset: str, seed: int) -> None:
        self.home = home
        self.plan = plan
        self.data = ["--data", str(data)] if data else []
        self.preset = preset
        self.seed = str(seed)
        self.passphrase = home.owner / "passphrase"
        self.applicant = home.owner / "applicant.json"
        self.name = plan.fields.name
        self.models = {kind: f"{self.name}-{kind}" for kind in KINDS}
        self._steps = Steps()

    @property
    def secret(self) -> list[str]:
        """Options that open the keyset; none if CIPHERSCORE_PASSPHRASE does."""
        if PASSPHRASE_VARIABLE in os.environ:
            return []
        return ["--passphrase-file", str(self.passphrase)]

    def ready(self) -> bool:
        """Whether keyset, applicant, this schema fitted, and both production models are there."""
        needed = [self.home.schema, self.applicant, self.made_with]
        if not (self._has_keyset() and all(path.exists() for path in needed)):
            return False
        found = load_schema(self.home.schema)
        if found.name != self.name or len(found.fields) != len(self.plan.scored.fields):
            return False
        versions = json.loads(self._host("models", "list", "--json", capture=True))
        names = {v["model"].split(":")[0] for v in versions if v["stage"] == "production"}
        return names.issuperset(self.models.values())

    def make_models(self) -> None:
        """Key, data, encryption, both trainings, export, registration and promotion."""
        if not self._has_keyset():
            if self.secret and not self.passphrase.exists():
                write_bytes(self.passphrase, secrets.token_urlsafe(24).encode() + b"\n", 0o600)
            self._owner("keys", "create")
        self._encrypt()
        self._pick_applicant()
        with ThreadPoolExecutor(len(KINDS)) as pool:
            done = [pool.submit(self._make_model, kind) for kind in KINDS]
            try:
                for future in as_completed(done):
                    future.result()
            except BaseException:
                # Interrupted, or one failed: its checkpoint lets the other go on next time.
                self._steps.stop()
                raise

    def show_answers(self, address: str) -> None:
        """Score the applicant and draw ten synthetic ones."""
        out.print("\n[bold]One applicant of the test rows, scored on tokens:[/bold]")
        self._owner("score", str(self.applicant), "--address", address)
        out.print("\n[bold]Ten synthetic applicants, made on tokens, decrypted here:[/bold]")
        schema = ["--schema", str(self.made_with)]
        self._owner("generate", "-n", "10", "--seed", self.seed, "--address", address, *schema)

    @property
    def made_with(self) -> Path:
        """The fitted schema that reads made rows."""
        return self.home.owner / "fields.toml" if self.plan.apart else self.home.schema

    def _encrypt(self) -> None:
        """Encrypt the host's table and, where that is another one, the generator's."""
        self._encrypt_as(self.plan.scored)
        if self.plan.apart:
            apart = ["--out", str(self._own_tokens), "--fitted-schema", str(self.made_with)]
            self._encrypt_as(self.plan.fields, *apart)

    def _encrypt_as(self, schema: Schema, *more: str) -> None:
        planned = self.home.owner / "planned.toml"
        save_schema(schema, planned)
        try:
            self._owner("encrypt", "--schema", str(planned), "--seed", self.seed, *self.data, *more)
        finally:
            planned.unlink()

    @property
    def _own_tokens(self) -> Path:
        return self.home.owner / "fields.parquet"

    def _make_model(self, kind: str) -> None:
        own: list[str] = []
        train = ["train", kind, "--preset", self.preset, "--seed", self.seed]
        export = ["export", kind, "--json"]
        if kind == "generator" and self.plan.apart:
            folder = str(self.home.owner / "generator")
            own = ["--tokens", str(self._own_tokens)]
            train += ["--out", folder]
            export += ["--run", folder]
        self._host(*train, *own, label=kind)
        exported = json.loads(self._host(*export, *own, capture=True, label=kind))
        self._host("models", "promote", exported["model"], label=kind)

    def _pick_applicant(self) -> None:
        """Write the first test row's raw record, for the scoring commands shown at the end."""
        from cipherscore.client.sources import find_table, read_records
        from cipherscore.dataset import TEST, read_tokens

        row = int((read_tokens(self.home.tokens).split == TEST).argmax())
        schema = self.plan.scored
        path = Path(self.data[1]) if self.data else None
        record = read_records(find_table(schema, path), schema, [row])[0]
        del record[schema.target.name]
        write_json(self.applicant, [record], mode=0o600)

    def _has_keyset(self) -> bool:
        return KEYSET_VARIABLE in os.environ or self.home.keyset.exists()

    def _owner(self, *arguments: str) -> None:
        self._steps.run([*arguments, *self.secret], os.environ)

    def _host(self, *arguments: str, capture: bool = False, label: str = "") -> str:
        return self._steps.run(arguments, host_environment(), capture=capture, label=label)


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


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _show_notices(http_port: int) -> None:
    """Print what the service has to say, such as that a damaged model was refused."""
    url = f"http://127.0.0.1:{http_port}/v1/health"
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            notices = json.load(response)["notices"]
    except OSError:
        return
    for notice in notices:
        out.print(f"[bold yellow]NOTE: {escape(notice)}[/bold yellow]")


def _show_urls(job: MainJob, ports: tuple[int, int, int]) -> None:
    home, (http_port, grpc_port, gateway_port) = job.home, ports
    address = [] if grpc_port == 50051 else ["--address", f"127.0.0.1:{grpc_port}"]
    owner = " ".join(["", *job.secret, *address])
    made = f" --schema {job.made_with}" if job.plan.apart else ""
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
    chosen = os.environ.get(HOME_VARIABLE)
    for line in (
        *([f"export {HOME_VARIABLE}={chosen}"] if chosen else []),
        f"curl -s -d @{job.applicant} http://127.0.0.1:{gateway_port}/predictCreditRisk",
        f".venv/bin/cipherscore score {job.applicant}{owner}",
        f".venv/bin/cipherscore generate -n 5 --credit bad{owner}{made}",
        f"curl -s http://127.0.0.1:{http_port}/v1/models",
        ".venv/bin/cipherscore models list",
    ):
        out.print(f"  {escape(line)}")
