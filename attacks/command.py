"""Audit a table from end to end: cuts, attacks, figures, report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from attacks import report
from attacks.token_study import KINDS, TokenStudy, token_tables
from cipherscore.client.sources import RawTable
from cipherscore.errors import ConfigurationError
from cipherscore.schema import Schema
from evaluation.folds import RawData
from evaluation.page import clean, versions
from evaluation.store import Store, run
from training.progress import Progress, silent

FORMAT = 1
RESULTS_FILE = "cuts.json"
LARGE_ROWS = 20_000
"""From here on a table is cut fewer times."""
PACKAGES = ("numpy", "scipy", "matplotlib")


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Args:
        schema: Of the table.
        out: Folder of the report and of the results that an interrupted audit goes on from.
        kinds: Of the attacker's samples, names of `attacks.token_study.KINDS`.
        cuts: How many times the table is cut; None for as many as its size asks for.
        seed: Of cuts and samples.
        draws: How often each row is written, where the schema asks for smoothing.
        fresh: Whether to forget earlier results.
        command: The command line, for the report.
    """

    schema: Schema
    out: Path
    kinds: Sequence[str] = tuple(KINDS)
    cuts: int | None = None
    seed: int = 0
    draws: int = 1
    fresh: bool = False
    command: str = ""


def audit(request: Request, source: RawTable, progress: Progress = silent) -> dict[str, Any]:
    """Run all attacks and write the report; return the report's content.

    Everything runs on one thread.  Interrupt it, run it again: it goes on where it stopped.

    Raises:
        ConfigurationError: ``out`` holds a foreign file, or several draws are asked for
            without smoothing.
        DataError: The table cannot be used, or has too few rows.
    """
    if request.draws > 1 and not any(field.smoothing for field in request.schema.fields):
        raise ConfigurationError(
            f"{request.draws} draws of schema {request.schema.name!r}, which has no smoothing, "
            "would be equal copies; add [smoothing] to the schema, or take one draw"
        )
    raw = RawData.read(request.schema, source)
    if request.fresh:
        (request.out / RESULTS_FILE).unlink(missing_ok=True)
    store = Store(request.out / RESULTS_FILE)
    cuts = request.cuts or (20 if raw.rows < LARGE_ROWS else 10)
    study = TokenStudy(raw, cuts, request.kinds, request.seed, store, request.draws)
    run(list(study.tasks()), store, progress)
    content: dict[str, Any] = clean({
        "format": FORMAT,
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": request.command,
        "settings": {
            "schema": request.schema.name,
            "title": request.schema.title,
            "seed": request.seed,
            "grouped": bool(request.schema.group),
        },
        "source": {"name": source.name, "origin": source.origin, "synthetic": source.synthetic},
        "versions": versions(PACKAGES),
        "rows": raw.rows,
        "tokens": token_tables(study),
    })  # fmt: skip
    content["warnings"] = report.warnings(content)
    report.write(content, request.out)
    return content
