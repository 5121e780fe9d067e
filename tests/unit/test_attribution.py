"""Exact contributions: against numbers worked out by hand, a numerical integral and enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cipherscore.errors import TrainingError
from tests.support.ensembles import SIZES, drawn, made
from tests.support.token_tables import renamed, table
from training.attribution import OneHiddenLayer, has_closed_form, mean_row, secant
from training.network import DenseLayers, WideDeepEnsemble


def one_hot(indices: np.ndarray, sizes=SIZES) -> np.ndarray:
    """Written apart from the code under test."""
    rows = []
    for row in indices:
        cells = []
        for index, size in zip(row, sizes, strict=True):
            cells += [1.0 if column == index else 0.0 for column in range(size)]
        rows.append(cells)
    return np.array(rows)


def along_the_line(network, mean, row, sizes=SIZES, steps=20_000) -> np.ndarray:
    """The defining integral by torch's own gradients at many points: the independent code."""
    double = network.double()
    start, end = torch.from_numpy(mean), torch.from_numpy(row)
    share = (torch.arange(steps, dtype=torch.float64) + 0.5)[:, None] / steps
    points = (start + share * (end - start)).requires_grad_(True)
    double.member_logits(points).mean(dim=1).sum().backward()
    values = ((end - start) * points.grad.mean(dim=0)).numpy()
    starts = np.cumsum([0, *sizes])
    network.float()
    return np.array([values[a:b].sum() for a, b in itertools.pairwise(starts)])


def test_a_vector_worked_out_by_hand():
    """One member, one unit, two fields of two tokens; every number below is from paper.

    x0 = (1/2, 1/2, 1/4, 3/4), first = (4, -2, 0, -4), first_bias = 1:
    z0 = 2 - 1 + 0 - 3 + 1 = -1.  Row (0, 0): z1 = 4 + 0 + 1 = 5, secant (5 - 0) / 6 = 5/6.
    Field 0: wide 0; (x - x0) . first = 2 + 1 = 3; 3 * 5/6 * last 2 = 5.
    Field 1: wide (1, 0): 3/4; (x - x0) . first = 0 + 3 = 3; 5 again; together 5.75.
    """
    network = WideDeepEnsemble((2, 2), 1, 1, 0.0).eval()
    with torch.no_grad():
        network.first.copy_(torch.tensor([[4.0], [-2.0], [0.0], [-4.0]]))
        network.first_bias.fill_(1.0)
        network.last.fill_(2.0)
        network.wide.copy_(torch.tensor([[0.0], [0.0], [1.0], [0.0]]))
        network.bias.fill_(-3.0)
    exact = OneHiddenLayer.of(network, (2, 2), np.array([0.5, 0.5, 0.25, 0.75]))
    assert exact.base == -3 + 0.25
    found = exact.contributions(np.array([[0, 0]], np.int32))
    np.testing.assert_allclose(found, [[5.0, 5.75]], rtol=1e-14)


@pytest.mark.parametrize("seed", range(4))
def test_the_closed_form_is_the_integral(seed):
    network, exact = made(seed)
    indices = drawn(seed, 5)
    for row, found in zip(one_hot(indices), exact.contributions(indices), strict=True):
        np.testing.assert_allclose(found, along_the_line(network, exact.mean, row), atol=2e-4)


@given(st.integers(0, 10_000), st.sampled_from([1e-3, 1.0, 30.0]))
@settings(max_examples=60, deadline=None)
def test_contributions_add_up(seed, scale):
    network, exact = made(seed, scale=scale)
    indices = drawn(seed, 20)
    logits = exact.logit(one_hot(indices))
    added = exact.base + exact.contributions(indices).sum(axis=1)
    np.testing.assert_allclose(added, logits, rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        chances = network(torch.from_numpy(indices)).double().numpy()
    # The network adds in float32: the larger its logits, the larger what they are rounded by.
    atol = 2e-5 * max(1.0, scale / 10)
    np.testing.assert_allclose(1 / (1 + np.exp(-np.clip(added, -99, 99))), chances, atol=atol)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_the_secant_is_that_of_relu(before, after):
    found = float(secant(np.array([before]), np.array([after]))[0])
    assert 0 <= found <= 1
    rise = max(after, 0.0) - max(before, 0.0)
    assert math.isclose(found * (after - before), rise, rel_tol=1e-9, abs_tol=1e-9)


def test_the_secant_where_nothing_moves():
    at = np.array([-2.0, 0.0, 3.0])
    np.testing.assert_array_equal(secant(at, at), [0.0, 0.0, 1.0])


def test_an_unseen_token_is_a_row_of_zeros():
    network, exact = made(7)
    indices = np.array([[-1, -1, -1], [1, -1, 2]], np.int32)
    assert not one_hot(indices)[0].any()
    for row, found in zip(one_hot(indices), exact.contributions(indices), strict=True):
        np.testing.assert_allclose(found, along_the_line(network, exact.mean, row), atol=2e-4)


def test_a_field_that_is_not_used_contributes_nothing():
    network, _ = made(1)
    with torch.no_grad():
        network.wide[3:5] = 0
        network.first[3:5] = 0
    exact = OneHiddenLayer.of(network, SIZES, np.full(9, 0.3))
    assert not exact.contributions(drawn(1, 50))[:, 1].any()


def test_symmetric_fields_get_equal_values():
    network, _ = made(2, sizes=(3, 3))
    with torch.no_grad():
        network.wide[3:] = network.wide[:3]
        network.first[3:] = network.first[:3]
    exact = OneHiddenLayer.of(network, (3, 3), np.array([0.2, 0.3, 0.5] * 2))
    found = exact.contributions(np.array([[i, i] for i in range(-1, 3)], np.int32))
    np.testing.assert_array_equal(found[:, 0], found[:, 1])
    assert len(np.unique(found[:, 0])) == 4


def test_renaming_tokens_renames_nothing_else():
    """The columns of a field in another order, with indices to match: the same contributions."""
    network, exact = made(3)
    order = np.array([2, 0, 1, 4, 3, 8, 5, 6, 7])  # column i moves to order[i], inside its field
    moved = WideDeepEnsemble(SIZES, 3, 5, 0.5).eval()
    moved.load_state_dict(network.state_dict())
    moved.move_columns(order.tolist())
    mean = np.empty(9)
    mean[order] = exact.mean
    indices = drawn(3, 40)
    starts = np.array([0, 3, 5])
    there = np.where(indices < 0, -1, order[np.maximum(indices + starts, 0)] - starts)
    again = OneHiddenLayer.of(moved, SIZES, mean).contributions(there.astype(np.int32))
    np.testing.assert_allclose(again, exact.contributions(indices), atol=1e-12)


def shapley(value, fields: int) -> np.ndarray:
    """Exact Shapley values of a set function by enumeration of all coalitions."""
    found = np.zeros(fields)
    for field in range(fields):
        others = [f for f in range(fields) if f != field]
        for size in range(fields):
            weight = 1 / (fields * math.comb(fields - 1, size))
            for coalition in itertools.combinations(others, size):
                gain = value({*coalition, field}) - value(set(coalition))
                found[field] += weight * gain
    return found


def of_enumeration(exact: OneHiddenLayer, row: np.ndarray) -> np.ndarray:
    """Shapley values where a field outside of the coalition is at the mean row."""
    starts = np.cumsum([0, *exact.sizes])

    def value(coalition: set[int]) -> float:
        mixed = exact.mean.copy()
        for field in coalition:
            own = slice(starts[field], starts[field + 1])
            mixed[own] = row[own]
        return float(exact.logit(mixed[None])[0])

    return shapley(value, len(exact.sizes))


def test_without_interaction_they_are_the_shapley_values():
    """Each unit sees one field, and keeps its sign on the way: the logit is additive."""
    network, _ = made(4, hidden=6, members=2)
    with torch.no_grad():
        owner = torch.arange(12) % 3
        field = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
        network.first[field[:, None] != owner[None]] = 0
    exact = OneHiddenLayer.of(network, SIZES, made(4)[1].mean)
    indices = drawn(4, 12)
    for row, found in zip(one_hot(indices), exact.contributions(indices), strict=True):
        np.testing.assert_allclose(found, of_enumeration(exact, row), atol=1e-12)


def test_with_interaction_they_differ_and_both_add_up():
    _, exact = made(5)
    indices = drawn(5, 30)
    ours = exact.contributions(indices)
    theirs = np.array([of_enumeration(exact, row) for row in one_hot(indices)])
    np.testing.assert_allclose(ours.sum(axis=1), theirs.sum(axis=1), atol=1e-12)
    assert np.abs(ours - theirs).max() > 0.01
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.95


def test_only_one_hidden_layer_has_a_closed_form():
    network = DenseLayers(SIZES, (8, 4), 0.1)
    assert not has_closed_form(network)
    with pytest.raises(TrainingError, match="one hidden layer"):
        OneHiddenLayer.of(network, SIZES, np.zeros(9))
    with pytest.raises(TrainingError, match="mean row"):
        OneHiddenLayer.of(made(0)[0], SIZES, np.zeros(8))


def test_the_mean_row_counts_training_rows_only():
    dataset = table()
    vocabulary = dataset.build_vocabulary()
    found = mean_row(dataset, vocabulary)
    position = 0
    for field in vocabulary.fields:
        column = dataset.columns[field]
        tokens = [column.dictionary[i] for i in column.indices[dataset.split == 0]]
        for token in vocabulary.tokens[field]:
            assert math.isclose(found[position], tokens.count(token) / len(tokens))
            position += 1
    assert math.isclose(found.sum(), len(vocabulary.fields))


def test_encryption_moves_the_mean_row_with_its_tokens():
    plain, hidden = table(), renamed(table(), "x")
    here = mean_row(plain, plain.build_vocabulary())
    there = mean_row(hidden, hidden.build_vocabulary())
    np.testing.assert_array_equal(np.sort(here), np.sort(there))
