"""``cipherscore keys``: create, inspect, rotate."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Annotated

import typer

from cipherscore.cli.common import (
    FittedSchemaOption,
    Home,
    JsonOption,
    KeysetOption,
    PassphraseFdOption,
    PassphraseFileOption,
    note,
    out,
    show,
)
from cipherscore.errors import KeysetError

app = typer.Typer(
    help="Keysets: create, inspect and rotate the owner's keys.", no_args_is_help=True
)


@app.command()
def create(
    keyset: KeysetOption = None,
    passphrase_file: PassphraseFileOption = None,
    passphrase_fd: PassphraseFdOption = None,
    write_passphrase: Annotated[
        Path | None,
        typer.Option(help="Make a random passphrase and write it to this new file (mode 0600). "
                     "Keep it apart from the keyset."),
    ] = None,
    force: Annotated[
        bool, typer.Option(help="Replace an existing keyset; its tokens become unreadable.")
    ] = False,
) -> None:  # fmt: skip
    """Make a keyset with one fresh master key, wrapped under a passphrase (Argon2id, AES-256-GCM).

    There is no default passphrase.  Example:

        cipherscore keys create --write-passphrase var/owner/passphrase
    """
    from cipherscore.client.keys import Keyset
    from cipherscore.client.passphrase import read_passphrase
    from cipherscore.files import write_bytes

    path = keyset or Home().keyset
    if path.exists() and not force:
        raise KeysetError(
            f"{path} exists; without it its tokens can never be read again. Use another path, "
            "`cipherscore keys rotate`, or --force"
        )
    if write_passphrase is not None:
        if write_passphrase.exists():
            raise KeysetError(f"{write_passphrase} exists; give a new file")
        passphrase = secrets.token_urlsafe(24)
        write_bytes(write_passphrase, passphrase.encode() + b"\n", mode=0o600)
    else:
        passphrase = read_passphrase(passphrase_file, passphrase_fd, confirm=True)
    made = Keyset.create()
    made.save(path, passphrase)
    out.print(f"keyset {path} with key {made.primary}")


@app.command()
def inspect(keyset: KeysetOption = None, as_json: JsonOption = False) -> None:
    """Show key ids and wrapping parameters; needs no passphrase and shows no key."""
    from cipherscore.client.keys import describe

    path = keyset or Home().keyset
    facts = describe(path)

    def human() -> None:
        for key_id in facts["key_ids"]:
            out.print(f"key {key_id}{'  primary' if key_id == facts['primary'] else ''}")
        kdf = facts["kdf"]
        out.print(
            f"wrapped with {kdf['name']}, {kdf['memory_kib'] // 1024} MiB, "
            f"{kdf['iterations']} passes, {kdf['lanes']} lanes"
        )

    show(facts, as_json, human)


@app.command()
def rotate(
    keyset: KeysetOption = None,
    schema: FittedSchemaOption = None,
    map_out: Annotated[
        Path | None, typer.Option("--map", help="Re-key map to write [default: owner/rekey-FROM-TO.json].")
    ] = None,
    passphrase_file: PassphraseFileOption = None,
    passphrase_fd: PassphraseFdOption = None,
) -> None:  # fmt: skip
    """Add a fresh primary key, and write the re-key map from old tokens to new ones.

    Give the map to the host, which applies it with `cipherscore models rekey`; the model is not
    trained again.  The map holds no value, but it links old and new tokens: remove it afterwards.
    The old key stays in the keyset, for decryption.
    """
    from cipherscore.client.encryption import FieldCipher
    from cipherscore.client.keys import KEYSET_VARIABLE
    from cipherscore.client.passphrase import open_keyset, read_passphrase
    from cipherscore.rekeymap import RekeyMap
    from cipherscore.schema_file import load_schema

    if KEYSET_VARIABLE in os.environ:
        raise KeysetError(
            f"{KEYSET_VARIABLE} is set and would stay at the old key; unset it, rotate the keyset "
            "file, and set it to the file's new content"
        )
    home = Home()
    path = keyset or home.keyset
    fitted = load_schema(schema or home.schema)
    passphrase = read_passphrase(passphrase_file, passphrase_fd)
    before = open_keyset(path, passphrase)
    after = before.rotate()
    old, new = FieldCipher(before, fitted), FieldCipher(after, fitted)
    fields = {}
    for f in fitted.fields:
        before_and_after = zip(
            old.tokens(f.name).values(), new.tokens(f.name).values(), strict=True
        )
        fields[f.name] = {
            token: renamed
            for tokens, names in before_and_after
            for token, renamed in zip(tokens, names, strict=True)
        }
    target = map_out or home.owner / f"rekey-{old.key_id}-{new.key_id}.json"
    # The map first: a keyset whose map is missing would leave the host behind.
    RekeyMap(fitted.name, old.key_id, new.key_id, fields).write(target)
    after.save(path, passphrase)
    out.print(f"new primary key {after.primary}; re-key map {target}")
    note(
        "next, on the host: cipherscore models rekey NAME --map FILE, then promote the new version"
    )
