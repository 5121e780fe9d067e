"""Other processes as Linux shows them: descendants, environment, memory."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from io import RawIOBase
from pathlib import Path

PROC = Path("/proc")
CHUNK = 1 << 20
OVERLAP = 1 << 10
"""Bytes of a chunk that are read again with the next one; longer than anything searched for."""
_UNREADABLE = ("[vvar]", "[vsyscall]", "[vvar_vclock]")


def parents() -> dict[int, int]:
    """Return the parent of every running process; zombies have ended and are left out."""
    found = {}
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            try:
                state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state != "Z":
                found[int(folder.name)] = int(parent)
    return found


def descendants(pid: int) -> list[int]:
    """Return the processes below ``pid``, nearer ones first."""
    table, found = parents(), [pid]
    for known in found:
        found += [child for child, parent in table.items() if parent == known]
    return found[1:]


def command(pid: int) -> str:
    """Return a process's command line."""
    return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode()


def environment_of(pid: int) -> bytes:
    """Return the environment a process was started with."""
    return (PROC / str(pid) / "environ").read_bytes()


def regions(pid: int) -> list[tuple[int, int, str]]:
    """Return start, end and name of the memory that a process may have written: all that is
    writable and all that belongs to no file."""
    found = []
    for line in (PROC / str(pid) / "maps").read_text().splitlines():
        span, mode, _, _, inode, *name = line.split(None, 5)
        if mode.startswith("r") and ("w" in mode or inode == "0"):
            start, end = (int(part, 16) for part in span.split("-"))
            found.append((start, end, name[0] if name else ""))
    return found


def memory(pid: int) -> Iterator[bytes]:
    """Yield that memory in overlapping chunks, leaving out those that hold only zeros."""
    with (PROC / str(pid) / "mem").open("rb", buffering=0) as stream:
        for start, end, name in regions(pid):
            if name in _UNREADABLE:
                continue
            tail = b""
            for place in range(start, end, CHUNK):
                content = _read(stream, pid, start, place, min(CHUNK, end - place))
                if content is None:
                    break  # given back while this was read
                if content.strip(b"\0"):
                    yield tail + content
                tail = content[-OVERLAP:]


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait until ``condition()`` holds; return how long it took, in seconds."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return time.monotonic() - begun


def is_free(port: int) -> bool:
    """Return whether a server could listen on the loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _read(stream: RawIOBase, pid: int, start: int, place: int, size: int) -> bytes | None:
    """Read a piece of a region, again where a heap shrank and grew meanwhile; None if it is gone."""
    for last in (False,) * 20 + (True,):
        stream.seek(place)
        try:
            return stream.read(size)
        except OSError:
            if place == start or not _still_there(pid, start, place):
                return None
            if last:
                raise
            time.sleep(0.05)
    return None


def _still_there(pid: int, start: int, place: int) -> bool:
    return any(first == start and place < end for first, end, _ in regions(pid))
