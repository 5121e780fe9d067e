"""The exported reason codes: as exact as float32 is, complete, registered and re-keyed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from cipherscore.errors import ParityError
from cipherscore.rekeymap import RekeyMap
from export import parity
from export import reasons as exporting
from export.classifier import export_classifier
from export.package import package_run
from export.reasons import CONTRIBUTION, export_reasons, to_onnx
from export.rekey import rekey
from registry.store import Registry
from registry.version import MODEL, REASONS
from tests.support.ensembles import drawn, made
from tests.support.models import token
from tests.support.token_tables import SIZES, renamed, table
from training import classifier
from training.attribution import OneHiddenLayer, mean_row
from training.classifier import load_network, train_classifier
from training.presets import CAPSTONE, DEFAULT

RECIPES = {
    "default": replace(DEFAULT, steps=40, members=3, hidden=(4,)),
    "capstone": replace(CAPSTONE, steps=3),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reasons")
    dataset = table()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "classifier_preset", RECIPES.__getitem__)
        runs = {name: train_classifier(dataset, folder / name, preset=name) for name in RECIPES}
    export_classifier(runs["default"].folder, dataset, folder)
    return runs, dataset, folder / MODEL


def metadata(content) -> dict[str, str]:
    return {entry.key: entry.value for entry in content.metadata_props}


def test_the_graph_is_as_exact_as_float32_and_complete(trained, tmp_path):
    runs, dataset, model = trained
    report = export_reasons(runs["default"], dataset, model, tmp_path / REASONS)
    assert report is not None
    assert report.max_abs_diff < 1e-5
    assert report.completeness < 1e-6
    assert report.rows > 10_000


def test_the_file_is_one_old_enough_model(trained, tmp_path):
    runs, dataset, model = trained
    export_reasons(runs["default"], dataset, model, tmp_path / REASONS)
    graph = onnx.load(tmp_path / REASONS)
    onnx.checker.check_model(graph, full_check=True)
    assert graph.ir_version <= 8
    assert [(entry.domain, entry.version <= 18) for entry in graph.opset_import] == [("", True)]
    assert [file.name for file in tmp_path.iterdir()] == [REASONS]
    run, vocabulary = runs["default"], runs["default"].vocabulary()
    network = load_network(run)
    exact = OneHiddenLayer.of(network, vocabulary.sizes, mean_row(dataset, vocabulary))
    assert float(metadata(graph)["base"]) == exact.base
    assert metadata(graph)["vocabulary_digest"] == run.vocabulary_digest


@pytest.mark.parametrize("seed", range(6))
def test_any_weights(seed, tmp_path):
    """Random networks, some with units that sit exactly at zero in the mean row."""
    _, exact = made(seed, hidden=16)
    if seed % 2:
        before = exact.mean @ exact.first
        exact = replace(exact, first_bias=np.where(np.arange(48) % 3, exact.first_bias, -before))
    onnx.save(to_onnx(exact), tmp_path / REASONS)
    rows = drawn(seed, 500)
    (found,) = parity.run_onnx(tmp_path / REASONS, {"indices": rows}, [CONTRIBUTION])
    np.testing.assert_allclose(found, exact.contributions(rows), atol=2e-5)


def test_a_chain_of_layers_has_none(trained, tmp_path):
    runs, dataset, model = trained
    assert export_reasons(runs["capstone"], dataset, model, tmp_path / REASONS) is None
    assert not (tmp_path / REASONS).exists()


@pytest.mark.parametrize("wrong", ["contribution", "sum"])
def test_a_differing_graph_is_refused_and_removed(trained, tmp_path, monkeypatch, wrong):
    runs, dataset, model = trained
    real = exporting._tables

    def tables(exact):
        firsts, into, out, linear = real(exact)
        if wrong == "contribution":
            return firsts, into, out * 1.01, linear
        return firsts, into, out, linear

    monkeypatch.setattr(exporting, "_tables", tables)
    if wrong == "sum":  # exact by itself, but of another model than the classifier's
        original = OneHiddenLayer.of
        other = classmethod(lambda cls, *args: replace(original(*args), bias=0.7))
        monkeypatch.setattr(OneHiddenLayer, "of", other)
    with pytest.raises(ParityError, match=r"differs|add up"):
        export_reasons(runs["default"], dataset, model, tmp_path / REASONS)
    assert not (tmp_path / REASONS).exists()


def test_packaging_registers_it_and_says_how_it_compares(trained, tmp_path):
    runs, dataset, _ = trained
    registry = Registry(tmp_path)
    version = registry.verify(package_run(runs["default"].folder, dataset, registry).tag)
    assert REASONS in version.manifest.files
    assert version.record.metrics["export"]["reasons"]["max_abs_diff"] <= 1e-5
    chain = package_run(runs["capstone"].folder, dataset, registry)
    assert REASONS not in chain.manifest.files
    assert "reasons" not in chain.record.metrics["export"]


def test_encrypting_the_table_changes_no_reason(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "classifier_preset", RECIPES.__getitem__)
    found = []
    for name, dataset in {"plain": table(), "tokens": renamed(table(), "x")}.items():
        run = train_classifier(dataset, tmp_path / name)
        folder = tmp_path / name
        export_classifier(run.folder, dataset, folder)
        export_reasons(run, dataset, folder / MODEL, folder / REASONS)
        rows = dataset.indices(run.vocabulary())
        found += parity.run_onnx(folder / REASONS, {"indices": rows}, [CONTRIBUTION])
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


def test_a_new_key_moves_the_reasons_with_the_model(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "classifier_preset", RECIPES.__getitem__)
    key, new = "0aab8d7c", "4e5f6071"
    plain = table()
    dataset = replace(
        plain,
        columns={
            name: replace(column, dictionary=tuple(token(name, i, key) for i in range(SIZES[name])))
            for name, column in plain.columns.items()
        },
    )
    run = train_classifier(dataset, tmp_path / "run")
    registry = Registry(tmp_path / "registry")
    version = package_run(run.folder, dataset, registry)
    fields = {
        name: {token(name, i, key): token(name, i, new) for i in range(size)}
        for name, size in SIZES.items()
    }
    renewed = rekey(registry, version.tag, RekeyMap("toy-credit", key, new, fields))
    before, after = (onnx.load_from_string(v.read(REASONS)) for v in (version, renewed))
    facts = metadata(after)
    assert (facts["key_id"], facts["base"]) == (new, metadata(before)["base"])
    assert facts["vocabulary_digest"] == renewed.vocabulary().digest
    del before.metadata_props[:], after.metadata_props[:]
    assert before == after  # the new tokens stand in the old ones' order
