"""``cipherscore score --engine local|ray``: whole token tables, scored on the host side."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from cipherscore.cli.common import Home, out, progress_bar, show
from cipherscore.errors import ConfigurationError

if TYPE_CHECKING:
    from registry import Registry


class Engine(str, Enum):
    """What scores."""

    REMOTE = "remote"
    LOCAL = "local"
    RAY = "ray"


def score_table(
    table: Path,
    target: Path | None,
    engine: Engine,
    model: str | None,
    precision: str,
    device: str,
    *,
    as_json: bool,
) -> None:
    """Score a token table into a folder of Parquet parts; go on where an earlier run ended."""
    from registry import Registry
    from registry.version import CLASSIFIER
    from serving.bulk.engines import run_local, run_ray
    from serving.bulk.job import Job

    if target is None:
        raise ConfigurationError(f"--engine {engine.value} needs --out FOLDER")
    # The parts open the registry themselves, perhaps in other processes.
    os.environ.setdefault("BENTOML_HOME", str(Home().bentoml))
    registry = Registry()
    chosen = model or _only_classifier(registry, CLASSIFIER)
    job = Job.of(table, registry.get(chosen).tag, precision)
    missing = job.begin(target)
    total = sum(part.rows for part in job.parts())
    done = total - sum(part.rows for part in missing)
    run = {Engine.LOCAL: run_local, Engine.RAY: run_ray}[engine]
    with progress_bar("score") as update:

        def progress(rows: int) -> None:
            nonlocal done
            done += rows
            update(done, total, {})

        if missing:
            run(job, target, missing, device, progress)
    facts = {"model": job.model, "precision": job.precision, "rows": total, "out": str(target)}
    show(facts, as_json, lambda: out.print(f"{total} rows scored by {job.model} into {target}"))


def _only_classifier(registry: Registry, kind: str) -> str:
    """Return the name of the one model of ``kind`` with a version in production."""
    names = [
        name
        for name in registry.names()
        if any(v.stage == "production" and v.record.kind == kind for v in registry.versions(name))
    ]
    if len(names) != 1:
        raise ConfigurationError(
            f"{len(names)} classifiers are in production ({', '.join(names) or 'none'}); "
            "choose one with --model"
        )
    return names[0]
