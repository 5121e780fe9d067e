from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from cipherscore.errors import ExportError, ParityError, TrainingError
from export import classifier as exporting
from export import onnx_file, parity
from export.classifier import export_classifier
from export.onnx_file import MODEL_FILE
from export.package import package_run
from registry.store import Registry
from tests.support.token_tables import SIZES, renamed, table
from training import classifier
from training.classifier import train_classifier
from training.presets import CAPSTONE, DEFAULT

RECIPES = {
    "default": replace(DEFAULT, steps=20, members=3, hidden=(4,)),
    "capstone": replace(CAPSTONE, steps=3),
}


@pytest.fixture(scope="module", params=RECIPES)
def exported(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    dataset = table()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "classifier_preset", RECIPES.__getitem__)
        run = train_classifier(dataset, folder / "run", preset=request.param, seed=2)
    report = export_classifier(run.folder, dataset, folder / "out")
    return run, dataset, folder / "out" / MODEL_FILE, report


def test_the_export_answers_as_its_source(exported):
    _, dataset, _, report = exported
    assert report.max_abs_diff <= parity.TOLERANCE
    assert report.rows == exporting.RANDOM_ROWS + (dataset.split == 2).sum()


def test_the_file_is_one_old_enough_model(exported):
    _, _, path, _ = exported
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= 8
    assert [(entry.domain, entry.version <= 18) for entry in model.opset_import] == [("", True)]
    assert [file.name for file in path.parent.iterdir()] == [MODEL_FILE]
    assert str(Path(__file__).parents[2]).encode() not in path.read_bytes()


def test_inputs_and_outputs_are_the_documented_ones(exported):
    _, _, path, _ = exported
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,), (answered,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("indices", "tensor(int32)", ["batch", 4])
    assert (answered.name, answered.type, answered.shape) == (
        "probability", "tensor(float)", ["batch"],
    )  # fmt: skip
    for rows in (1, 7):
        unseen = np.full((rows, len(SIZES)), -1, np.int32)
        (chances,) = session.run(None, {"indices": unseen})
        assert chances.shape == (rows,)


def test_metadata_says_where_the_model_comes_from(exported):
    run, dataset, path, _ = exported
    metadata = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert metadata["model_name"] == "toy-credit-classifier"
    assert metadata["kind"] == "classifier"
    assert metadata["seed"] == "2"
    assert metadata["key_id"] == dataset.key_id
    assert metadata["schema_digest"] == dataset.schema.digest
    assert metadata["vocabulary_digest"] == run.vocabulary_digest
    assert metadata["dataset_digest"] == dataset.digest
    assert '"auc"' in metadata["metrics"]


def test_a_differing_export_is_refused_and_removed(exported, tmp_path, monkeypatch):
    run, dataset, _, _ = exported
    monkeypatch.setattr(exporting, "predict", lambda _, rows: np.full(len(rows), 0.5))
    with pytest.raises(ParityError, match="differs from its source"):
        export_classifier(run.folder, dataset, tmp_path)
    assert not (tmp_path / MODEL_FILE).exists()


def test_packaging_registers_a_verified_candidate(exported, tmp_path):
    run, dataset, _, _ = exported
    reports = []
    registry = Registry(tmp_path)
    version = package_run(run.folder, dataset, registry, report=lambda *both: reports.append(both))
    assert registry.verify(version.tag).record.threshold == run.threshold
    assert version.record.metrics["export"]["rows"] == reports[0][0].rows
    assert version.stage == "candidate"
    assert version.vocabulary() == run.vocabulary()
    with pytest.raises(ExportError, match="another table"):
        package_run(run.folder, replace(dataset, digest="0" * 64), registry)


def test_an_unfinished_run_is_not_exported(tmp_path):
    with pytest.raises(TrainingError, match="no finished training"):
        export_classifier(tmp_path, table(), tmp_path)


def test_renaming_tokens_changes_no_exported_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "classifier_preset", RECIPES.__getitem__)
    answers = []
    for name, dataset in {"plain": table(), "tokens": renamed(table(), "x")}.items():
        run = train_classifier(dataset, tmp_path / name)
        export_classifier(run.folder, dataset, tmp_path / name)
        rows = dataset.indices(run.vocabulary())
        answers += parity.run_onnx(tmp_path / name / MODEL_FILE, {"indices": rows}, ["probability"])
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-6)


@pytest.mark.parametrize(
    ("expected", "given"),
    [([0.1], [0.2]), ([0.1], [[0.1]]), ([], []), ([np.nan], [np.nan]), ([0.1], [np.inf])],
)
def test_parity_refuses(expected, given):
    with pytest.raises(ParityError):
        parity.check(np.array(expected), np.array(given))


def test_a_file_that_is_no_model_is_reported(tmp_path):
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(ExportError, match="cannot run"):
        parity.run_onnx(tmp_path / "junk.onnx", {"indices": np.zeros((1, 1))}, ["probability"])


def test_a_newer_opset_or_a_fixed_batch_is_refused(exported, tmp_path):
    run, _, path, _ = exported
    newer = onnx.load(path)
    newer.opset_import[0].version = 21
    with pytest.raises(ExportError, match="opset 21"):
        onnx_file.finish(newer, run, tmp_path / MODEL_FILE)
    fixed = onnx.load(path)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(ExportError, match="fixed number of rows"):
        onnx_file.finish(fixed, run, tmp_path / MODEL_FILE)
