"""What every report is made of: cleaned figures, one self-contained page and a JSON file."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from cipherscore.files import write_bytes
from training.runs import code_version

Content = dict[str, Any]

ABSENT = "\u2013"
"""What stands in a table where there is no figure."""


def page_environment(package: str, **filters: Callable[..., str]) -> Environment:
    """Return the templates of a package, and of this one, with the common filters and ``filters``.

    ``style.css`` is the style of every page.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("evaluation")]),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(figure=figure, point=point, reach=reach, percent=percent, **filters)
    return environment


def write_both(page: str, content: Content, html: Path, data: Path) -> tuple[Path, Path]:
    """Write a page and its cleaned content as JSON, readable by their owner only."""
    text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"
    write_bytes(data, text.encode(), 0o600)
    write_bytes(html, page.encode(), 0o600)
    return html, data


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of everything a figure depends on."""
    found = {"python": platform.python_version(), "cipherscore": code_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def clean(value: Any) -> Any:
    """Return JSON content with floats of six digits, and null for what is no number."""
    if isinstance(value, Mapping):
        return {str(key): clean(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(entry) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def point(found: Content, digits: int = 3) -> str:
    """Return a value, or mean, without its interval."""
    value = found["value"] if "value" in found else found["mean"]
    return ABSENT if value is None else _number(value, digits)


def reach(found: Content, digits: int = 3) -> str:
    """Return an interval in brackets, empty where there is none."""
    if found["low"] is None or found["high"] is None:
        return ""
    return f"[{_number(found['low'], digits)}, {_number(found['high'], digits)}]"


def figure(found: Content, digits: int = 3) -> str:
    """Return a value, or mean, with its interval in brackets."""
    return f"{point(found, digits)} {reach(found, digits)}".strip()


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share in percent."""
    return ABSENT if value is None else f"{value:.{digits}%}"


def _number(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text if float(text) else text.removeprefix("-")
