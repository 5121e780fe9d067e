"""Files that are read again when they change, without a restart."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic

from cipherscore.errors import ConfigurationError

logger = logging.getLogger("bentoml.cipherscore")

LOOK_SECONDS = 1.0
"""How often files are looked at, at most; a change is seen by the first caller after that."""


class Watched:
    """Files that belong together, and what reads them.

    Args:
        paths: The files; symbolic links are followed, as Kubernetes exchanges secrets by them.
        read: Reads them and puts what it finds where it belongs; raises ConfigurationError or
            OSError, and leaves all as it was, when they are wrong.
    """

    def __init__(self, paths: Sequence[Path], read: Callable[[], None]) -> None:
        self._paths = paths
        self._read = read
        self._seen = _signature(paths)
        self._next_look = monotonic() + LOOK_SECONDS
        read()

    def refresh(self) -> None:
        """Read again if a file has changed; a wrong one is logged once and not used."""
        now = monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        found = _signature(self._paths)
        if found == self._seen:
            return
        self._seen = found
        try:
            self._read()
        except (ConfigurationError, OSError) as error:
            logger.error("what was read before stays in force: %s", error)  # noqa: TRY400
        else:
            logger.info("read again: %s", ", ".join(map(str, self._paths)))


def _signature(paths: Sequence[Path]) -> tuple[int, ...]:
    """Return numbers that differ once one of the files was written or replaced."""
    numbers: list[int] = []
    for path in paths:
        try:
            facts = path.stat()
        except OSError:
            numbers.append(0)
        else:
            numbers += (facts.st_mtime_ns, facts.st_size, facts.st_ino)
    return tuple(numbers)
