"""Locks between processes, and work folders that a killed process does not leave behind.

Locks are ``flock`` locks: the kernel frees them when their holder dies, however it dies.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cipherscore.errors import RegistryError

TIMEOUT = 60.0
"""Longest wait for another writer, in seconds."""


@contextmanager
def exclusive(path: Path, timeout: float = TIMEOUT) -> Iterator[None]:
    """Hold the lock file ``path`` alone.  It is never deleted: its inode is the lock.

    Raises:
        RegistryError: Another process held it for ``timeout`` seconds.
        OSError: The file cannot be made.
    """
    with _open_lock(path) as descriptor:
        deadline = time.monotonic() + timeout
        delay = 0.001
        while not _try_lock(descriptor):
            if time.monotonic() >= deadline:
                raise RegistryError(
                    f"another process has held {path.stem!r} for {timeout:.0f} s; try again"
                )
            time.sleep(delay)
            delay = min(delay * 2, 0.05)
        yield


@contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder below ``parent`` and remove it afterwards.

    Everybody with a work folder shares a lock, so who gets the lock alone knows that all other
    folders belong to killed processes, and removes them.

    Raises:
        OSError: The folder cannot be made.
    """
    with _open_lock(parent / ".lock") as descriptor:
        if _try_lock(descriptor):
            for leftover in parent.iterdir():
                if leftover.is_dir():
                    shutil.rmtree(leftover, ignore_errors=True)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        folder = Path(tempfile.mkdtemp(dir=parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def fsync_folder(folder: Path) -> None:
    """Make the entries of ``folder`` durable.  Raises: OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Make the files in ``folder`` (flat) and its entries durable.  Raises: OSError."""
    for path in folder.iterdir():
        with path.open("rb") as written:
            os.fsync(written.fileno())
    fsync_folder(folder)


@contextmanager
def os_errors(failure: str) -> Iterator[None]:
    """Turn an `OSError` (disk full, no permission, missing source) into a `RegistryError`."""
    try:
        yield
    except OSError as error:
        raise RegistryError(f"{failure}: {error.strerror or error}") from error


@contextmanager
def _open_lock(path: Path) -> Iterator[int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
