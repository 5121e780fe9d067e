"""What all commands share: where files live, how results and progress are shown."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

HOME_VARIABLE = "CIPHERSCORE_HOME"
DEFAULT_SCHEMA = "german-credit"
GRPC_ADDRESS = "127.0.0.1:50051"

MAX_LINE = 2000
"""Longest line of an error, in characters; a path can be repeated in full."""
PIPE_WIDTH = 160
"""Columns of a table when the output is no terminal."""

out = Console(
    soft_wrap=True, highlight=False, emoji=False, width=None if sys.stdout.isatty() else PIPE_WIDTH
)
err = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)


class Home:
    """Files of a project: ``owner/`` may hold keys and values, ``host/`` never does."""

    def __init__(self) -> None:
        self.root = Path(os.environ.get(HOME_VARIABLE, "var"))
        self.owner = self.root / "owner"
        self.host = self.root / "host"
        self.keyset = self.owner / "keyset.json"
        self.schema = self.owner / "schema.toml"
        self.tokens = self.host / "tokens.parquet"
        self.bentoml = Path(os.environ.get("BENTOML_HOME") or self.host / "bentoml")

    def run(self, kind: str) -> Path:
        """Return the folder of the latest training of a model kind."""
        return self.host / "runs" / kind


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
KeysetOption = Annotated[
    Path | None,
    typer.Option(
        "--keyset", help="Keyset file [default: owner/keyset.json]; CIPHERSCORE_KEYSET may hold "
        "its content instead."
    ),
]  # fmt: skip
PassphraseFileOption = Annotated[
    Path | None,
    typer.Option(help="File with the passphrase; else --passphrase-fd, CIPHERSCORE_PASSPHRASE, "
                 "or a prompt."),
]  # fmt: skip
PassphraseFdOption = Annotated[
    int | None, typer.Option(help="File descriptor to read the passphrase from.")
]
FittedSchemaOption = Annotated[
    Path | None, typer.Option("--schema", help="Fitted schema file [default: owner/schema.toml].")
]
SeedOption = Annotated[int, typer.Option(help="Same inputs and seed, same result.", min=0)]


def names(text: str | None) -> tuple[str, ...] | None:
    """Return names given with commas or spaces between them; None for none given."""
    return None if text is None else tuple(text.replace(",", " ").split())


def complain(message: str) -> None:
    """Print an error on stderr, absurdly long lines cut."""
    lines = [
        line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]}…" for line in message.split("\n")
    ]
    err.print(f"[red]error:[/red] {escape(chr(10).join(lines))}")


def note(message: str) -> None:
    """Print a remark on stderr, so that stdout stays for results."""
    err.print(escape(message), style="dim")


def show(content: Any, as_json: bool, human: Callable[[], None]) -> None:
    """Print ``content`` as JSON, or call ``human`` to print it for people."""
    if as_json:
        typer.echo(json.dumps(content, indent=2, default=str))
    else:
        human()


class Update(Protocol):
    """Moves a progress bar."""

    def __call__(self, done: int, total: int, figures: Mapping[str, float]) -> None:
        """Show that ``done`` of ``total`` (0 = unknown) is done, and ``figures`` beside it."""


@contextmanager
def progress_bar(text: str) -> Iterator[Update]:
    """Show a progress bar on stderr; yields ``update(done, total, figures)``.

    Without a terminal nothing is drawn but a line at each tenth, for logs.
    """
    columns = [
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[figures]}"),
    ]  # fmt: skip
    with Progress(*columns, console=err, disable=not err.is_terminal) as bar:
        task = bar.add_task(text, total=None, figures="")
        tenth = -1

        def update(done: int, total: int, figures: Mapping[str, float]) -> None:
            nonlocal tenth
            shown = "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
            bar.update(task, completed=done, total=total or None, figures=shown)
            now = 10 * done // total if total else 0
            if not err.is_terminal and now != tenth:
                tenth = now
                place = f"{done}/{total}" if total else f"{done}"
                err.print(f"{text} {place}  {shown}", style="dim")

        yield update
