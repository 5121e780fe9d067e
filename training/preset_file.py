"""A classifier's recipe as a TOML file: what a sweep writes and ``--preset FILE.toml`` reads."""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

import tomli_w
import tomllib

from cipherscore.errors import ConfigurationError
from cipherscore.files import write_bytes
from training.presets import ClassifierPreset

SUFFIX = ".toml"


def write_preset(preset: ClassifierPreset, path: Path) -> None:
    """Write ``preset``, whole or not at all."""
    content = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(preset).items()}
    write_bytes(path, tomli_w.dumps(content).encode())


def read_preset(path: Path) -> ClassifierPreset:
    """Read what `write_preset` wrote, perhaps edited since.

    Raises:
        ConfigurationError: The file is missing, no TOML, or an entry is missing, unknown or of the
            wrong type.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path} is no preset file: {error}") from error
    known = {field.name: field for field in fields(ClassifierPreset)}
    needed = {name for name, field in known.items() if field.default is MISSING}
    for wrong, words in (
        (content.keys() - known.keys(), "knows no"),
        (needed - content.keys(), "lacks"),
    ):
        if wrong:
            raise ConfigurationError(f"{path}: a preset {words} {', '.join(sorted(wrong))}")
    return ClassifierPreset(
        **{name: _checked(path, name, str(known[name].type), v) for name, v in content.items()}
    )


def label_of(preset: ClassifierPreset) -> str:
    """Return a name that another recipe does not have: the preset's own and a digest of it all."""
    content = json.dumps(asdict(preset), sort_keys=True).encode()
    return f"{preset.name}-{hashlib.sha256(content).hexdigest()[:8]}"


def _checked(path: Path, name: str, kind: str, value: Any) -> Any:
    """Return ``value`` as the field's type, which `ClassifierPreset` writes as a text."""
    if kind.startswith("tuple"):
        good = isinstance(value, list) and all(type(one) is int and one > 0 for one in value)
        if good and value:
            return tuple(value)
    elif kind == "float":
        if type(value) in (int, float):
            return float(value)
    elif type(value) is {"int": int, "bool": bool}.get(kind, str):
        return value
    raise ConfigurationError(f"{path}: {name} is {value!r}, not of type {kind}")
