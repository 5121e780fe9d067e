"""A digest of the code that a result depends on: a kept result of other code is computed again."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("cipherscore", "training", "evaluation", "attacks")


@cache
def code_digest(*roots: str) -> str:
    """Return a digest of modules and of all that they import from this project.

    It is taken once in a process, which keeps the code it was started with.
    """
    digest = hashlib.sha256()
    for name, source in sorted(imported(*roots).items()):
        digest.update(name.encode() + b"\0" + source + b"\0")
    return digest.hexdigest()


def imported(*roots: str) -> dict[str, bytes]:
    """Return the sources of modules, and of all that they import from this project, by name."""
    found: dict[str, bytes] = {}
    open_names = list(roots)
    while open_names:
        name = open_names.pop()
        path = None if name in found else _path_of(name)
        if path is not None:
            found[name] = path.read_bytes()
            open_names += _names_in(found[name])
    return found


def _names_in(source: bytes) -> Iterator[str]:
    """Yield what a module imports; of ``from a import b`` both ``a`` and ``a.b``, a module or not.

    The project has absolute imports only.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _path_of(name: str) -> Path | None:
    """Return the file of a module of this project; None for anything else."""
    if name.partition(".")[0] not in PACKAGES:
        return None
    try:
        spec = find_spec(name)
    except ModuleNotFoundError:  # a name in a module that is no package
        return None
    return None if spec is None or spec.origin is None else Path(spec.origin)
