"""The quantised variant: same interface, nearly the same answers, registered only where it ranks
alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest

from cipherscore.errors import ConfigurationError
from export import int8
from export.classifier import export_classifier
from export.onnx_file import MODEL_FILE
from export.package import package_run
from registry.store import Registry
from registry.version import MODEL_INT8
from serving.models import load
from serving.providers import first_choice
from tests.support.token_tables import table
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
    export_classifier(run.folder, dataset, folder / "out")
    return run, dataset, folder / "out" / MODEL_FILE


def test_the_variant_has_the_same_interface_and_old_enough_operators(exported, tmp_path):
    run, dataset, path = exported
    found = int8.quantise(path, run, dataset, tmp_path / MODEL_INT8)
    assert found.rows > len(dataset.label)
    if not found.kept:
        pytest.skip("this toy model ranks otherwise in int8; the next test covers that case")
    model = onnx.load(tmp_path / MODEL_INT8)
    assert "MatMulInteger" in {node.op_type for node in model.graph.node}
    assert model.ir_version <= 8
    assert [(entry.domain, entry.version <= 18) for entry in model.opset_import] == [("", True)]
    full, small = (
        onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        for file in (path, tmp_path / MODEL_INT8)
    )
    assert [i.name for i in small.get_inputs()] == [i.name for i in full.get_inputs()]
    rows = np.zeros((5, len(dataset.schema.fields)), np.int32)
    expected, answered = (s.run(None, {"indices": rows})[0] for s in (full, small))
    assert np.abs(expected - answered).max() <= found.max_abs_diff + 1e-3
    metadata = {entry.key for entry in model.metadata_props}
    assert {"key_id", "vocabulary_digest"} <= metadata


def test_an_answer_does_not_depend_on_whose_rows_share_the_batch(exported, tmp_path):
    _, dataset, path = exported
    sizes = [len(column.dictionary) for column in dataset.columns.values()]
    random = np.random.default_rng(0)
    rows = np.stack([random.integers(0, size, 200) for size in sizes], axis=1).astype(np.int32)
    int8.write(path, tmp_path / MODEL_INT8, rows)
    session = onnxruntime.InferenceSession(
        str(tmp_path / MODEL_INT8), providers=["CPUExecutionProvider"]
    )
    (together,) = session.run(None, {"indices": rows})
    alone = [session.run(None, {"indices": rows[i : i + 1]})[0][0] for i in range(len(rows))]
    np.testing.assert_allclose(alone, together, atol=1e-6)
    assert together.std() > 0


@pytest.mark.parametrize(("tolerance", "kept"), [(1.0, True), (-1.0, False)])
def test_a_variant_is_registered_only_where_it_ranks_alike(
    exported, tmp_path, monkeypatch, tolerance, kept
):
    run, dataset, _ = exported
    monkeypatch.setattr(int8, "AUC_TOLERANCE", tolerance)
    reports = []
    version = package_run(
        run.folder, dataset, Registry(tmp_path), report=lambda *both: reports.append(both)
    )
    small = reports[0][1]
    assert small is not None
    assert small.kept is kept
    assert (MODEL_INT8 in version.manifest.files) is kept
    assert version.record.metrics["export"]["int8"]["kept"] is kept
    provider = first_choice("cpu")
    if kept:
        model = load(version, provider, 1, precision="int8")
        assert model.precision == "int8"
        assert model.seconds_per_row > 0
    else:
        with pytest.raises(ConfigurationError, match="no int8 variant"):
            load(version, provider, 1, precision="int8")
    assert load(version, provider, 1).precision == "fp32"
