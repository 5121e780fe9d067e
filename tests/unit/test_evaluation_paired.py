"""Paired tests over folds: a worked example, and what the correction must do."""

import math

import numpy as np
import pytest
from scipy import stats

from evaluation.paired import LEAST_FOLDS, compare, estimate, holm

DIFFERENCES = [0.02, 0.01, 0.03, -0.01, 0.02, 0.00, 0.01, 0.03, 0.02, 0.01]


def test_worked_example():
    # Ten folds, so test rows / training rows = 1/9.  By hand: mean 0.014; the squares of the
    # deviations sum to 0.00144, variance 0.00016, sd 0.0126491; corrected standard error
    # 0.0126491 * sqrt(1/10 + 1/9) = 0.0058119; t = 2.40886 with 9 degrees of freedom.
    found = compare(DIFFERENCES, [0.0] * 10, 1 / 9)
    assert found.estimate.mean == pytest.approx(0.014)
    assert found.estimate.sd == pytest.approx(0.0126491, abs=1e-6)
    assert found.t == pytest.approx(2.40886, abs=1e-4)
    # 2.262 is the 97.5 % quantile of t with 9 degrees of freedom in any table.
    assert found.estimate.low == pytest.approx(0.014 - 2.262 * 0.0058119, abs=1e-5)
    assert found.estimate.high == pytest.approx(0.014 + 2.262 * 0.0058119, abs=1e-5)
    assert 0.02 < found.p < 0.05  # tables: 2.262 is at 5 %, 2.821 at 2 %


def test_without_shared_rows_it_is_the_ordinary_t_test():
    generator = np.random.default_rng(1)
    first, second = generator.random((2, 12))
    expected = stats.ttest_rel(first, second)
    found = compare(first, second, 0.0)
    assert found.t == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue)


def test_the_correction_finds_fewer_differences():
    assert compare(DIFFERENCES, [0.0] * 10, 1 / 9).p > compare(DIFFERENCES, [0.0] * 10, 0).p


def test_order_of_the_two_changes_the_sign_only():
    one, other = compare(DIFFERENCES, [0] * 10, 0.1), compare([0] * 10, DIFFERENCES, 0.1)
    assert (one.t, one.p) == (pytest.approx(-other.t), pytest.approx(other.p))


def test_equal_results_are_no_difference():
    found = compare([0.7, 0.8, 0.9], [0.7, 0.8, 0.9], 0.5)
    assert (found.t, found.p) == (0, 1)


def test_a_constant_difference_is_certain():
    found = compare([2.0, 3.0, 4.0], [1.0, 2.0, 3.0], 0.5)
    assert (found.t, found.p) == (math.inf, 0)


@pytest.mark.parametrize("count", range(LEAST_FOLDS))
def test_too_few_folds_give_no_interval_and_no_test(count):
    found = compare([0.5] * count, [0.4] * count, 0.5)
    assert all(map(math.isnan, (found.t, found.p, found.estimate.low, found.estimate.high)))
    assert found.estimate.folds == count


def test_unpaired_results_are_refused():
    with pytest.raises(ValueError):
        compare([1, 2, 3], [1, 2], 0.1)


def test_interval_holds_the_mean_and_is_as_wide_as_the_test_says():
    found = estimate([0.7, 0.8, 0.75, 0.9], 1 / 3)
    assert found.low < found.mean < found.high
    # The interval's end is where the two-sided test would just give 5 %.
    shifted = compare([0.7, 0.8, 0.75, 0.9], [found.low] * 4, 1 / 3)
    assert shifted.p == pytest.approx(0.05, abs=1e-6)


def test_holm_by_hand():
    # Smallest times 4, next times 3, ...; never smaller than the one before, at most 1.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_holm_leaves_out_what_was_not_tested():
    adjusted = holm([0.01, math.nan, 0.02])
    assert adjusted[0] == pytest.approx(0.02)
    assert math.isnan(adjusted[1])
    assert adjusted[2] == pytest.approx(0.02)
