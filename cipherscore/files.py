"""Writing files so that a crash leaves the old content or the new, never a part."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(target: Path, mode: int = 0o644) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; on success fsync it and rename it into place.

    ``mode`` is the permission of the finished file and of the temporary one from its first byte,
    so a secret is never readable by others for a moment.  On any exception the temporary file is
    removed and ``target`` is left as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        temporary.chmod(mode)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(target)
        _fsync_folder(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(target: Path, content: bytes, mode: int = 0o644) -> None:
    """Write ``content`` to ``target`` atomically."""
    with atomic_path(target, mode) as temporary:
        temporary.write_bytes(content)


def write_json(target: Path, content: Any, mode: int = 0o644) -> None:
    """Write ``content`` as sorted, indented JSON to ``target`` atomically."""
    write_bytes(target, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode(), mode)


def _fsync_folder(folder: Path) -> None:
    """Make a rename durable; a file system that cannot sync a folder is left alone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
