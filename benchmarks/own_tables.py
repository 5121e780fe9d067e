"""From a table's file to an answer, step by step as a user goes: wall time and peak memory.

    python -m benchmarks.own_tables --data FOLDER --out FOLDER [--table NAME ...] [--generator]

``FOLDER`` holds the public tables under the paths in `TABLES`; one that is not there is left out,
and said so.  Every step is a process of its own, ``cipherscore ...``, with seed 0 and one thread of
training.  The last one starts the host, has it score the table's first 1,000 rows over gRPC, and
stops it.  With ``--generator`` one is trained, exported and asked for 1,000 rows too.

Writes ``own_tables.json`` and ``own_tables.md``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.serving.processes import free_port
from cipherscore.files import write_bytes, write_json

CIPHERSCORE = Path(sys.executable).with_name("cipherscore")
SCORED_ROWS = 1_000
STEPS = (
    "keys", "infer", "encrypt", "train classifier", "export classifier", "promote classifier",
    "train generator", "export generator", "promote generator", "read", "serve: start", "score",
    "generate",
)  # fmt: skip
"""Names of the steps in the order of the report."""
START_SECONDS = 120.0
Figures = dict[str, float]

TABLES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "german-credit": ("german_credit/german.data", ()),
    "credit-approval": (
        "credit_approval/crx.data",
        ("--no-header", "--target", "c16", "--bad=-"),
    ),
    "adult": (
        "adult/adult.data.gz",
        ("--no-header", "--target", "c15", "--bad", "<=50K", "--protected", "c9",
         "--protected", "c10"),
    ),
    "financial-distress": (
        "financial_distress/financial_distress.csv.gz",
        ("--target", "Financial Distress", "--bad-below", "-0.5", "--group", "Company",
         "--categorical", "x80"),
    ),
    "card-fraud": ("creditcard_fraud/creditcard.csv.xz", ("--target", "Class", "--bad", "1")),
}  # fmt: skip
"""File in the folder, and what `schema infer` is told; nothing where the schema is built in."""


class StepError(Exception):
    """A step failed; the message is what it printed."""


@dataclass
class Journey:
    """One table on its way, in a home of its own.

    Args:
        home: CIPHERSCORE_HOME.
        steps: Seconds and peak megabytes of each step so far.
    """

    home: Path
    steps: dict[str, Figures] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Environment of every step."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("CIPHERSCORE_", "BENTO"))}
        secret = self.home / "passphrase"
        if not secret.exists():
            write_bytes(secret, secrets.token_urlsafe(24).encode(), 0o600)
        own = {"CIPHERSCORE_HOME": str(self.home), "CIPHERSCORE_PASSPHRASE": secret.read_text()}
        return {**clean, **own}

    def step(self, name: str, *words: str | Path) -> str:
        """Run ``cipherscore`` with ``words`` to its end; return its standard output.

        Raises:
            StepError: Its exit code is not 0.
        """
        begun = time.perf_counter()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen(
                [CIPHERSCORE, *map(str, words)], cwd=self.home, env=self.environment,
                stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            )  # fmt: skip
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self.steps[name] = {
                "seconds": time.perf_counter() - begun,
                "cpu_seconds": used.ru_utime + used.ru_stime,
                "peak_mb": used.ru_maxrss / 1024,
            }
            texts = []
            for stream in (out, err):
                stream.seek(0)
                texts.append(stream.read().decode(errors="replace"))
        if process.returncode:
            raise StepError(f"{name}: exit code {process.returncode}\n{texts[1][-2000:]}")
        return texts[0]

    def model(self, kind: str) -> dict[str, Any]:
        """Train, export and promote a model; return the figures of its training."""
        said = self.step(f"train {kind}", "train", kind, "--seed", "0", "--json")
        exported = self.step(f"export {kind}", "export", kind, "--json")
        self.step(f"promote {kind}", "models", "promote", json.loads(exported)["model"])
        metrics: dict[str, Any] = json.loads(said)["metrics"]
        return metrics

    @contextmanager
    def host(self, models: Sequence[str]) -> Iterator[str]:
        """Serve ``models`` until the block ends; gives the gRPC address."""
        http, grpc = free_port(), free_port()
        begun = time.perf_counter()
        with (self.home / "service.log").open("wb") as log:
            process = subprocess.Popen(
                [CIPHERSCORE, "serve", "--http-port", str(http), "--grpc-port", str(grpc), *models],
                cwd=self.home, env=self.environment, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            while not _ready(http):
                if process.poll() is not None or time.perf_counter() - begun > START_SECONDS:
                    raise StepError(f"serve: not ready\n{(self.home / 'service.log').read_text()}")
                time.sleep(0.1)
            self.steps["serve: start"] = {"seconds": time.perf_counter() - begun}
            yield f"127.0.0.1:{grpc}"
            self.steps["serve: start"]["peak_mb"] = _peak_of_tree(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(START_SECONDS)


def travel(name: str, file: Path, home: Path, *, generator: bool) -> dict[str, Any]:
    """Take one table from its file to answers; return the figures of each step.

    Raises:
        StepError: A step failed.
    """
    journey = Journey(home)
    _, told = TABLES[name]
    schema: str | Path = name
    journey.step("keys", "keys", "create")
    if told:
        schema = home / "own.toml"
        journey.step("infer", "schema", "infer", file, "--name", name, *told, "--out", schema)
    journey.step("encrypt", "encrypt", "--schema", schema, "--data", file, "--seed", "0")
    metrics = {"classifier": journey.model("classifier")}
    models = ["--classifier", f"{name}-classifier"]
    if generator:
        metrics["generator"] = journey.model("generator")
        models += ["--generator", f"{name}-generator"]
    rows = home / "rows.csv"
    journey.step("read", "data", "--schema", schema, "--data", file, "--out", rows)
    first = home / "first.csv"
    with rows.open(encoding="utf-8", newline="") as stream:
        first.write_text("".join(itertools.islice(stream, SCORED_ROWS + 1)), encoding="utf-8")
    with journey.host(models) as address:
        answers = journey.step("score", "score", first, "--address", address, "--json")
        scored = len(json.loads(answers))
        if generator:
            count = str(SCORED_ROWS)
            journey.step("generate", "generate", "-n", count, "--address", address, "--json")
    return {"steps": journey.steps, "metrics": metrics, "scored": scored}


def markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return seconds of each step, a row per table, with the highest peak and the test AUC."""
    taken = {step for found in results.values() for step in found["steps"]}
    names = [step for step in STEPS if step in taken]
    lines = [f"| table | {' | '.join(names)} | all steps | peak MB | test AUC |"]
    lines.append("| --- |" + " ---: |" * (len(names) + 3))
    for table, found in results.items():
        steps = found["steps"]
        cells = [f"{steps[name]['seconds']:.1f}" if name in steps else "" for name in names]
        total = sum(step["seconds"] for step in steps.values())
        peak = max(step.get("peak_mb", 0.0) for step in steps.values())
        test = found["metrics"]["classifier"]["test"]["auc"]["value"]
        lines.append(f"| {table} | {' | '.join(cells)} | {total:.0f} | {peak:,.0f} | {test:.4f} |")
    return "\n".join(lines) + "\n"


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _peak_of_tree(root: int) -> float:
    """Return the highest resident size in MB that a process at or below ``root`` has had."""
    peaks, waiting = [0.0], [root]
    while waiting:
        pid = waiting.pop()
        with suppress(OSError, IndexError):
            status = Path(f"/proc/{pid}/status").read_text()
            peaks.append(int(status.split("VmHWM:")[1].split()[0]) / 1024)
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            with suppress(OSError):
                waiting += map(int, children.read_text().split())
    return max(peaks)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    parser.add_argument("--table", action="append", choices=list(TABLES), help="default: all")
    parser.add_argument("--generator", action="store_true", help="a generator as well")
    options = parser.parse_args(arguments)
    results = {}
    for name in options.table or TABLES:
        file = (options.data / TABLES[name][0]).resolve()
        if not file.exists():
            print(f"{name}: {file} is not there, left out", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as home:
            results[name] = travel(name, file, Path(home), generator=options.generator)
        print(f"{name} done", file=sys.stderr)
    write_json(options.out / "own_tables.json", results)
    write_bytes(options.out / "own_tables.md", markdown(results).encode())
    print(markdown(results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
