"""Where a command finds its keyset and passphrase: option, file descriptor, environment, prompt."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path

from cipherscore.client.keys import KEYSET_VARIABLE, PASSPHRASE_VARIABLE, Keyset
from cipherscore.errors import KeysetError

MAX_SECRET_LENGTH = 4096


def read_passphrase(
    file: Path | None = None, descriptor: int | None = None, *, confirm: bool = False
) -> str:
    """Return the passphrase from ``file``, ``descriptor``, CIPHERSCORE_PASSPHRASE or a prompt.

    One trailing line end is dropped.  ``confirm`` asks twice at a prompt.

    Raises:
        KeysetError: No source is given and there is no terminal, or a source cannot be read.
    """
    if file is not None:
        try:
            return file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise KeysetError(
                f"{file}: cannot read the passphrase ({type(error).__name__})"
            ) from None
    if descriptor is not None:
        return _read_descriptor(descriptor)
    if PASSPHRASE_VARIABLE in os.environ:
        return os.environ[PASSPHRASE_VARIABLE]
    if not sys.stdin.isatty():
        raise KeysetError(
            f"no passphrase: use --passphrase-file, --passphrase-fd or {PASSPHRASE_VARIABLE}; "
            "there is no default one"
        )
    passphrase = getpass.getpass("Keyset passphrase: ")
    if confirm and getpass.getpass("The same again: ") != passphrase:
        raise KeysetError("the two passphrases differ")
    return passphrase


def load_keyset(path: Path, file: Path | None = None, descriptor: int | None = None) -> Keyset:
    """Return the keyset at ``path`` (or in CIPHERSCORE_KEYSET), opened as `read_passphrase` says.

    Raises:
        KeysetError: It cannot be read or unwrapped.
    """
    return open_keyset(path, read_passphrase(file, descriptor))


def open_keyset(path: Path, passphrase: str) -> Keyset:
    """Return the keyset whose file's content is in CIPHERSCORE_KEYSET, else the one at ``path``.

    Raises:
        KeysetError: It cannot be read or unwrapped.
    """
    if KEYSET_VARIABLE in os.environ:
        return Keyset.unwrap(os.environ[KEYSET_VARIABLE].encode(), passphrase, KEYSET_VARIABLE)
    return Keyset.load(path, passphrase)


def _read_descriptor(descriptor: int) -> str:
    try:
        with os.fdopen(os.dup(descriptor), "rb") as stream:
            return stream.read(MAX_SECRET_LENGTH).decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise KeysetError(
            f"file descriptor {descriptor}: cannot read the passphrase ({type(error).__name__})"
        ) from None
