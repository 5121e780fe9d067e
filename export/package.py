"""From a finished training to a registered version."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from cipherscore.dataset import TokenDataset
from cipherscore.errors import ExportError
from export.onnx_file import MODEL_FILE
from export.parity import ParityReport
from registry.store import Registry
from registry.version import MODEL, SCHEMA, VOCABULARY, Version, VersionRecord
from training.runs import VOCABULARY_FILE, Run

Report = Callable[[ParityReport], None]


def package_run(
    run: Path,
    dataset: TokenDataset,
    registry: Registry,
    *,
    parent: str | None = None,
    report: Report = lambda _: None,
) -> Version:
    """Export a run, check it against its source and register it as a candidate.

    Args:
        run: Folder of a finished training.
        dataset: The table it was trained on.
        registry: Where to register.
        parent: Tag of the version this one replaces, for its lineage.
        report: Told the result of the comparison.

    Raises:
        TrainingError: There is no finished training in ``run``.
        ExportError: The table is another one, or the model cannot be exported.
        ParityError: The exported model differs from its source.
        RegistryError: It cannot be stored.
    """
    facts = Run.load(run)
    if facts.dataset_digest != dataset.digest:
        raise ExportError(f"{run}: was trained on another table than the one given")
    with tempfile.TemporaryDirectory(prefix="cipherscore-export-") as temporary:
        out = Path(temporary)
        compared = _export(facts, dataset, out)
        report(compared)
        files: dict[str, Path | bytes] = {
            MODEL: out / MODEL_FILE,
            VOCABULARY: run / VOCABULARY_FILE,
            SCHEMA: (facts.schema.to_json() + "\n").encode(),
        }
        return registry.register(facts.model_name, files, _record(facts, compared, parent))


def _export(facts: Run, dataset: TokenDataset, out: Path) -> ParityReport:
    """Export by kind; each framework loads only when it is needed."""
    if facts.kind == "classifier":
        from export.classifier import export_classifier  # noqa: PLC0415

        return export_classifier(facts.folder, dataset, out)
    from export.generator import export_generator  # noqa: PLC0415

    return export_generator(facts.folder, out)


def _record(facts: Run, compared: ParityReport, parent: str | None) -> VersionRecord:
    export = {"max_abs_diff": compared.max_abs_diff, "rows": compared.rows}
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
