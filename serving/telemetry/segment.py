"""The workers' numbers, in files that they share.

Each worker writes its own file of float64 through a memory map: counting is one addition in
memory, and a worker that is killed loses nothing, since the kernel keeps the pages.  Whichever
worker is scraped adds up all files.  A worker holds a lock on its file for as long as it lives
(flock(2): the kernel lets go of it at any kind of death); the counts of dead workers are kept in
`TOTALS`, so that no counter ever falls.

prometheus_client's own multi-process mode is not used: its directory is BentoML's, which empties
it when another server starts on the same BENTOML_HOME; it keeps the files of dead workers for ever;
and each of its additions takes a lock and several function calls.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import logging
import mmap
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

logger = logging.getLogger("bentoml.cipherscore")

VARIABLE = "CIPHERSCORE_METRICS_DIRECTORY"
"""Environment variable in which the parent tells its workers the directory.  Not for operators."""

TOTALS = "totals.json"
_LOCK = "lock"
_BYTES = 256 << 10
_SLOTS = _BYTES // 8
_SPARE = 64
"""Slots at the end that take what finds no room; nobody reads them."""

Key = tuple[str, tuple[str, ...]]
"""A family's name and the values of its labels."""
Numbers = dict[Key, list[float]]


def create_directory(environment: MutableMapping[str, str] = os.environ) -> None:
    """In the parent, before it starts workers: make the directory, remove it when it ends."""
    try:
        path = tempfile.mkdtemp(prefix="cipherscore-metrics-")
    except OSError as error:
        logger.warning("metrics are of one worker each: %s", error.strerror)
        return
    environment[VARIABLE] = path
    atexit.register(_remove, path, os.getpid())


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner:  # not in a fork
        shutil.rmtree(path, ignore_errors=True)


class Segment:
    """This worker's numbers.

    Attributes:
        values: Float64 of all series; see `slots`.

    Args:
        directory: Where the workers' files are; empty to share with nobody.
    """

    def __init__(self, directory: str = "") -> None:
        self._keys: dict[Key, int] = {}
        self._next = 0
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._directory = Path(directory) if directory else None
        self._key_file = -1
        memory: Any = bytearray(_BYTES)
        if self._directory is not None:
            try:
                memory = self._open(self._directory)
            except OSError as error:
                logger.warning("metrics are of this worker only: %s", error.strerror)
                self._directory = None
        self.values: memoryview[float] = memoryview(memory).cast("d")

    def _open(self, directory: Path) -> mmap.mmap:
        with _locked(directory):
            values = os.open(directory / f"{self._name}.values", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(values, fcntl.LOCK_EX)  # kept, as the descriptor is, until the end
        if hasattr(os, "posix_fallocate"):
            # With the room reserved, a full disk shows here and not as a SIGBUS at some addition.
            os.posix_fallocate(values, 0, _BYTES)
        else:
            os.ftruncate(values, _BYTES)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._key_file = os.open(directory / f"{self._name}.keys", flags, 0o600)
        return mmap.mmap(values, _BYTES)

    def slots(self, family: str, labels: tuple[str, ...], size: int) -> int:
        """Return the first of ``size`` slots of a series, the same for the same series.

        There is room for thousands of series; one beyond it is not exported.
        """
        key = (family, labels)
        first = self._keys.get(key)
        if first is not None:
            return first
        if self._next + size > _SLOTS - _SPARE:
            return _SLOTS - _SPARE
        first = self._keys[key] = self._next
        self._next += size
        if self._directory is not None:
            line = json.dumps([first, size, family, labels]) + "\n"
            with suppress(OSError):  # a full disk costs the series, not the request
                os.write(self._key_file, line.encode())
        return first

    def merged(self, gauges: frozenset[str], maxima: frozenset[str]) -> tuple[Numbers, list[int]]:
        """Add up the numbers of all workers.

        Args:
            gauges: Families that count for living workers only.
            maxima: Families of which the largest is taken instead of the sum.

        Returns:
            Numbers by series, and the process ids of the living workers.
        """
        own = {
            (family, labels): list(self.values[first : first + _size])
            for (family, labels), first, _size in self._series()
        }
        if self._directory is None:
            return own, [os.getpid()]
        try:
            with _locked(self._directory):
                return _merge(self._directory, self._name, own, gauges, maxima)
        except OSError as error:
            # Somebody removed the directory; what this worker counted is still right.
            logger.warning("metrics are of this worker only: %s", error.strerror)
            return own, [os.getpid()]

    def _series(self) -> Iterator[tuple[Key, int, int]]:
        firsts = list(self._keys.items())
        ends = [first for _, first in firsts[1:]] + [self._next]
        for (key, first), end in zip(firsts, ends, strict=True):
            yield key, first, end - first


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Keep other workers from adding up or folding files meanwhile."""
    lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _merge(
    directory: Path, name: str, own: Numbers, gauges: frozenset[str], maxima: frozenset[str]
) -> tuple[Numbers, list[int]]:
    total, folded = _read_totals(directory)
    found: Numbers = {}
    living, dead = [os.getpid()], []
    for path in directory.glob("*.values"):
        if path.stem == name:
            continue
        if path.stem in folded or not _alive(path):
            dead.append(path)
        else:
            living.append(int(path.stem.partition("-")[0]))
            _add(found, _read(path), maxima)
    _fold(directory, total, folded, dead, gauges)
    _add(found, own, maxima)
    _add(found, total, maxima)
    return found, living


def _alive(path: Path) -> bool:
    """Return whether the worker that writes this file still runs, by its lock."""
    file = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(file)


def _read(path: Path) -> Numbers:
    """Return the numbers of one worker's file."""
    content = path.read_bytes()
    if len(content) < _BYTES:  # it is only just starting, or had no room
        return {}
    values: memoryview[float] = memoryview(content).cast("d")
    found: Numbers = {}
    try:
        lines = path.with_suffix(".keys").read_text().split("\n")
    except FileNotFoundError:
        return {}
    for line in lines[:-1]:  # after the last line feed: nothing, or half a line
        with suppress(ValueError):  # two lines run into one where the disk was full meanwhile
            first, size, family, labels = json.loads(line)
            found[family, tuple(labels)] = list(values[first : first + size])
    return found


def _add(total: Numbers, more: Numbers, maxima: frozenset[str]) -> None:
    for key, numbers in more.items():
        known = total.get(key)
        if known is None:
            total[key] = list(numbers)
            continue
        largest = key[0] in maxima
        for position, number in enumerate(numbers):
            known[position] = max(known[position], number) if largest else known[position] + number


def _read_totals(directory: Path) -> tuple[Numbers, set[str]]:
    """Return the sums of dead workers and the names of those that are in them."""
    try:
        content = json.loads((directory / TOTALS).read_text())
    except FileNotFoundError:
        return {}, set()
    series = {(family, tuple(labels)): numbers for family, labels, numbers in content["series"]}
    return series, set(content["folded"])


def _fold(
    directory: Path, total: Numbers, folded: set[str], dead: list[Path], gauges: frozenset[str]
) -> None:
    """Add dead workers to ``total`` and remove their files.

    The names are written with the sums, in one rename: a worker killed in here can neither lose
    counts nor have them counted twice.
    """
    fresh = [path for path in dead if path.stem not in folded]
    for path in fresh:
        counted = {key: found for key, found in _read(path).items() if key[0] not in gauges}
        _add(total, counted, frozenset())
    if fresh:
        content = {
            "folded": [path.stem for path in dead],
            "series": [[family, labels, numbers] for (family, labels), numbers in total.items()],
        }
        draft = directory / f"{TOTALS}.draft"
        draft.write_text(json.dumps(content))
        draft.replace(directory / TOTALS)
    for path in dead:
        path.with_suffix(".keys").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
