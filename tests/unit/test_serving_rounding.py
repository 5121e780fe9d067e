"""Rounded answers: decisions stay, and reason codes do not tell what rounding hides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from serving.rounding import Rounding
from serving.settings import Settings

PROBABILITIES = arrays(np.float32, 20, elements=st.floats(0, 1, width=32))


def sigmoid(value):
    return np.tanh(value / 2) / 2 + 0.5


def explained(rows, fields=20, seed=0, base=-0.8):
    """Exact probabilities, and the contributions that add up to them."""
    generator = np.random.default_rng(seed)
    contribution = generator.normal(0, 0.45, (rows, fields)).astype(np.float32)
    exact = sigmoid(base + contribution.sum(axis=1, dtype=np.float64)).astype(np.float32)
    return exact, contribution


@pytest.mark.parametrize("decimals", [0, 1, 2, 3, 6])
@given(exact=PROBABILITIES)
def test_a_probability_is_the_nearest_with_so_many_decimals(decimals, exact):
    found = Rounding(decimals).probability(exact)
    assert found.dtype == np.float32
    assert np.allclose(found * 10.0**decimals, np.round(found * 10.0**decimals), atol=0.1)
    assert np.abs(found.astype(float) - exact).max() <= 0.5 * 10.0**-decimals + 1e-7
    assert found.min() >= 0
    assert found.max() <= 1


def test_half_a_decimal_more_or_less():
    exact = np.array([0.0, 0.004, 0.0051, 0.12345, 0.996, 1.0], np.float32)
    expected = np.array([0, 0, 0.01, 0.12, 1, 1], np.float32)
    assert np.array_equal(Rounding(2).probability(exact), expected)
    shown = Rounding(1).contribution(np.array([[-0.01, 0.01]], np.float32), np.array([0.5]))
    assert shown.tolist() == [[0, 0]]
    assert not np.signbit(shown).any()  # would say from which side it was rounded


@pytest.mark.parametrize("decimals", [1, 2, 3])
def test_contributions_add_up_to_what_is_answered_and_tell_no_more(decimals):
    base = -0.8
    exact, contribution = explained(4000, base=base)
    rounding = Rounding(decimals, base)
    answered = rounding.probability(exact)
    shown = rounding.contribution(contribution, answered)
    assert shown.dtype == np.float32
    added = base + shown.sum(axis=1, dtype=np.float64)
    edge = 0.5 * 10.0**-decimals
    held = np.clip(answered.astype(float), edge, 1 - edge)
    # Twenty roundings of at most half a decimal.
    wanted = np.log(held) - np.log1p(-held)
    assert np.abs(added - wanted).max() <= 20 * edge + 1e-4
    # Whether the exact answer is above or below the rounded one, the sum does not tell.
    log_odds = base + contribution.sum(axis=1, dtype=np.float64)
    assert abs(np.corrcoef(added - wanted, log_odds - wanted)[0, 1]) < 0.06
    assert np.abs(sigmoid(added) - exact).mean() > 0.98 * np.abs(answered - exact).mean()


def test_exact_contributions_would_undo_it():
    exact, contribution = explained(500)
    added = sigmoid(-0.8 + contribution.sum(axis=1, dtype=np.float64))
    assert np.abs(added - exact).max() < 1e-6


def test_the_order_of_contributions_stays_but_for_ties():
    exact, contribution = explained(300)
    rounding = Rounding(2, -0.8)
    shown = rounding.contribution(contribution, rounding.probability(exact))
    order = np.argsort(-contribution, axis=1)
    assert (np.diff(np.take_along_axis(shown, order, axis=1), axis=1) <= 0).all()


@pytest.mark.parametrize("answer", [0.0, 1.0])
def test_an_answer_without_log_odds_has_finite_reasons(answer):
    shown = Rounding(1).contribution(np.zeros((1, 4), np.float32), np.array([answer], np.float32))
    assert np.isfinite(shown).all()
    assert np.sign(shown).tolist() == [[np.sign(answer - 0.5)] * 4]


def test_the_setting_is_off_and_bounded():
    assert Settings().score_decimals is None
    for wrong in (-1, 7):
        with pytest.raises(ValueError, match="score_decimals"):
            Settings(score_decimals=wrong)
