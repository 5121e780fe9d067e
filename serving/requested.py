"""Versions loaded on a client's request, known to all workers of a server.

A request to load a version reaches one worker.  The others, and one that replaces a killed worker,
learn of it from a small file in a folder that the parent makes and that ends with it.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

from cipherscore import files
from cipherscore.errors import ConfigurationError
from registry import locking

VARIABLE = "CIPHERSCORE_LOADED"
"""Environment variable in which the parent tells its workers the folder.  Not for operators."""


def announce(environment: MutableMapping[str, str] = os.environ) -> None:
    """Make the folder, in the parent, before the workers start; it is removed at exit.

    Raises:
        ConfigurationError: There is no folder for temporary files.
    """
    try:
        folder = tempfile.mkdtemp(prefix="cipherscore-")
    except OSError as error:
        raise ConfigurationError(f"no folder for temporary files: {error}; set TMPDIR") from error
    environment[VARIABLE] = folder
    atexit.register(_remove, folder, os.getpid())


def _remove(folder: str, owner: int) -> None:
    # A fork inherits the exit handlers of its parent.
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


class Requested:
    """Tags of the versions that clients asked to load.

    Args:
        folder: Folder shared by the workers; None where there is but one process.
    """

    def __init__(self, folder: Path | None) -> None:
        self._file = None if folder is None else folder / "loaded.json"
        self._lock = None if folder is None else folder / "lock"
        self._own: frozenset[str] = frozenset()

    @classmethod
    def shared(cls) -> Requested:
        """Return what the parent announced."""
        folder = os.environ.get(VARIABLE)
        return cls(Path(folder) if folder else None)

    def tags(self) -> frozenset[str]:
        """Return the tags.

        Raises:
            OSError, ValueError: The file cannot be read.
        """
        if self._file is None:
            return self._own
        try:
            return frozenset(json.loads(self._file.read_bytes()))
        except FileNotFoundError:
            return frozenset()

    def add(self, tag: str) -> None:
        """Add ``tag``, for all workers.

        Raises:
            OSError, ValueError: The file cannot be read or written.
            RegistryError: Another worker holds it.
        """
        self._change(frozenset([tag]), frozenset())

    def remove(self, tag: str) -> None:
        """Take ``tag`` out, for all workers; raises as `add`."""
        self._change(frozenset(), frozenset([tag]))

    def _change(self, more: frozenset[str], less: frozenset[str]) -> None:
        if self._file is None or self._lock is None:
            self._own = (self._own | more) - less
            return
        with locking.exclusive(self._lock):
            files.write_json(self._file, sorted((self.tags() | more) - less))
