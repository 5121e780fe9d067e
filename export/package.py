"""From a finished training to a registered version."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cipherscore.dataset import TokenDataset
from cipherscore.errors import ExportError
from export.card import model_card, read_evaluation
from export.onnx_file import MODEL_FILE
from export.parity import ParityReport
from registry.store import Registry
from registry.version import (
    CARD,
    MODEL,
    MODEL_INT8,
    REASONS,
    SCHEMA,
    VOCABULARY,
    Version,
    VersionRecord,
)
from training.runs import VOCABULARY_FILE, Run

if TYPE_CHECKING:
    from export.int8 import Quantised
    from export.reasons import Reasons

Report = Callable[[ParityReport, "Quantised | None"], None]


def package_run(
    run: Path,
    dataset: TokenDataset,
    registry: Registry,
    *,
    parent: str | None = None,
    evaluation: Path | None = None,
    report: Report = lambda *_: None,
) -> Version:
    """Export a run, check it against its source and register it as a candidate.

    Args:
        run: Folder of a finished training.
        dataset: The table it was trained on.
        registry: Where to register.
        parent: Tag of the version this one replaces, for its lineage.
        evaluation: An owner's ``report.json``, for the model card.
        report: Told the results of the comparisons: of the export, and of a classifier's int8
            variant (None for a generator).

    Raises:
        TrainingError: There is no finished training in ``run``.
        ExportError: The table or the evaluation is of another model, or it cannot be exported.
        ParityError: The exported model differs from its source.
        RegistryError: It cannot be stored.
    """
    facts = Run.load(run)
    if facts.dataset_digest != dataset.digest:
        raise ExportError(f"{run}: was trained on another table than the one given")
    evaluated = None if evaluation is None else read_evaluation(evaluation, facts)
    with tempfile.TemporaryDirectory(prefix="cipherscore-export-") as temporary:
        out = Path(temporary)
        compared = _export(facts, dataset, out)
        small = _quantise(facts, dataset, out)
        reasons = _explain(facts, dataset, out)
        report(compared, small)
        files: dict[str, Path | bytes] = {
            MODEL: out / MODEL_FILE,
            VOCABULARY: run / VOCABULARY_FILE,
            SCHEMA: (facts.schema.to_json() + "\n").encode(),
        }
        if small is not None and small.kept:
            files[MODEL_INT8] = out / MODEL_INT8
        if reasons is not None:
            files[REASONS] = out / REASONS
        record = _record(facts, compared, small, reasons, parent)
        files[CARD] = model_card(facts, record.metrics["export"], evaluated).encode()
        return registry.register(facts.model_name, files, record)


def _export(facts: Run, dataset: TokenDataset, out: Path) -> ParityReport:
    """Export by kind; each framework loads only when it is needed."""
    if facts.kind == "classifier":
        from export.classifier import export_classifier  # noqa: PLC0415

        return export_classifier(facts.folder, dataset, out)
    from export.generator import export_generator  # noqa: PLC0415

    return export_generator(facts.folder, out)


def _quantise(facts: Run, dataset: TokenDataset, out: Path) -> Quantised | None:
    """Make the int8 variant; generators have none: their answer is a choice, not a number."""
    if facts.kind != "classifier":
        return None
    from export.int8 import quantise  # noqa: PLC0415

    return quantise(out / MODEL_FILE, facts, dataset, out / MODEL_INT8)


def _explain(facts: Run, dataset: TokenDataset, out: Path) -> Reasons | None:
    """Make the reason codes' graph; generators decide nothing about anybody and have none."""
    if facts.kind != "classifier":
        return None
    from export.reasons import export_reasons  # noqa: PLC0415

    return export_reasons(facts, dataset, out / MODEL_FILE, out / REASONS)


def _record(
    facts: Run,
    compared: ParityReport,
    small: Quantised | None,
    reasons: Reasons | None,
    parent: str | None,
) -> VersionRecord:
    export: dict[str, Any] = {"max_abs_diff": compared.max_abs_diff, "rows": compared.rows}
    if small is not None:
        export["int8"] = asdict(small)
    if reasons is not None:
        export["reasons"] = asdict(reasons)
    return VersionRecord(
        kind=facts.kind,
        key_id=facts.key_id,
        dataset_digest=facts.dataset_digest,
        code_version=facts.code_version,
        preset=facts.preset,
        seed=facts.seed,
        metrics={**facts.metrics, "export": export},
        parent=parent,
        threshold=facts.threshold,
        noise_width=facts.noise_width,
        class_prior=facts.class_prior,
        schema_digest=facts.schema.digest,
        vocabulary_digest=facts.vocabulary_digest,
    )
