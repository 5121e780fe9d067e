"""Real servers under load for long, under too much of it, killed, and told to end.

.venv/bin/python -m benchmarks.endurance soak --minutes 30 --out var/endurance
.venv/bin/python -m benchmarks.endurance all --out var/endurance
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.endurance import drain as draining
from benchmarks.endurance import generation, questions
from benchmarks.endurance import kill as killing
from benchmarks.endurance import overload as overloading
from benchmarks.endurance import soak as soaking
from benchmarks.endurance.results import Result
from benchmarks.serving import machine

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)

Out = Annotated[Path, typer.Option(help="Folder for models, logs and results.")]
ServerCore = Annotated[int, typer.Option(help="Core of the server.")]
ClientCore = Annotated[int, typer.Option(help="Core of the clients.")]
Minutes = Annotated[int, typer.Option(min=1, help="Length in minutes.")]
Requests = Annotated[
    int, typer.Option(min=0, help="Send so many requests as fast as can be instead of soaking.")
]
Seconds = Annotated[float, typer.Option(help="Length of each level of load.")]
Kills = Annotated[int, typer.Option(min=1, help="Workers to kill.")]
Rows = Annotated[int, typer.Option(min=1000, help="Synthetic rows of one stream.")]
Times = Annotated[int, typer.Option(min=1, help="Servers to end.")]


@dataclass(frozen=True)
class _Place:
    out: Path
    server_core: int
    client_core: int

    def prepare(self) -> None:
        """Move to the clients' core; look for what is needed."""
        for tool in ("h2load", "taskset", "setpriv"):
            if not shutil.which(tool):
                raise typer.BadParameter(f"{tool} is needed")
        self.out.mkdir(parents=True, exist_ok=True)
        os.sched_setaffinity(0, {self.client_core})

    def end(self, results: Sequence[Result]) -> None:
        """Write the results; exit with 1 if one is not good enough."""
        facts = machine.facts(self.server_core, self.client_core)
        for result in results:
            result.save(self.out, facts)
        if not all(result.passed for result in results):
            raise typer.Exit(1)

    def kill(self, kills: int) -> Result:
        """Kill workers."""
        files = questions.models(self.out / "model")
        return killing.run(
            files, questions.make(files), self.out / "scratch", kills, self.server_core
        )

    def drain(self, times: int) -> Result:
        """End servers."""
        files = questions.models(self.out / "model")
        return draining.run(
            files, questions.make(files), self.out / "scratch", times, self.server_core
        )

    def soak(self, minutes: int) -> Result:
        """Load a server for long."""
        return soaking.soak(self.out, minutes, self.server_core, self.client_core)

    def million(self, requests: int) -> Result:
        """Send many requests."""
        return soaking.million(self.out, requests, self.server_core, self.client_core)

    def generate(self, rows: int) -> Result:
        """Have many rows generated."""
        return generation.run(self.out, rows, self.server_core)

    def overload(self, seconds: float) -> Result:
        """Ask for too much."""
        return overloading.run(self.out, self.server_core, self.client_core, seconds)


def _place(out: Path, server_core: int, client_core: int) -> _Place:
    place = _Place(out.resolve(), server_core, client_core)
    place.prepare()
    return place


@app.command()
def soak(
    out: Out, minutes: Minutes = 30, requests: Requests = 0, server_core: ServerCore = 0,
    client_core: ClientCore = 1,
) -> None:  # fmt: skip
    """Half of the measured peak for long: memory, files, errors, p99."""
    place = _place(out, server_core, client_core)
    place.end([place.million(requests) if requests else place.soak(minutes)])


@app.command()
def overload(
    out: Out, seconds: Seconds = 10.0, server_core: ServerCore = 0, client_core: ClientCore = 1
) -> None:
    """1x to 4x of the peak, open loop: who is refused, how are the others served."""
    place = _place(out, server_core, client_core)
    place.end([place.overload(seconds)])


@app.command()
def kill(
    out: Out, kills: Kills = 20, server_core: ServerCore = 0, client_core: ClientCore = 1
) -> None:
    """SIGKILL to workers under checked load."""
    place = _place(out, server_core, client_core)
    place.end([place.kill(kills)])


@app.command()
def drain(
    out: Out, times: Times = 20, server_core: ServerCore = 0, client_core: ClientCore = 1
) -> None:
    """SIGTERM to servers under checked load."""
    place = _place(out, server_core, client_core)
    place.end([place.drain(times)])


@app.command()
def generate(
    out: Out, rows: Rows = 1_000_000, server_core: ServerCore = 0, client_core: ClientCore = 1
) -> None:
    """Many synthetic rows in one stream: memory."""
    place = _place(out, server_core, client_core)
    place.end([place.generate(rows)])


@app.command(name="all")
def everything(
    out: Out, minutes: Minutes = 30, requests: Requests = 1_000_000, seconds: Seconds = 10.0,
    kills: Kills = 20, times: Times = 20, rows: Rows = 1_000_000, server_core: ServerCore = 0,
    client_core: ClientCore = 1,
) -> None:  # fmt: skip
    """Everything, one after the other; about an hour."""
    place = _place(out, server_core, client_core)
    runs = (
        lambda: place.overload(seconds),
        lambda: place.kill(kills),
        lambda: place.drain(times),
        lambda: place.generate(rows),
        lambda: place.million(requests),
        lambda: place.soak(minutes),
    )
    results = []
    facts = machine.facts(server_core, client_core)
    for run in runs:
        results.append(run())
        results[-1].save(place.out, facts)  # at once, so that an end before time loses nothing
    if not all(result.passed for result in results):
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
