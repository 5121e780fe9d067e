"""Private tables: what they spend, that one row moves little, and what they still tell."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cipherscore.errors import TrainingError
from tests.support.generator_tables import SIZES, structured_rows
from training import private_tables as module
from training.class_tables import class_tables
from training.fidelity import Rows
from training.privacy import PrivacyBudget
from training.private_noise import discrete_gaussian, exponential_mechanism
from training.private_tables import private_tables

COLUMNS = tuple(SIZES.values())
WIDE = (3, 2, 4, 5, 2, 3)
"""Fields enough that pairs are chosen among them."""


def wide_rows(count: int, seed: int = 0) -> Rows:
    """Return rows in which field 1 repeats field 0 where it can, and all else is by chance."""
    draw = np.random.default_rng(seed)
    indices = np.stack([draw.integers(0, size, count) for size in WIDE], axis=1).astype(np.int32)
    indices[:, 1] = np.minimum(indices[:, 0], 1)
    return Rows(indices, (draw.random(count) < 0.2 + 0.5 * (indices[:, 2] == 0)).astype(np.int8))


class Meter:
    """Counts what the two mechanisms spend, while they do their work."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.variances: list[Fraction] = []
        self.choices: list[Fraction] = []
        monkeypatch.setattr(module, "discrete_gaussian", self._gaussian)
        monkeypatch.setattr(module, "exponential_mechanism", self._choice)

    def _gaussian(self, variance, source):
        self.variances.append(variance)
        return discrete_gaussian(variance, source)

    def _choice(self, scores, epsilon, source):
        self.choices.append(epsilon)
        return exponential_mechanism(scores, epsilon, source)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 20.0])
def test_the_budget_is_spent_and_not_exceeded(epsilon, monkeypatch):
    meter = Meter(monkeypatch)
    budget = PrivacyBudget(epsilon, 1e-5)
    found = private_tables(wide_rows(3000), WIDE, budget, random.Random(1))
    singles = meter.variances[: 2 * sum(WIDE)]
    assert len(set(singles)) == 1
    spent = len(WIDE) / (2 * float(singles[0]))
    rest = meter.variances[len(singles) :]
    assert len(set(rest)) == 1
    if found.measured:
        assert len(meter.choices) == found.measured
        spent += found.measured / (2 * float(rest[0]))
        spent += sum(float(choice) ** 2 / 8 for choice in meter.choices)
    else:
        assert not meter.choices
        assert len(rest) == len(singles)
        spent += len(WIDE) / (2 * float(rest[0]))
    assert 0.999 * budget.rho < spent <= budget.rho
    assert bool(found.measured) == (epsilon > 0.1)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_one_row_moves_a_score_and_a_cell_by_at_most_one(data):
    count = data.draw(st.integers(20, 60))
    rows = wide_rows(count, data.draw(st.integers(0, 1000)))
    less = rows.take(np.arange(count) != data.draw(st.integers(0, count - 1)))
    source = random.Random(0)
    one, other = (module._Counter(part, WIDE, source) for part in (rows, less))
    noisy = one.singles(Fraction(1))
    sums, singles = module._agreeing([table + 6 for table in noisy], 1.0)
    for pair in combinations(range(len(WIDE)), 2):
        gone = one.exact_pair(pair) - other.exact_pair(pair)
        assert gone.sum() == np.abs(gone).sum() == 1
        scores = [module._score(each, pair, singles, sums, Fraction(9)) for each in (one, other)]
        assert abs(scores[0] - scores[1]) <= 1


@settings(max_examples=30, deadline=None)
@given(st.integers(100, 400), st.sampled_from([0.5, 2.0, 50.0]), st.integers(0, 10**6))
def test_tables_agree_with_each_other(count, epsilon, seed):
    rows = Rows(*structured_rows(count, seed))
    try:
        found = private_tables(rows, COLUMNS, PrivacyBudget(epsilon, 1e-4), random.Random(seed))
    except TrainingError:
        return  # the noise was larger than a class
    bounds = np.cumsum((0, *COLUMNS))
    for low, high in pairwise(bounds):
        np.testing.assert_allclose(found.tables.marginals[:, low:high].sum(axis=1), 1, rtol=1e-4)
    assert (found.tables.marginals >= 0).all()
    assert (found.tables.pairs >= 0).all()
    np.testing.assert_allclose(found.tables.pairs, found.tables.pairs.swapaxes(1, 2), rtol=1e-5)
    assert 0 < found.class_prior < 1


def test_a_large_budget_gives_nearly_the_true_tables():
    rows = wide_rows(5000)
    found = private_tables(rows, WIDE, PrivacyBudget(100.0, 1e-5), random.Random(3))
    true = class_tables(rows.indices, rows.label, WIDE)
    assert found.class_prior == pytest.approx(rows.label.mean(), abs=1e-3)
    np.testing.assert_allclose(found.tables.marginals, true.marginals, atol=2e-3)
    dependent = np.s_[:, 0:3, 3:5]
    np.testing.assert_allclose(found.tables.pairs[dependent], true.pairs[dependent], atol=0.03)
    independent = true.marginals[:, 0:3, None] * true.marginals[:, None, 3:5]
    assert np.abs(independent - true.pairs[dependent]).max() > 0.1, "else this shows nothing"


def test_the_source_decides_the_noise():
    rows, budget = wide_rows(1000), PrivacyBudget(1.0, 1e-4)
    first, again, other = (
        private_tables(rows, WIDE, budget, random.Random(seed)).tables.marginals
        for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()


def test_noise_that_swallows_a_class_is_reported():
    indices, label = structured_rows(40)
    alone = Rows(indices, np.zeros_like(label))
    with pytest.raises(TrainingError, match="larger epsilon"):
        private_tables(alone, COLUMNS, PrivacyBudget(100.0, 1e-3), random.Random(0))
