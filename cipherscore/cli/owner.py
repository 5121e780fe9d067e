"""``cipherscore data``, ``encrypt``, ``decrypt``: the data owner's tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cipherscore.cli.common import (
    DEFAULT_SCHEMA,
    FittedSchemaOption,
    Home,
    JsonOption,
    KeysetOption,
    PassphraseFdOption,
    PassphraseFileOption,
    SeedOption,
    err,
    note,
    out,
    progress_bar,
    show,
)

if TYPE_CHECKING:
    from cipherscore.client.sources import RawTable

SchemaOption = Annotated[str, typer.Option(help="Built-in schema name or TOML file.")]
DataOption = Annotated[
    Path | None,
    typer.Option(help="Table file, or folder with it [default: CIPHERSCORE_DATA, else the user's "
                 "cache, a download, or the embedded synthetic sample]."),
]  # fmt: skip


def data(
    schema: SchemaOption = DEFAULT_SCHEMA,
    data: DataOption = None,
    file: Annotated[Path | None, typer.Option("--out", help="Also write it as CSV with a header.")] = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Find the raw table, check every cell against the schema, and say where it came from."""
    from cipherscore.client.checking import check_table, write_csv
    from cipherscore.client.sources import find_table
    from cipherscore.schema_file import load_schema

    found = load_schema(schema)
    table = find_table(found, data, note)
    warn_if_synthetic(table)
    with progress_bar("check") as update:
        rows = check_table(table, found, lambda done: update(done, 0, {}))
    if file is not None:
        write_csv(table, found, file)
    facts = {"name": table.name, "origin": table.origin, "synthetic": table.synthetic, "rows": rows}
    show(facts, as_json, lambda: out.print(f"{rows} rows from {table.name} ({table.origin})"))


def encrypt(
    schema: SchemaOption = DEFAULT_SCHEMA,
    data: DataOption = None,
    file: Annotated[Path | None, typer.Option("--out", help="Token table [default: host/tokens.parquet].")] = None,
    fitted_schema: Annotated[
        Path | None, typer.Option(help="Where to write the schema with its fitted bins "
                                  "[default: owner/schema.toml].")
    ] = None,
    keyset: KeysetOption = None,
    passphrase_file: PassphraseFileOption = None,
    passphrase_fd: PassphraseFdOption = None,
    seed: SeedOption = 0,
    labelled: Annotated[
        bool, typer.Option("--labelled/--unlabelled", help="Whether the table has the target; "
                           "without it, for scoring only.")
    ] = True,
    draws: Annotated[
        int, typer.Option(min=1, help="Write each training row this often, each time with other "
                          "homophones; needs a schema with smoothing (docs/smoothing.md).")
    ] = 1,
    shuffle: Annotated[
        bool, typer.Option("--shuffle", help="Write rows in another order, which only the key "
                           "gives away (docs/defences.md).")
    ] = False,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Encrypt a table: bins fitted on training rows, every value replaced by its token.

    Writes the token table for the host and the fitted schema for the owner.  Equal values of a
    field give equal tokens: frequencies stay visible (docs/threat-model.md says what that leaks).
    In a field with smoothing frequent values have several tokens (docs/smoothing.md).  With
    scorecards only sums of points over all columns are encrypted (docs/scorecards.md).
    """
    from cipherscore.client.encrypt import encrypt_table
    from cipherscore.client.passphrase import load_keyset
    from cipherscore.client.sources import find_table
    from cipherscore.schema_file import load_schema, save_schema
    from cipherscore.scorecards import shape_of

    home = Home()
    planned = load_schema(schema)
    table = find_table(planned, data, note)
    warn_if_synthetic(table)
    keys = load_keyset(keyset or home.keyset, passphrase_file, passphrase_fd)
    target = file or home.tokens
    with progress_bar("encrypt") as update:
        made = encrypt_table(
            table, planned, keys, target, seed=seed, labelled=labelled, draws=draws,
            shuffle=shuffle, progress=lambda done, total: update(done, total, {}),
        )  # fmt: skip
    schema_file = fitted_schema or home.schema
    if labelled or fitted_schema:
        save_schema(made.schema, schema_file)
    facts = {"rows": made.rows, "draws": draws, "fields": len(made.schema.fields), "key_id": made.key_id,
             "origin": table.origin, "tokens": str(target), "schema": str(schema_file)}  # fmt: skip
    what = f"{len(made.schema.fields)} fields"
    if made.schema.scorecards is not None:
        count, _ = shape_of(made.schema.fields)
        what = f"{count} scorecards of {len(made.schema.inputs)} attributes"
    text = f"{made.rows} rows, {what}, key {made.key_id} -> {target}"
    show(facts, as_json, lambda: out.print(text))


def decrypt(
    tokens: Annotated[Path, typer.Argument(help="Token table (Parquet).")],
    file: Annotated[Path, typer.Option("--out", help="CSV to write (mode 0600).")],
    schema: FittedSchemaOption = None,
    keyset: KeysetOption = None,
    passphrase_file: PassphraseFileOption = None,
    passphrase_fd: PassphraseFdOption = None,
) -> None:
    """Decrypt a token table to CSV: category codes, and bins for numeric fields."""
    from cipherscore.client.encrypt import decrypt_table
    from cipherscore.client.passphrase import load_keyset
    from cipherscore.schema_file import load_schema

    home = Home()
    keys = load_keyset(keyset or home.keyset, passphrase_file, passphrase_fd)
    fitted = load_schema(schema or home.schema)
    with progress_bar("decrypt") as update:
        rows = decrypt_table(
            tokens, fitted, keys, file, lambda done, total: update(done, total, {})
        )
    out.print(f"{rows} rows -> {file}")


def warn_if_synthetic(table: RawTable) -> None:
    """Say loudly that the rows are made up."""
    if table.synthetic:
        err.print(
            "[bold yellow]NOTE: no real data was found. These rows are SYNTHETIC, made by this "
            "project's own generator;[/bold yellow] figures on them say nothing about real credit. "
            "Give the real table with --data or CIPHERSCORE_DATA."
        )
