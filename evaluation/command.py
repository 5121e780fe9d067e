"""Evaluate a table from end to end: folds, trainings, figures, report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
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
from evaluation.imbalance import ImbalanceStudy, imbalance
from evaluation.overview import overview
from evaluation.page import clean, versions
from evaluation.peers import beside_peers, peer_figures
from evaluation.plan import Plan, plan
from evaluation.pooled import OutOfFold
from evaluation.store import Store, Task, run
from evaluation.study import Study
from evaluation.synthetic import SyntheticStudy, synthetic_rows
from training.generator_presets import DEFAULT as GENERATOR
from training.presets import classifier_preset
from training.progress import Progress, silent

FORMAT = 2
PARTS = ("classifier", "synthetic", "imbalance")
"""Parts of an evaluation; what the table looks like is always in the report."""
RESULTS_FILE = "folds.json"
PACKAGES = ("numpy", "torch", "scikit-learn", "scipy", "imbalanced-learn", "keras", "tensorflow",
            "matplotlib")  # fmt: skip

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
        only: Names of the `PARTS` to run; None for all.
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
    only: tuple[str, ...] | None = None
    command: str = ""


@dataclass(frozen=True)
class Studies:
    """What an evaluation runs; a part that was not asked for is None."""

    classifier: Study | None
    synthetic: SyntheticStudy | None
    imbalance: ImbalanceStudy | None

    def tasks(self) -> list[Task]:
        """Return all trainings, those of the classifier first."""
        parts = (self.classifier, self.synthetic, self.imbalance)
        return [task for part in parts if part is not None for task in part.tasks()]


def evaluate(request: Request, find: Find, progress: Progress = silent) -> dict[str, Any]:
    """Run the evaluation and write its report; return the report's content.

    Everything runs on one thread.  Interrupt it, run it again: it goes on where it stopped.

    Raises:
        ConfigurationError: There is no such preset, method or part, or ``out`` holds a foreign
            file.
        DataError: The table cannot be used, or has too few rows of a class.
    """
    source = find(request.schema)
    raw = RawData.read(request.schema, source)
    chosen = plan(raw.rows, quick=request.quick, repeats=request.repeats, folds=request.folds)
    if request.fresh:
        (request.out / RESULTS_FILE).unlink(missing_ok=True)
    store = Store(request.out / RESULTS_FILE)
    studies = _studies(request, raw, chosen, store, find)
    run(studies.tasks(), store, progress)
    content = clean({
        "format": FORMAT,
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": request.command,
        "settings": _settings(request, chosen),
        "source": {"name": source.name, "origin": source.origin, "synthetic": source.synthetic},
        "versions": versions(PACKAGES),
        "data": overview(raw),
        **figures(studies),
    })  # fmt: skip
    content["warnings"] = report.warnings(content)
    report.write(content, request.out)
    return dict(content)


def figures(studies: Studies) -> dict[str, Any]:
    """Return all figures of finished studies; the same results always give the same figures.

    What was not run is None; ``comparison`` and ``groups`` are the classifier's.
    """
    parts = ("classifier", "comparison", "groups", "synthetic", "imbalance")
    found: dict[str, Any] = dict.fromkeys(parts)
    if studies.classifier:
        found |= classifier_figures(studies.classifier)
    if studies.synthetic:
        found["synthetic"] = synthetic = synthetic_rows(studies.synthetic)
        peers = peer_figures(studies.synthetic.raw.schema.name)
        synthetic["peers"] = beside_peers(synthetic, peers) if peers else None
    if studies.imbalance:
        found["imbalance"] = imbalance(studies.imbalance)
    return found


def classifier_figures(study: Study) -> dict[str, Any]:
    """Return the figures of the classifier, its comparison with other methods, and its groups."""
    raw, chosen, results = study.raw, study.plan, study.results()
    main = list(results[MAIN].values())
    target = raw.schema.target
    data = OutOfFold.collect(raw.label, study.folds, results[MAIN])
    return {
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


def _studies(request: Request, raw: RawData, chosen: Plan, store: Store, find: Find) -> Studies:
    """Return the studies asked for."""
    preset = classifier_preset(request.preset)
    wanted = _known(request.only, PARTS, "part to run")
    methods = _methods(
        contestants(preset, rows=raw.rows, slow_folds=chosen.slow_folds), request, chosen
    )
    classifier = synthetic = balanced = None
    if "classifier" in wanted:
        own_bins = any(method.capstone_bins for method in methods)
        twin = capstone_schema(request.schema) if own_bins else None
        capstone = RawData.read(twin, find(twin)) if twin else None
        classifier = Study(raw, capstone, methods, chosen, request.seed, store)
    if "synthetic" in wanted:
        synthetic = SyntheticStudy(raw, chosen, GENERATOR, request.seed, store)
    if "imbalance" in wanted:
        balanced = ImbalanceStudy(raw, chosen, preset, GENERATOR, request.seed, store)
    return Studies(classifier, synthetic, balanced)


def _methods(methods: list[Contestant], request: Request, chosen: Plan) -> list[Contestant]:
    """Return the methods asked for, else those of the plan; the first one always takes part."""
    names = [method.name for method in methods[1:]]
    wanted = _known(request.methods, names, "method to compare with")
    if request.methods is None:
        wanted = [name for name in names if name not in chosen.left_out]
    return [methods[0], *(method for method in methods if method.name in wanted)]


def _known(asked: Sequence[str] | None, known: Sequence[str], what: str) -> Sequence[str]:
    """Return the names asked for, all where none are."""
    unknown = sorted(set(asked or ()).difference(known))
    if unknown:
        raise ConfigurationError(f"no {what} {shorten(unknown[0])}; there are: {', '.join(known)}")
    return known if asked is None else asked


def _settings(request: Request, chosen: Plan) -> dict[str, Any]:
    left_out = chosen.left_out if request.methods is None else ()
    return {
        "schema": request.schema.name,
        "title": request.schema.title,
        "target": request.schema.target.name,
        "preset": request.preset,
        "seed": request.seed,
        "quick": request.quick,
        "plan": asdict(chosen),
        "left_out": [name for name in left_out if name != request.preset],
        "grouped": bool(request.schema.group),
    }
