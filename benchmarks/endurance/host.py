"""The served process: how it is started, looked at, hurt and stopped."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.serving import servers
from benchmarks.serving.model import Files

PRECISION = "fp32"
START_SECONDS = 120.0
_NAME = "ours-native"
_BOUND = "gRPC on "
_WORKER = "worker"


class HostError(Exception):
    """The server did not do what it must; the message says what."""


@dataclass(frozen=True)
class Host:
    """A running server.

    Attributes:
        process: The parent of the workers.
        grpc: Port.
        http: Port.
        log: What it printed.
    """

    process: subprocess.Popen[bytes]
    grpc: int
    http: int
    log: Path

    def get(self, path: str) -> bytes:
        """Return the answer of a GET over HTTP.

        Raises:
            OSError: There is none.
        """
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=10) as answer:
            content: bytes = answer.read()
            return content

    def ready(self) -> bool:
        """Return whether it wants requests."""
        try:
            self.get("/readyz")
        except (urllib.error.URLError, OSError):
            return False
        return True

    def counters(self) -> dict[str, float]:
        """Return every counter, and the counts of histograms, by name and labels."""
        return counters(self.get("/metrics").decode())

    def workers(self) -> set[int]:
        """Return the worker processes."""
        return {pid for pid in children(self.process.pid) if _WORKER in command(pid)}

    def bound(self) -> int:
        """Return how often a worker has begun to serve."""
        return self.log.read_text(errors="replace").count(_BOUND)

    def terminate(self) -> tuple[int, float]:
        """Send SIGTERM; return the exit code and how long it took.

        Raises:
            HostError: It did not end.
        """
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(120)
        except subprocess.TimeoutExpired as error:
            raise HostError("the server did not end within 120 s of SIGTERM") from error
        return code, time.monotonic() - begun


@contextmanager
def serving(files: Files, core: int, scratch: Path, **settings: object) -> Iterator[Host]:
    """Run a server on one core until the block ends.

    Args:
        files: Has the registry in its ``home``.
        core: Core of all its processes.
        scratch: Folder for its log.
        settings: ``CIPHERSCORE_*`` variables, in lower case and without the prefix.

    Raises:
        HostError: It does not begin to serve.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    log = scratch / f"{_NAME}-{PRECISION}.log"
    log.unlink(missing_ok=True)
    variables = {f"CIPHERSCORE_{name.upper()}": str(value) for name, value in settings.items()}
    server = replace(servers.BY_NAME[_NAME], variables=variables)
    workers = int(str(settings.get("workers", 1)))
    with servers.started(server, PRECISION, files, core, scratch) as (running, ports):
        host = Host(running.process, ports.grpc, ports.http, log)
        _await_ready(host, workers)
        yield host


def _await_ready(host: Host, workers: int) -> None:
    end = time.monotonic() + START_SECONDS
    while not (host.ready() and host.bound() >= workers):
        if host.process.poll() is not None:
            raise HostError(f"the server ended with code {host.process.returncode}: {host.log}")
        if time.monotonic() > end:
            raise HostError(f"the server was not ready after {START_SECONDS:g} s: {host.log}")
        time.sleep(0.1)


def children(pid: int) -> list[int]:
    """Return the processes below ``pid``; those that ended and were not waited for are left out."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state != "Z":
                parents[int(folder.name)] = int(parent)
    found = [pid]
    for known in found:
        found += [child for child, parent in parents.items() if parent == known]
    return found[1:]


def command(pid: int) -> str:
    """Return a process's command line; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


_KIND = re.compile(r"# TYPE (\S+) (\S+)")


def counters(exposition: str) -> dict[str, float]:
    """Return the series of a metrics page that may only grow."""
    kinds: dict[str, str] = {}
    found = {}
    for line in exposition.splitlines():
        if line.startswith("#"):
            if kind := _KIND.match(line):
                kinds[kind[1]] = kind[2]
            continue
        series, _, value = line.rpartition(" ")
        name = series.partition("{")[0]
        base = re.sub(r"_(bucket|count|sum)$", "", name)
        kind_of = kinds.get(name) or kinds.get(name.removesuffix("_total")) or kinds.get(base)
        if kind_of in {"counter", "histogram"}:
            found[series] = float(value)
    return found


def total(found: dict[str, float], name: str, **labels: str) -> float:
    """Return the sum of a metric's series that have these labels."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(
        value
        for series, value in found.items()
        if series.partition("{")[0] == name and all(pair in series for pair in wanted)
    )


@dataclass(frozen=True)
class Usage:
    """What a process takes.

    Attributes:
        rss: Resident memory, bytes.
        pss: The same with shared pages divided among their users, bytes.
        files: Open file descriptors.
        threads: Threads.
        cpu: Processor seconds since it began.
    """

    rss: int
    pss: int
    files: int
    threads: int
    cpu: float


def usage(pid: int) -> Usage:
    """Return what a process takes now.

    Raises:
        OSError: It has ended.
    """
    proc = Path(f"/proc/{pid}")
    sizes = dict(re.findall(r"(\w+):\s+(\d+) kB", (proc / "smaps_rollup").read_text()))
    fields = (proc / "stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return Usage(
        rss=int(sizes["Rss"]) << 10,
        pss=int(sizes["Pss"]) << 10,
        files=len(os.listdir(proc / "fd")),  # noqa: PTH208 - only the number is wanted
        threads=int(fields[17]),
        cpu=ticks / os.sysconf("SC_CLK_TCK"),
    )
