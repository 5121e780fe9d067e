"""Columns that may know the outcome."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cipherscore.client.leakage import (
    SUSPICIOUS_AUC,
    _auc,
    cut_codes,
    named_like_a_protected_group,
    named_like_an_outcome,
    single_column_auc,
)

RNG = np.random.default_rng(0)
LABEL = (RNG.random(4000) < 0.2).astype(np.int8)


def test_auc_is_that_of_scikit_learn():
    for scores in (RNG.random(4000), RNG.integers(0, 5, 4000) + LABEL, LABEL, np.zeros(4000)):
        assert _auc(np.asarray(scores, float), LABEL) == pytest.approx(roc_auc_score(LABEL, scores))
    assert _auc(np.arange(3.0), np.zeros(3)) == 0.5


def test_copies_of_the_outcome_are_suspicious_and_noise_is_not():
    noise = cut_codes(RNG.normal(size=4000))
    assert abs(single_column_auc(noise, LABEL) - 0.5) < 0.05
    leak = cut_codes(LABEL + RNG.normal(0, 0.1, 4000))
    assert single_column_auc(leak, LABEL) > SUSPICIOUS_AUC
    absent = np.where(LABEL == 1, RNG.random(4000), np.nan)  # only filled in after the outcome
    assert single_column_auc(cut_codes(absent), LABEL) > SUSPICIOUS_AUC
    peak = cut_codes(np.where(LABEL == 1, RNG.normal(0, 0.1, 4000), RNG.choice([-9, 9], 4000)))
    assert single_column_auc(peak, LABEL) > SUSPICIOUS_AUC  # neither rises nor falls


def test_a_column_of_rare_codes_does_not_predict_itself():
    codes = np.arange(4000)
    assert single_column_auc(codes, LABEL) == pytest.approx(0.5, abs=0.02)
    assert single_column_auc(codes // 2, LABEL) < 0.6


def test_seed_and_edges():
    codes = cut_codes(LABEL + RNG.normal(0, 1, 4000))
    assert single_column_auc(codes, LABEL, 3) == single_column_auc(codes, LABEL, 3)
    assert single_column_auc(codes, np.zeros_like(LABEL)) == 0.5
    assert cut_codes(np.full(3, np.nan)).tolist() == [0, 0, 0]
    few = np.zeros(50, np.int8)
    few[:2] = 1
    assert 0 <= single_column_auc(np.arange(50) % 3, few) <= 1


@pytest.mark.parametrize(
    ("name", "target", "expected"),
    [("Recoveries", "y", True), ("charge_off_date", "y", True), ("loanStatusDate", "loan_status", True),
     ("DEFAULT", "y", True), ("marital_status", "status", True), ("loan_amount", "loan_status", False),
     ("days", "y", False), ("delinquency_2yrs", "y", False), ("decisionDate", "y", True),
     ("undefaulted", "y", False), ("", "", False)],
)  # fmt: skip
def test_names_of_outcomes(name, target, expected):
    assert named_like_an_outcome(name, target) is expected


def test_names_of_protected_groups():
    assert all(map(named_like_a_protected_group, ("Sex", "applicant_age", "maritalStatus", "RACE")))
    assert not any(map(named_like_a_protected_group, ("page", "wage", "usage", "sector")))
