"""The accountant of differential privacy, against dp-accounting's figures."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherscore.errors import ConfigurationError
from training.privacy import PrivacyBudget, log_delta

VECTORS = json.loads(
    (Path(__file__).parents[1] / "vectors/privacy_dp_accounting.json").read_text("utf-8")
)


@pytest.mark.parametrize("case", VECTORS["delta_of_rho"], ids=str)
def test_delta_is_that_of_dp_accounting(case):
    # Theirs is the least of a grid of orders, ours of all orders.
    ours = math.exp(log_delta(case["rho"], case["epsilon"]))
    assert ours == pytest.approx(case["delta"], rel=5e-3)
    assert ours <= case["delta"] * (1 + 1e-9)


@pytest.mark.parametrize("case", VECTORS["discrete_gaussian"], ids=str)
def test_delta_bounds_the_exact_one_of_the_noise_that_is_drawn(case):
    rho = case["tables"] / (2 * case["sigma"] ** 2)
    assert math.exp(log_delta(rho, case["epsilon"])) >= case["delta"]


def test_rho_of_a_known_budget():
    # Minimised over the order with scipy.optimize.minimize_scalar and solved with brentq (1.17).
    assert PrivacyBudget(1.0, 1 / 8000).rho == pytest.approx(0.04194692692623475, rel=1e-6)
    assert PrivacyBudget(10.0, 1 / 390_000).rho == pytest.approx(1.6303566639383655, rel=1e-6)


@given(st.floats(0.01, 100), st.floats(1e-12, 0.5))
def test_rho_keeps_the_guarantee_and_wastes_nothing(epsilon, delta):
    rho = PrivacyBudget(epsilon, delta).rho
    assert rho > 0
    assert log_delta(rho, epsilon) <= math.log(delta)
    assert log_delta(rho * (1 + 1e-6), epsilon) > math.log(delta)


@given(st.floats(0.01, 50), st.floats(1e-9, 0.1))
def test_a_larger_budget_allows_more(epsilon, delta):
    rho = PrivacyBudget(epsilon, delta).rho
    assert PrivacyBudget(2 * epsilon, delta).rho > rho
    assert PrivacyBudget(epsilon, 2 * delta).rho > rho


def test_no_spending_gives_nothing_away():
    assert log_delta(0.0, 1.0) == -math.inf


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf, 0.001, 101.0])
def test_an_epsilon_outside_its_range_is_refused(epsilon):
    with pytest.raises(ConfigurationError, match=r"epsilon .* is not allowed; allowed: 0\.01"):
        PrivacyBudget(epsilon, 1e-5)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan, math.inf])
def test_a_delta_outside_its_range_is_refused(delta):
    with pytest.raises(ConfigurationError, match=r"delta .* is not allowed"):
        PrivacyBudget(1.0, delta)


def test_delta_follows_from_the_rows_and_must_be_small_beside_them():
    assert PrivacyBudget.for_rows(1.0, None, 800) == PrivacyBudget(1.0, 1 / 8000)
    assert PrivacyBudget.for_rows(1.0, 1e-3, 800).delta == 1e-3
    with pytest.raises(ConfigurationError, match=r"800 rows; allowed: below 0\.0013"):
        PrivacyBudget.for_rows(1.0, 1 / 800, 800)
