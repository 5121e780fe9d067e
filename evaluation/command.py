"""Evaluate a table from end to end: folds, trainings, figures, report."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from cipherscore.client.sources import RawTable
from cipherscore.errors import ConfigurationError, shorten
from cipherscore.schema import Schema
from cipherscore.schema_file import built_in_names, load_schema
from evaluation import depth, report
from evaluation.comparison import PUBLISHED, comparison, token_cost
from evaluation.contestants import MAIN, Contestant, contestants
from evaluation.fairness import by_group
from evaluation.folds import RawData
from evaluation.overview import overview
from evaluation.plan import Plan, plan
from evaluation.pooled import OutOfFold
from evaluation.study import Store, Study
from training.presets import classifier_preset
from training.progress import Progress, silent
from training.runs import code_version

FORMAT = 1
RESULTS_FILE = "folds.json"
PACKAGES = ("numpy", "torch", "scikit-learn", "scipy", "keras", "tensorflow", "matplotlib")

Find = Callable[[Schema], RawTable]
"""Finds the table of a schema."""


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Args:
        schema: Of the table.
        preset: Name of the classifier's parameter set.
        out: Folder of the report and of the results that an interrupted evaluation goes on from.
        seed: Of folds, trainings and samples.
        quick: Whether a first look is enough.
        repeats: Repeats of the folds instead of the plan's.
        folds: Folds instead of the plan's.
        fresh: Whether to forget earlier results.
        methods: Names of the methods to compare with; None for all.
        command: The command line, for the report.
    """

    schema: Schema
    preset: str
    out: Path
    seed: int = 0
    quick: bool = False
    repeats: int | None = None
    folds: int | None = None
    fresh: bool = False
    methods: tuple[str, ...] | None = None
    command: str = ""


def evaluate(request: Request, find: Find, progress: Progress = silent) -> dict[str, Any]:
    """Run the evaluation and write its report; return the report's content.

    Everything runs on one thread.  Interrupt it, run it again: it goes on where it stopped.

    Raises:
        ConfigurationError: There is no such preset or method, or ``out`` holds a foreign file.
        DataError: The table cannot be used, or has too few rows of a class.
    """
    preset = classifier_preset(request.preset)
    source = find(request.schema)
    raw = RawData.read(request.schema, source)
    chosen = plan(raw.rows, quick=request.quick, repeats=request.repeats, folds=request.folds)
    methods = _chosen(contestants(preset, rows=raw.rows, slow_folds=chosen.slow_folds), request)
    own_bins = any(method.capstone_bins for method in methods)
    twin = capstone_schema(request.schema) if own_bins else None
    if request.fresh:
        (request.out / RESULTS_FILE).unlink(missing_ok=True)
    study = Study(
        raw, RawData.read(twin, find(twin)) if twin else None, methods, chosen, request.seed,
        Store(request.out / RESULTS_FILE),
    )  # fmt: skip
    study.run(progress)
    content = report.clean({
        "format": FORMAT,
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": request.command,
        "settings": _settings(request, chosen),
        "source": {"name": source.name, "origin": source.origin, "synthetic": source.synthetic},
        "versions": versions(),
        **figures(study),
    })  # fmt: skip
    content["warnings"] = report.warnings(content)
    report.write(content, request.out)
    return dict(content)


def figures(study: Study) -> dict[str, Any]:
    """Return all figures of a finished study; the same results always give the same figures."""
    raw, chosen, results = study.raw, study.plan, study.results()
    main = list(results[MAIN].values())
    target = raw.schema.target
    data = OutOfFold.collect(raw.label, study.folds, results[MAIN])
    return {
        "data": overview(raw),
        "classifier": {
            "bad_share": float((raw.label == 1).mean()),
            "costs": {"false_good": target.cost_false_good, "false_bad": target.cost_false_bad},
            "headline": depth.headline(main, chosen),
            "per_class": depth.per_class(main, raw.label, chosen),
            "confusion": depth.confusion(data, chosen),
            "curves": depth.curve_bands(data, target, chosen),
            "learning_curve": depth.learning_curve(study.learning(), main, chosen),
            "seeds": depth.seed_spread(study.seeds(), main, chosen),
        },
        "comparison": {
            "methods": comparison(study.methods, results, chosen),
            "published": PUBLISHED.get(raw.schema.name, ()),
            "token_cost": token_cost(results),
            "capstone_bins": study.capstone is not None,
        },
        "groups": by_group(raw, data, chosen.samples, study.seed),
    }


def capstone_schema(schema: Schema) -> Schema | None:
    """Return the built-in schema of the same fields with the capstone's bins, if there is one."""
    name = f"{schema.name}-capstone"
    if name not in built_in_names():
        return None
    found = load_schema(name)
    same = found.by_name.keys() == schema.by_name.keys() and found.target == schema.target
    return found if same else None


def versions() -> dict[str, str]:
    """Return the versions of everything a figure depends on."""
    found = {"python": platform.python_version(), "cipherscore": code_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def _chosen(methods: list[Contestant], request: Request) -> list[Contestant]:
    """Return the methods asked for; the first one always takes part."""
    if request.methods is None:
        return methods
    known = [method.name for method in methods[1:]]
    unknown = sorted(set(request.methods).difference(known))
    if unknown:
        raise ConfigurationError(
            f"no method {shorten(unknown[0])} to compare with; there are: {', '.join(known)}"
        )
    return [methods[0], *(method for method in methods if method.name in request.methods)]


def _settings(request: Request, chosen: Plan) -> dict[str, Any]:
    return {
        "schema": request.schema.name,
        "title": request.schema.title,
        "target": request.schema.target.name,
        "preset": request.preset,
        "seed": request.seed,
        "quick": request.quick,
        "plan": asdict(chosen),
        "grouped": bool(request.schema.group),
    }
