"""Folds of a smoothed table: copies of training rows, and test rows as clients send them."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.smoothing_training import averaged, fixed_keyset, judge, smoothed
from cipherscore.client.keys import Keyset
from cipherscore.client.sources import find_table
from cipherscore.dataset import TRAIN, VALIDATION
from cipherscore.schema_file import load_schema
from evaluation.drawn import drawn_fold
from evaluation.folds import RawData, folds

DRAWS = 3


@pytest.fixture(scope="module")
def raw(sample_path):
    schema = load_schema("german-credit")
    return smoothed(RawData.read(schema, find_table(schema, sample_path)), 0.1)


@pytest.fixture(scope="module")
def fold(raw):
    return next(folds(raw, 1, 5, 0))


def levels(dataset, codec):
    """The level of every cell, [rows][fields]."""
    columns = []
    for name, column in dataset.columns.items():
        known = [codec.levels[name][token] for token in column.dictionary]
        columns.append([known[at] for at in column.indices])
    return list(zip(*columns, strict=True))


def test_copies_are_of_training_rows_and_requests_of_test_rows(raw, fold):
    found = drawn_fold(raw, fold, Keyset.create(), draws=DRAWS, requests=4)
    dataset = found.dataset
    counts = np.bincount(found.rows, minlength=raw.rows)
    validation = found.rows[dataset.split == VALIDATION]
    assert dataset.draws == DRAWS
    assert len(validation) == pytest.approx(0.2 * len(fold.train), abs=2)
    assert set(counts[np.setdiff1d(fold.train, validation)]) == {DRAWS}
    assert set(counts[validation]) == {1}
    assert not counts[fold.test].any()
    assert (dataset.label == raw.label[found.rows]).all()
    assert raw.label[validation].mean() == pytest.approx(raw.label[fold.train].mean(), abs=0.02)
    seen = {}
    for row, cells in zip(found.rows, levels(dataset, found.codec), strict=True):
        assert seen.setdefault(row, cells) == cells
    vocabulary = dataset.build_vocabulary()
    drawn = [request.indices(vocabulary) for request in found.requests]
    asked = [levels(request, found.codec) for request in found.requests]
    assert asked[0] == asked[1]
    assert (drawn[0] != drawn[1]).mean() > 0.1
    assert (np.stack(drawn) >= 0).mean() > 0.99  # a level no training row has is all that is unseen
    assert (found.requests[0].label == raw.label[fold.test]).all()


def test_with_one_draw_all_rows_teach_and_without_smoothing_nothing_is_drawn(raw, fold):
    once = drawn_fold(raw, fold, Keyset.create(), draws=1, requests=1)
    assert set(once.dataset.split) == {TRAIN}
    assert (once.rows == np.sort(fold.train)).all()
    assert once.dataset.draws == 1
    bare = drawn_fold(smoothed(raw, 1), fold, Keyset.create(), draws=1, requests=2)
    assert bare.dataset.draws == 0
    vocabulary = bare.dataset.build_vocabulary()
    first, second = (request.indices(vocabulary) for request in bare.requests)
    assert (first == second).all()


def test_the_same_key_gives_the_same_fold(raw, fold):
    first, second, other = (
        drawn_fold(raw, fold, fixed_keyset(seed), draws=2, requests=1) for seed in (0, 0, 1)
    )
    assert (first.rows == second.rows).all()
    for name, column in first.dataset.columns.items():
        assert column.dictionary == second.dataset.columns[name].dictionary
        assert (column.indices == second.dataset.columns[name].indices).all()
    assert (first.rows != other.rows).any()


def test_the_benchmarks_figures():
    label = np.array([0, 0, 1, 1], np.int8)
    one = np.array([0.1, 0.2, 0.3, 0.4])
    other = np.array([0.1, 0.4, 0.3, 0.4])
    found = judge(np.array([one, other] * 8), label, 0.25, (5.0, 1.0))
    assert found["auc"] == pytest.approx((1 + 0.625) / 2)
    assert found["distance"] == pytest.approx(0.05)
    assert found["changed"] == 0.25
    assert found["changed_of_4"] == 0
    assert found["cost"] == pytest.approx(0.125)
    np.testing.assert_allclose(averaged(np.array([[0.2], [0.8]]), 2), [[0.5]])
    single = judge(one[None], label, 0.25, (5.0, 1.0))
    assert (single["auc_of_16"], single["changed"]) == (1, 0)


def test_a_share_is_put_on_every_field(raw):
    assert {field.smoothing.most_share for field in smoothed(raw, 0.3).schema.fields} == {0.3}
    assert {field.smoothing for field in smoothed(raw, 1).schema.fields} == {None}
