"""Audit a table from end to end: attacks, section by section, figures, report."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from attacks import report
from attacks.request import Request
from attacks.sections import Section, sections
from cipherscore.client.sources import RawTable
from cipherscore.errors import ConfigurationError
from evaluation.folds import RawData
from evaluation.page import clean, versions
from evaluation.store import Store, run
from training.progress import Progress, silent

__all__ = ["Request", "audit"]

FORMAT = 1
RESULTS_FILE = "cuts.json"
PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "tensorflow", "matplotlib")


def audit(request: Request, source: RawTable, progress: Progress = silent) -> dict[str, Any]:
    """Run the attacks asked for and write the report; return the report's content.

    Everything runs on one thread.  Interrupt it, run it again: it goes on where it stopped.

    Raises:
        ConfigurationError: There is no such section, ``out`` holds a foreign file, the schema has
            scorecards, or asks for smoothing and a section cannot do with it, or several draws are
            asked for without smoothing.
        DataError: The table cannot be used, or has too few rows.
    """
    _check_fields(request)
    chosen = _fit_for_smoothing(request, sections(request.only))
    raw = RawData.read(request.schema, source)
    if request.fresh:
        (request.out / RESULTS_FILE).unlink(missing_ok=True)
    store = Store(request.out / RESULTS_FILE)
    studies = {section.name: section.build(request, raw, store) for section in chosen}
    run([task for study in studies.values() for task in study.tasks()], store, progress)
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
        **{section.name: section.figures(studies[section.name]) for section in chosen},
    })  # fmt: skip
    content["warnings"] = report.warnings(content)
    report.write(content, request.out)
    return content


def _check_fields(request: Request) -> None:
    if request.schema.scorecards is not None:
        raise ConfigurationError(
            f"schema {request.schema.name!r} has scorecards: the attacks name what single fields "
            "hold, which it does not encrypt. Audit the table with the same schema without "
            "[scorecards]; `python -m benchmarks.scorecards` measures what sums of points give away"
        )


def _fit_for_smoothing(request: Request, chosen: Sequence[Section]) -> list[Section]:
    """Return the sections to run; where none was named, those that know homophones if need be."""
    smoothed = [field.name for field in request.schema.fields if field.smoothing]
    if request.draws > 1 and not smoothed:
        raise ConfigurationError(
            f"{request.draws} draws of schema {request.schema.name!r}, which has no smoothing, "
            "would be equal copies; add [smoothing] to the schema, or take one draw"
        )
    unfit = [section.name for section in chosen if smoothed and not section.takes_smoothing]
    if unfit and request.only is not None:
        raise ConfigurationError(
            f"field {smoothed[0]!r} is smoothed: the attacks of {', '.join(unfit)} know nothing of "
            "homophones; run them with a schema without smoothing, or --only tokens with this one"
        )
    return [section for section in chosen if section.name not in unfit]
