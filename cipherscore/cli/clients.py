"""``cipherscore clients``: who may use the server, in a file of key digests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from cipherscore.cli.common import JsonOption, note, out, show
from cipherscore.errors import ConfigurationError

if TYPE_CHECKING:
    from serving.clients_file import Entry

app = typer.Typer(
    help="Clients of the server: API keys, scopes, limits.  Running servers follow the file.",
    no_args_is_help=True,
)


class ScopeName(str, Enum):
    """What a client may do."""

    SCORE = "score"
    GENERATE = "generate"
    ADMIN = "admin"


NameArgument = Annotated[str, typer.Argument(help="Name of the client, for logs and metrics.")]
FileOption = Annotated[
    Path,
    typer.Option(
        "--file", envvar="CIPHERSCORE_CLIENTS_FILE", help="Clients file; made if it is not there."
    ),
]
KeyOutOption = Annotated[
    Path | None,
    typer.Option("--key-out", help="Write the key to this new file (mode 0600), do not print it."),
]


@app.command()
def add(
    name: NameArgument,
    file: FileOption,
    scope: Annotated[list[ScopeName], typer.Option(help="What it may do; several times for several.")],
    certificate: Annotated[list[str] | None, typer.Option(help="Name in the client's certificate (mutual TLS): it then needs no key, and gets none.")] = None,
    rate: Annotated[float | None, typer.Option(help="Requests per second in one worker [default: the server's setting].", min=0)] = None,
    burst: Annotated[int | None, typer.Option(help="Requests at once [default: the server's setting].", min=1)] = None,
    concurrent: Annotated[int | None, typer.Option(help="Running requests in one worker [default: the server's setting].", min=0)] = None,
    key_out: KeyOutOption = None,
) -> None:  # fmt: skip
    """Add a client; its fresh API key is shown this once, and stored as a digest only.

    For instance:

        cipherscore clients add bank-a --scope score --file clients.toml --key-out bank-a.key
    """
    from serving.clients_file import Entry, digest

    _check_new(key_out)
    key = None if certificate else _new_key()
    with _changed(file, create=True) as entries:
        if name in entries:
            raise ConfigurationError(
                f"{file}: there is a client {name}; give it another key with `clients rotate`"
            )
        entries[name] = Entry(
            name,
            tuple(dict.fromkeys(each.value for each in scope)),
            key_sha256=() if key is None else (digest(key),),
            certificates=tuple(certificate or ()),
            rate_per_second=rate,
            rate_burst=burst,
            max_concurrent=concurrent,
        )
    note(f"{file}: {name} added")
    if key is not None:
        _hand_over(key, key_out)


@app.command()
def rotate(
    name: NameArgument,
    file: FileOption,
    now: Annotated[
        bool, typer.Option("--now", help="Have the old key refused from now on.")
    ] = False,
    key_out: KeyOutOption = None,
) -> None:
    """Give a client a fresh key; the one before stays valid until the next rotation, or --now."""
    from serving.clients_file import digest

    _check_new(key_out)
    key = _new_key()
    with _changed(file) as entries:
        entry = _existing(entries, name, file)
        kept = () if now else entry.key_sha256[-1:]
        entries[name] = replace(entry, key_sha256=(*kept, digest(key)))
    note(
        f"{file}: {name} has a new key; {'the old one is' if now else 'keys before the last are'} refused"
    )
    _hand_over(key, key_out)


@app.command()
def remove(name: NameArgument, file: FileOption) -> None:
    """Remove a client; its keys and certificates are refused from now on."""
    with _changed(file) as entries:
        _existing(entries, name, file)
        del entries[name]
    out.print(f"{name}: removed")


@app.command("list")
def list_(file: FileOption, as_json: JsonOption = False) -> None:
    """List the clients; digests of keys are cut."""
    from serving import clients_file

    entries = clients_file.read(file)

    def human() -> None:
        view = Table("client", "scopes", "keys", "certificates", "limits", box=None)
        for entry in entries:
            keys = ", ".join(f"{key[:8]}…" for key in entry.key_sha256)
            view.add_row(
                entry.name,
                ", ".join(entry.scopes),
                keys,
                ", ".join(entry.certificates),
                _limits(entry),
            )
        out.print(view if entries else "no client yet; add one with `cipherscore clients add`")

    facts = [
        {**entry.__dict__, "key_sha256": [f"{key[:8]}…" for key in entry.key_sha256]}
        for entry in entries
    ]
    show(facts, as_json, human)


@contextmanager
def _changed(file: Path, *, create: bool = False) -> Iterator[dict[str, Entry]]:
    """Yield the clients by name, and write what was made of them; others wait meanwhile."""
    from registry.locking import exclusive
    from serving import clients_file

    with exclusive(file.with_name(f".{file.name}.lock")):
        found = () if create and not file.exists() else clients_file.read(file)
        entries = {entry.name: entry for entry in found}
        yield entries
        clients_file.write(file, entries.values())


def _existing(entries: dict[str, Entry], name: str, file: Path) -> Entry:
    if name not in entries:
        known = ", ".join(entries) or "it is empty"
        raise ConfigurationError(f"{file}: there is no client {name!r}; there is: {known}")
    return entries[name]


def _new_key() -> str:
    from serving.clients_file import new_key

    return new_key()


def _check_new(key_out: Path | None) -> None:
    if key_out is not None and key_out.exists():
        raise ConfigurationError(f"{key_out} exists; give a new file")


def _hand_over(key: str, key_out: Path | None) -> None:
    """Print the key, or write it where only its user can read it."""
    from cipherscore.files import write_bytes

    if key_out is None:
        typer.echo(key)
        note("this is the only time the key is shown")
    else:
        write_bytes(key_out, f"{key}\n".encode(), mode=0o600)
        note(f"the key is in {key_out}")


def _limits(entry: Entry) -> str:
    limits = {
        "rate": entry.rate_per_second,
        "burst": entry.rate_burst,
        "concurrent": entry.max_concurrent,
    }
    return ", ".join(f"{name} {value:g}" for name, value in limits.items() if value is not None)
