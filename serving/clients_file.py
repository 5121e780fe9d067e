"""The clients file: who may use this server, by digest of their API keys or by certificate.

::

    [[client]]
    name = "bank-a"
    scopes = ["score"]
    key_sha256 = ["9f86d0…"]                      # several while a key is being replaced
    certificates = ["gateway.bank-a.example"]
    rate_per_second = 200.0                       # these three: else the server's settings
    rate_burst = 400
    max_concurrent = 16

Keys are 256 random bits, so a plain SHA-256 is enough: nobody can guess a key from its digest, and
the server can check one in a microsecond.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from cipherscore.errors import ConfigurationError
from cipherscore.files import write_bytes
from serving.call import Scope
from serving.settings_file import parse_toml, read_text, suggestion

KEY_PREFIX = "cs_"
"""Begins every API key, so that scanners for leaked secrets can know one."""

_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
_Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_Certificate = Annotated[str, StringConstraints(min_length=1, max_length=256)]


@dataclass(frozen=True)
class Entry:
    """One client of the file; limits that are None are those of the server's settings."""

    name: _Name
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)]
    key_sha256: tuple[_Digest, ...] = ()
    certificates: tuple[_Certificate, ...] = ()
    rate_per_second: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    rate_burst: Annotated[int, Field(ge=1)] | None = None
    max_concurrent: Annotated[int, Field(ge=0)] | None = None


_ENTRY = TypeAdapter(Entry)
_KNOWN = tuple(Entry.__dataclass_fields__)


def new_key() -> str:
    """Return a fresh API key of 256 random bits."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def digest(key: str) -> str:
    """Return the SHA-256 of a key, in hex; any text has one."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def read(path: Path) -> tuple[Entry, ...]:
    """Read a clients file.

    Raises:
        ConfigurationError: It cannot be read, is no TOML, or an entry is wrong; the message says
            which and holds no digest.
    """
    return _parse(read_text(path, "clients file"), path)


def write(path: Path, entries: Iterable[Entry]) -> None:
    """Write a clients file atomically; comments in the old one are lost, its mode is kept.

    Raises:
        ConfigurationError: It would not be a clients file; nothing is written.
    """
    tables = [
        {name: value for name in _KNOWN if (value := getattr(entry, name)) not in (None, ())}
        for entry in entries
    ]
    text = tomli_w.dumps({"client": tables})
    _parse(text, path)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    write_bytes(path, text.encode(), mode)


def _parse(text: str, path: Path) -> tuple[Entry, ...]:
    content = parse_toml(text, str(path))
    unknown = next((key for key in content if key != "client"), None)
    if unknown is not None:
        raise ConfigurationError(
            f"{path}: there is no key {unknown!r}; clients are [[client]] tables"
        )
    tables = content.get("client", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigurationError(f"{path}: clients are [[client]] tables, with two brackets")
    entries = tuple(_entry(path, number, table) for number, table in enumerate(tables, 1))
    _check_unique(path, "name", (entry.name for entry in entries))
    _check_unique(path, "key_sha256", (key for entry in entries for key in entry.key_sha256))
    _check_unique(path, "certificates", (name for entry in entries for name in entry.certificates))
    return entries


def _entry(path: Path, number: int, table: dict[str, Any]) -> Entry:
    name = table.get("name")
    where = f"{path}: client {number}" + (f" ({name})" if _is_name(name) else "")
    for key, value in table.items():
        if key not in _KNOWN:
            raise ConfigurationError(f"{where}: there is no key {key!r}{suggestion(key, _KNOWN)}")
        if isinstance(value, bool):
            raise ConfigurationError(f"{where}: {key}: must not be true or false")
    try:
        return _ENTRY.validate_python(table)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise ConfigurationError(f"{where}: {first['loc'][0]}: {first['msg']}") from None


def _is_name(value: object) -> bool:
    return isinstance(value, str) and len(value) <= 64 and value.isprintable()


def _check_unique(path: Path, what: str, values: Iterable[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            shown = f" {value!r}" if what != "key_sha256" else ""
            raise ConfigurationError(f"{path}: {what}{shown} stands there twice")
        seen.add(value)
