"""The settings file, and where each setting came from."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from cipherscore.errors import ConfigurationError, shorten

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PREFIX = "CIPHERSCORE_"
FILE_VARIABLE = "CIPHERSCORE_SETTINGS_FILE"
"""Environment variable that names the settings file; without it none is read."""

_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class SettingsFile:
    """A settings file as it was read; without a path an empty one.

    Attributes:
        path: Where it lies.
        values: Setting to value; relative paths are made absolute from the file's folder.
        lines: Setting to its line, counted from 1.
    """

    path: Path | None
    values: dict[str, Any]
    lines: dict[str, int]

    @classmethod
    def read(cls, known: Iterable[str]) -> SettingsFile:
        """Read the file that `FILE_VARIABLE` names.

        Raises:
            ConfigurationError: It cannot be read, is no TOML, or has a key that is not ``known``.
        """
        given = os.environ.get(FILE_VARIABLE, "")
        if not given:
            return cls(None, {}, {})
        path = Path(given)
        if not path.is_absolute():
            raise ConfigurationError(
                f"{FILE_VARIABLE}: {shorten(given)} is relative; workers run in another folder, "
                "give an absolute path"
            )
        text = read_text(path, FILE_VARIABLE)
        values = parse_toml(text, str(path))
        known = list(known)
        for name, value in values.items():
            if name not in known:
                hint = suggestion(name, known)
                raise ConfigurationError(f"{path}: there is no setting {shorten(name)}{hint}")
            if isinstance(value, bool):
                raise ConfigurationError(f"{path}: {name}: no setting is true or false")
            if name.endswith("_file") and isinstance(value, str):
                values[name] = str(path.parent / value)
        return cls(path, values, _lines(text, values))


class FileSource(PydanticBaseSettingsSource):
    """Gives pydantic the values of the settings file."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        super().__init__(settings_cls)
        self._values = SettingsFile.read(settings_cls.model_fields).values

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return one value, its key, and that it needs no decoding."""
        del field
        return self._values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return all values."""
        return self._values


@dataclass(frozen=True)
class Origins:
    """Where settings come from, by name."""

    file: SettingsFile
    variables: dict[str, str]

    @classmethod
    def now(cls, known: Iterable[str]) -> Origins:
        """Look at the environment and the file it names."""
        known = list(known)
        # pydantic-settings compares names of variables in lower case.
        given = {name.lower(): name for name, value in os.environ.items() if value}
        variables = {
            name: given[variable]
            for name in known
            if (variable := f"{PREFIX}{name}".lower()) in given
        }
        return cls(SettingsFile.read(known), variables)

    def of(self, name: str) -> str:
        """Return where the value of ``name`` was set: a variable, a file with line, or default."""
        if name in self.variables:
            return f"environment variable {self.variables[name]}"
        if name in self.file.values:
            line = self.file.lines.get(name)
            return f"{self.file.path}:{line}" if line else str(self.file.path)
        return "default"

    def label(self, name: str) -> str:
        """Return what to call the setting in an error: by how it was set, or can be set."""
        if name in self.file.values and name not in self.variables:
            return f"{self.of(name)}: {name}"
        return self.variables.get(name, f"{PREFIX}{name.upper()}")


def read_text(path: Path, what: str) -> str:
    """Return a file's text.

    Raises:
        ConfigurationError: It cannot be read, is no UTF-8, or is longer than 1 MiB.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ConfigurationError(f"{what}: {path} is longer than 1 MiB")
        return content.decode()
    except OSError as error:
        raise ConfigurationError(f"{what}: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{what}: {path} is not UTF-8") from None


def parse_toml(text: str, origin: str) -> dict[str, Any]:
    """Parse TOML.

    Raises:
        ConfigurationError: It is none; the message holds nothing of the text.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigurationError(f"{origin}: nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at (line \d+, column \d+|end of document)\)", str(error))
        raise ConfigurationError(f"{origin}: not TOML{f', {place[1]}' if place else ''}") from None


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" for a misspelt ``word``, or nothing."""
    found = difflib.get_close_matches(word, list(known), 1, 0.6)
    return f"; did you mean {found[0]}?" if found else ""


def _lines(text: str, names: Iterable[str]) -> dict[str, int]:
    """Return the line of each top-level key; TOML's parser does not tell."""
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        key = re.match(r"\s*([\"']?)([A-Za-z0-9_-]+)\1\s*=", line)
        if key and key[2] in names:
            lines.setdefault(key[2], number)
    return lines
