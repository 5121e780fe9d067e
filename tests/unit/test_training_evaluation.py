from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from sklearn import metrics

from cipherscore.errors import TrainingError
from training.evaluation import auc, confusion, cost_threshold, evaluate, figures

CHANCES = npst.arrays(np.float64, 40, elements=st.sampled_from(np.linspace(0.02, 0.98, 17)))
LABELS = npst.arrays(np.int8, 40, elements=st.integers(0, 1)).filter(lambda a: 0 < a.sum() < 40)


@given(LABELS, CHANCES)
def test_auc_equals_scikit_learn_with_ties(labels, chances):
    assert auc(labels, chances) == pytest.approx(metrics.roc_auc_score(labels, chances))


@given(LABELS, CHANCES, st.floats(0.01, 0.99))
def test_figures_equal_scikit_learn(labels, chances, threshold):
    found = figures(labels, chances, threshold, 5.0, 1.0)
    decided = (chances >= threshold).astype(int)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        labels, decided, labels=[0, 1], zero_division=0
    )
    for position, name in enumerate(("good", "bad")):
        assert found[f"precision_{name}"] == pytest.approx(precision[position])
        assert found[f"recall_{name}"] == pytest.approx(recall[position])
        assert found[f"f1_{name}"] == pytest.approx(f1[position])
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels, decided))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(labels, chances))
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(labels, chances))
    counts = metrics.confusion_matrix(labels, decided)
    assert found["expected_cost"] == pytest.approx((5 * counts[1, 0] + counts[0, 1]) / 40)


@given(LABELS, CHANCES, st.floats(0.5, 10), st.floats(0.5, 10))
def test_threshold_has_the_least_cost_of_all(labels, chances, false_good, false_bad):
    def cost(threshold):
        counts = confusion(labels, chances, threshold)
        return counts["bad_called_good"] * false_good + counts["good_called_bad"] * false_bad

    chosen = cost_threshold(labels, chances, false_good, false_bad)
    assert 0 <= chosen <= 1
    assert cost(chosen) <= min(cost(t) for t in np.linspace(0, 1.01, 200)) + 1e-9


def test_threshold_of_separable_rows_lies_between_the_classes():
    threshold = cost_threshold(np.array([0, 0, 1], np.int8), np.array([0.1, 0.2, 0.6]), 5, 1)
    assert 0.2 < threshold < 0.6


def test_a_class_without_rows_gives_no_auc():
    assert np.isnan(auc(np.zeros(3, np.int8), np.arange(3.0)))


def test_report_has_intervals_around_each_value_and_is_repeatable():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 200).astype(np.int8)
    chances = np.clip(generator.normal(0.3 + 0.3 * labels, 0.2), 0.01, 0.99)
    report = evaluate(labels, chances, 0.5, 5, 1, bootstrap=200, seed=3)
    for name in figures(labels, chances, 0.5, 5, 1):
        entry = report[name]
        assert entry["low"] <= entry["value"] <= entry["high"], name
    assert sum(report["confusion"].values()) == report["rows"] == 200
    assert report == evaluate(labels, chances, 0.5, 5, 1, bootstrap=200, seed=3)


@pytest.mark.parametrize("rows", [0, 2])
def test_report_refuses_no_rows_and_unequal_lengths(rows):
    with pytest.raises(TrainingError, match="as many probabilities"):
        evaluate(np.zeros(rows, np.int8), np.zeros(0), 0.5, 5, 1)


def test_threshold_needs_rows():
    with pytest.raises(TrainingError, match="validation rows"):
        cost_threshold(np.zeros(0, np.int8), np.zeros(0), 5, 1)
