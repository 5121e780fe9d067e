"""``cipherscore score``, ``generate``, ``gateway``: the data owner talks to the host."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from cipherscore.cli.bulk import Engine, score_table
from cipherscore.cli.common import (
    GRPC_ADDRESS,
    FittedSchemaOption,
    Home,
    JsonOption,
    KeysetOption,
    PassphraseFdOption,
    PassphraseFileOption,
    out,
    show,
)
from cipherscore.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from cipherscore.client import AsyncClient
    from cipherscore.client.sdk import Reason, Score
    from cipherscore.schema import Schema

AddressOption = Annotated[str, typer.Option(help="gRPC address of the host, HOST:PORT.")]
TlsOption = Annotated[
    Path | None, typer.Option(help="PEM file with the root certificates of a TLS host.")
]
TlsCertOption = Annotated[
    Path | None, typer.Option(help="PEM file with this client's certificate, for mutual TLS.")
]
TlsKeyOption = Annotated[
    Path | None, typer.Option(help="PEM file with the private key of --tls-cert.")
]
InsecureOption = Annotated[
    bool, typer.Option("--insecure", help="Allow plain text to another machine.")
]
ApiKeyFileOption = Annotated[
    Path | None,
    typer.Option(
        envvar="CIPHERSCORE_API_KEY_FILE",
        help="File with the API key or JWT that the host asks for; read again when it changes.",
    ),
]
DrawsOption = Annotated[
    int,
    typer.Option(
        help="With a smoothed schema: send each application under this many draws of its tokens "
        "and average the answers.",
        min=1,
        max=64,
    ),
]
ShuffleOption = Annotated[
    bool, typer.Option("--shuffle", help="Send the rows of a request in random order.")
]
PadToOption = Annotated[
    int,
    typer.Option(help="Pad each request with decoys to a multiple of so many rows, and shuffle it "
                 "(docs/defences.md).", min=0),
]  # fmt: skip
DecoysOption = Annotated[
    Path | None,
    typer.Option(help="JSON, CSV or Parquet file of applications to pad with, as many as will be "
                 "needed; of values that the training rows have."),
]  # fmt: skip


def score(
    records: Annotated[str, typer.Argument(help="JSON (one record or a list), CSV or Parquet file, - for JSON from stdin; with another engine than remote, a token table.")],
    engine: Annotated[Engine, typer.Option(help="remote encrypts here and asks the host; local and ray score a token table, on the host side.")] = Engine.REMOTE,
    target: Annotated[Path | None, typer.Option("--out", help="Folder of the answers (local, ray).")] = None,
    model: Annotated[str | None, typer.Option(help="name:version (local, ray) [default: the classifier in production].")] = None,
    precision: Annotated[str, typer.Option(help="fp32 or int8 (local, ray).")] = "fp32",
    device: Annotated[str, typer.Option(help="auto, strict or cpu (local, ray).")] = "auto",
    reasons: Annotated[int, typer.Option(help="Name for each application the fields that contribute most towards bad credit, this many (remote).", min=0)] = 0,
    draws: DrawsOption = 1,
    address: AddressOption = GRPC_ADDRESS,
    schema: FittedSchemaOption = None,
    keyset: KeysetOption = None,
    passphrase_file: PassphraseFileOption = None,
    passphrase_fd: PassphraseFdOption = None,
    tls_root: TlsOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    api_key_file: ApiKeyFileOption = None,
    insecure: InsecureOption = False,
    shuffle: ShuffleOption = False,
    pad_to: PadToOption = 0,
    decoys: DecoysOption = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Encrypt applications here, have them scored by the host, and print the answers.

    With --engine local or ray: score a whole token table where it lies, without a server.
    """
    if engine is not Engine.REMOTE:
        if reasons:
            raise ConfigurationError(
                "--reasons: the owner's side names what is in a token table; use --engine remote"
            )
        if draws > 1:
            raise ConfigurationError(
                "--draws: the tokens of a token table are drawn already; use --engine remote"
            )
        if shuffle or pad_to or decoys:
            raise ConfigurationError(
                "--shuffle, --pad-to and --decoys hide requests from a host; use --engine remote"
            )
        score_table(Path(records), target, engine, model, precision, device, as_json=as_json)
        return
    from cipherscore.client import Client

    settings = _connection(schema, keyset, passphrase_file, passphrase_fd)
    settings |= _way(tls_root, tls_cert, tls_key, api_key_file, insecure)
    settings |= _disguise(settings["schema"], shuffle, pad_to, decoys)
    with Client(address=address, **settings) as client:
        rows = _read_rows(records, client.schema)
        scores = client.score(rows, reasons=reasons, draws=draws)

    def human() -> None:
        view = Table("row", "probability of bad credit", "decision", box=None)
        if reasons:
            view.add_column("reasons, in log-odds towards bad credit")
        for row, answer in enumerate(scores):
            why = [escape(_in_words(reason)) for reason in answer.reasons]
            cells = [str(row), f"{answer.probability:.4f}", answer.decision]
            view.add_row(*cells, *(["\n".join(why)] if reasons else []))
        out.print(view)
        out.print(f"model {scores[0].model}")

    show([_as_facts(answer) for answer in scores], as_json, human)


def _in_words(reason: Reason) -> str:
    """Return a reason as a line for people."""
    about = reason.description or reason.field
    return f"{reason.contribution:+.3f}  {about}: {reason.meaning}"


def _as_facts(answer: Score) -> dict[str, Any]:
    """Return an answer for scripts; without reasons as it was before there were any."""
    facts = asdict(answer)
    if not answer.reasons:
        del facts["reasons"]
    return facts


def generate(
    count: Annotated[int, typer.Option("-n", "--count", help="Rows to make.", min=1)] = 10,
    credit: Annotated[
        str, typer.Option(help="good, bad, or any: as often as in the training rows.")
    ] = "any",
    seed: Annotated[int | None, typer.Option(help="Same seed and model, same rows.", min=0)] = None,
    address: AddressOption = GRPC_ADDRESS,
    schema: FittedSchemaOption = None,
    keyset: KeysetOption = None,
    passphrase_file: PassphraseFileOption = None,
    passphrase_fd: PassphraseFdOption = None,
    tls_root: TlsOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    api_key_file: ApiKeyFileOption = None,
    insecure: InsecureOption = False,
    as_json: JsonOption = False,
) -> None:
    """Have the host make synthetic encrypted rows; decrypt them here and print them as CSV."""
    import csv

    from cipherscore.client import Client

    classes = {"any": None, "good": False, "bad": True}
    if credit not in classes:
        raise typer.BadParameter(f"{credit!r} is not one of any, good, bad", param_hint="--credit")
    settings = _connection(schema, keyset, passphrase_file, passphrase_fd)
    settings |= _way(tls_root, tls_cert, tls_key, api_key_file, insecure)
    with Client(address=address, **settings) as client:
        rows = client.generate(count, bad_credit=classes[credit], seed=seed)

    def human() -> None:
        writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

    show(rows, as_json, human)


def gateway(
    host: Annotated[
        str, typer.Option(help="Address to listen on; raw values arrive here in clear text.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8049,
    draws: DrawsOption = 1,
    address: AddressOption = GRPC_ADDRESS,
    schema: FittedSchemaOption = None,
    keyset: KeysetOption = None,
    passphrase_file: PassphraseFileOption = None,
    passphrase_fd: PassphraseFdOption = None,
    tls_root: TlsOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    api_key_file: ApiKeyFileOption = None,
    insecure: InsecureOption = False,
    shuffle: ShuffleOption = False,
    pad_to: PadToOption = 0,
    decoys: DecoysOption = None,
) -> None:
    """Serve POST /predictCreditRisk on the owner's side: raw records in, [[1],[2],…] out."""
    import asyncio

    from cipherscore.client import AsyncClient
    from cipherscore.client.averaging import check_draws
    from cipherscore.client.gateway.server import create_server

    settings = _connection(schema, keyset, passphrase_file, passphrase_fd)
    settings |= _way(tls_root, tls_cert, tls_key, api_key_file, insecure)
    settings |= _disguise(settings["schema"], shuffle, pad_to, decoys)

    async def listen() -> bool:
        client: AsyncClient = AsyncClient(address=address, **settings)
        check_draws(client.schema, draws)
        server = create_server(client, host, port, draws=draws)
        out.print(f"gateway http://{host}:{port}/predictCreditRisk -> host {address}")
        await server.serve()
        return server.started

    if not asyncio.run(listen()):
        raise typer.Exit(1)


def _connection(
    schema: Path | None,
    keyset: Path | None,
    passphrase_file: Path | None,
    passphrase_fd: int | None,
) -> dict[str, Any]:
    """Return what `Client` and `AsyncClient` need of keys and schema, the keyset opened."""
    from cipherscore.client.passphrase import load_keyset

    home = Home()
    return {
        "keyset": load_keyset(keyset or home.keyset, passphrase_file, passphrase_fd),
        "schema": schema or home.schema,
    }


def _way(
    root: Path | None,
    certificate: Path | None,
    private_key: Path | None,
    api_key_file: Path | None,
    insecure: bool,
) -> dict[str, Any]:
    """Return what they need to reach the host."""
    from cipherscore.client import Tls

    files = (root, certificate, private_key)
    return {
        "tls": Tls(*files) if any(files) else None,
        "insecure": insecure,
        "api_key": api_key_file,
    }


def _disguise(
    schema: Path | str, shuffle: bool, pad_to: int, decoys: Path | None
) -> dict[str, Any]:
    """Return what they need to hide order and number of rows."""
    from cipherscore.schema_file import load_schema

    rows = None if decoys is None else _read_rows(str(decoys), load_schema(schema))
    return {"shuffle": shuffle, "pad_to": pad_to, "decoys": rows}


def _read_rows(source: str, schema: Schema) -> Any:
    """Read raw records: JSON as it is, a CSV or Parquet file as an Arrow table."""
    path = Path(source)
    if source != "-" and path.suffix != ".json":
        import pyarrow as pa

        from cipherscore.client.sources import find_table

        batches = list(find_table(schema, path).batches())
        if not batches:
            raise DataError(f"{source}: the table has no row")
        return pa.Table.from_batches(batches)
    try:
        text = sys.stdin.read() if source == "-" else path.read_text(encoding="utf-8")
        content = json.loads(text)
    except FileNotFoundError:
        raise ConfigurationError(
            f"{source}: no such file; give a JSON, CSV or Parquet file, or - for JSON from stdin"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source}: not JSON ({type(error).__name__})") from None
    rows = [content] if isinstance(content, dict) else content
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{source}: give one record or a list of records, each an object")
    return rows
