"""Curves: against scikit-learn, and against answers worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics
from sklearn.calibration import calibration_curve

from cipherscore.errors import DataError
from evaluation import curves
from evaluation.curves import GRID, Ranking
from training.evaluation import cost_threshold, figures

LABELS = np.array([1, 1, 0, 1, 0, 0, 0, 0])
SCORES = np.array([0.9, 0.8, 0.8, 0.6, 0.5, 0.4, 0.3, 0.1])


@pytest.fixture
def ties():
    """500 rows of 30 % bad whose scores have many ties."""
    generator = np.random.default_rng(7)
    label = (generator.random(500) < 0.3).astype(np.int8)
    return label, np.round(np.clip(0.6 * generator.random(500) + 0.3 * label, 0, 1), 2)


def test_counts_by_hand():
    ranking = Ranking.of(LABELS, SCORES)
    assert ranking.bad.tolist() == [0, 1, 2, 3, 3, 3, 3, 3]
    assert ranking.good.tolist() == [0, 0, 1, 1, 2, 3, 4, 5]


def test_area_gini_and_ks_by_hand():
    ranking = Ranking.of(LABELS, SCORES)
    # 15 pairs: the good 0.8 ties with one bad, beats one; no other good beats a bad.
    assert curves.area(ranking) == pytest.approx(13.5 / 15)
    assert curves.gini(ranking) == pytest.approx(2 * 13.5 / 15 - 1)
    # At 0.6: all three bad refused, one of five good.
    gap, score = curves.kolmogorov_smirnov(ranking)
    assert (gap, score) == (pytest.approx(0.8), 0.6)


def test_areas_match_scikit_learn(ties):
    label, scores = ties
    ranking = Ranking.of(label, scores)
    assert curves.area(ranking) == pytest.approx(metrics.roc_auc_score(label, scores))
    expected = metrics.average_precision_score(label, scores)
    assert curves.average_precision(ranking) == pytest.approx(expected)


def test_ks_is_the_two_sample_statistic(ties):
    from scipy.stats import ks_2samp

    label, scores = ties
    gap, _ = curves.kolmogorov_smirnov(Ranking.of(label, scores))
    assert gap == pytest.approx(ks_2samp(scores[label == 1], scores[label == 0]).statistic)


def test_roc_passes_through_scikit_learns_points(ties):
    label, scores = ties
    false_alarm, recall, _ = metrics.roc_curve(label, scores, drop_intermediate=False)
    rising = np.flatnonzero(np.diff(false_alarm) > 0)  # the upper end of each vertical step
    found = curves.roc(Ranking.of(label, scores), false_alarm[rising] + 1e-9)
    assert found == pytest.approx(recall[rising], abs=1e-4)


def test_precision_passes_through_scikit_learns_points(ties):
    label, scores = ties
    precision, recall, _ = metrics.precision_recall_curve(label, scores)
    first = np.unique(recall, return_index=True)[1][1:]  # of equal recalls the best precision
    best = [precision[recall == recall[place]].max() for place in first]
    found = curves.precision(Ranking.of(label, scores), recall[first])
    assert found == pytest.approx(np.array(best))


def test_precision_starts_at_the_highest_scores():
    assert curves.precision(Ranking.of(LABELS, SCORES), np.array([0.0, 1.0])) == pytest.approx(
        np.array([1.0, 0.75])
    )


def test_gain_and_lift_by_hand():
    ranking = Ranking.of(LABELS, SCORES)
    grid = np.array([0, 1 / 8, 0.5, 1])
    assert curves.gain(ranking, grid) == pytest.approx(np.array([0, 1 / 3, 1, 1]))
    assert curves.lift(ranking, grid) == pytest.approx(np.array([8 / 3, 8 / 3, 2, 1]))


def test_calibration_matches_scikit_learn():
    generator = np.random.default_rng(3)
    scores = generator.random(1000)
    label = (generator.random(1000) < scores**2).astype(int)
    found = curves.calibration(label, scores, 10)
    observed, predicted = calibration_curve(label, scores, n_bins=10, strategy="quantile")
    assert found.observed == pytest.approx(observed)
    assert found.predicted == pytest.approx(predicted)
    assert found.rows.sum() == 1000


def test_calibration_error_by_hand():
    label, scores = np.array([0, 1, 1, 1]), np.array([0.1, 0.1, 0.8, 0.8])
    found = curves.calibration(label, scores, 2)
    assert found.rows.tolist() == [2, 2]
    assert found.error == pytest.approx(0.5 * 0.4 + 0.5 * 0.2)


def test_an_empty_bin_is_no_number_and_does_not_count():
    found = curves.calibration(np.array([0, 1]), np.array([0.1, 0.9]), edges=np.array([0.3, 0.6]))
    assert found.rows.tolist() == [1, 0, 1]
    assert np.isnan(found.observed[1])
    assert found.error == pytest.approx(0.1)


def test_cost_is_that_of_the_threshold():
    grid = np.linspace(0, 1, 23)
    found = curves.cost(LABELS, SCORES, 5, 1, grid)
    expected = [figures(LABELS, SCORES, t, 5, 1)["expected_cost"] for t in grid]
    assert found == pytest.approx(np.array(expected))
    best = cost_threshold(LABELS, SCORES, 5, 1)
    assert found.min() == pytest.approx(figures(LABELS, SCORES, best, 5, 1)["expected_cost"])


def test_cost_at_a_score_refuses_it():
    assert curves.cost(np.array([1, 0]), np.array([0.5, 0.2]), 5, 1, np.array([0.5])) == [0]


@pytest.mark.parametrize("label", [np.zeros(4, int), np.ones(4, int), np.empty(0, int)])
def test_a_missing_class_is_refused(label):
    with pytest.raises(DataError, match="both classes"):
        Ranking.of(label, np.linspace(0, 1, len(label)))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=40))
def test_curves_keep_their_limits(rows):
    label = np.array([int(bad) for bad, _ in rows])
    if len(set(label.tolist())) < 2:
        return
    ranking = Ranking.of(label, np.array([score / 6 for _, score in rows]))
    for curve in (curves.roc(ranking), curves.gain(ranking)):
        assert (np.diff(curve) >= -1e-9).all()
        assert curve[-1] == pytest.approx(1)
    precision = curves.precision(ranking)
    assert ((precision >= 0) & (precision <= 1 + 1e-9)).all()
    assert curves.lift(ranking)[-1] == pytest.approx(1)
    area = np.trapezoid(curves.roc(ranking, np.linspace(0, 1, 20_001)), dx=1 / 20_000)
    assert area == pytest.approx(curves.area(ranking), abs=2e-3)
    assert len(curves.roc(ranking)) == len(GRID)
