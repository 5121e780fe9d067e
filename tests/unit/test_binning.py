"""Bin edges from training values."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherscore.client.binning import (
    BASE_BINS,
    LEAST_ROWS,
    LEAST_SHARE,
    MANY_ROWS,
    MOST_BINS,
    default_binning,
    fit_edges,
    tree_cuts,
)
from cipherscore.errors import DataError
from cipherscore.schema import Binning, Field


def field(method, bins):
    return Field("f", "numeric", binning=Binning(method, bins))


def fit(method, bins, values, labels=None):
    values = np.asarray(values, np.float64)
    labels = np.zeros(len(values), np.int8) if labels is None else np.asarray(labels, np.int8)
    return fit_edges(field(method, bins), values, labels)


def test_uniform_bins_are_the_published_arithmetic():
    assert fit("uniform", 4, [4, 72, 30, 12]) == (4, 21, 38, 55, 72)
    assert fit("uniform", 4, [250, 18424, 999]) == (250, 4793.5, 9337, 13880.5, 18424)


def test_quantile_bins_hold_equal_counts():
    values = np.arange(1000.0)
    edges = fit("quantile", 4, values)
    assert np.histogram(values, edges)[0].tolist() == [250] * 4


def test_quantile_bins_of_a_repeated_value_are_fewer():
    assert fit("quantile", 4, [1.0] * 97 + [2.0, 3.0, 4.0, 5.0, 6.0]) == (1.0, 6.0)


@pytest.mark.parametrize("method", ["quantile", "tree"])
def test_few_distinct_values_get_a_bin_each(method):
    edges = fit(method, 4, [1, 2, 4, 4, 2, 1])
    assert edges == (1, 1.5, 3, 4)


def test_tree_cuts_where_the_classes_part():
    values = np.repeat(np.arange(10.0), 20)
    labels = ((values >= 3) & (values < 7)).astype(np.int8)
    assert tree_cuts(values, labels, 3).tolist() == [2.5, 6.5]
    assert tree_cuts(values, labels, 8).tolist() == [2.5, 6.5]
    assert tree_cuts(values, labels, 2).tolist() in ([2.5], [6.5])


def test_tree_makes_no_cut_that_says_nothing():
    values = np.repeat(np.arange(20.0), 10)
    assert fit("tree", 4, values, np.tile([0, 1], 100)) == (0, 19)


def drawn(rows, seed=3):
    generator = np.random.default_rng(seed)
    values = generator.exponential(1, rows)
    return values, (generator.random(rows) < np.minimum(values / 4, 1)).astype(np.int8)


def test_the_first_tree_bins_hold_their_least_share():
    values, labels = drawn(500)
    edges = fit("tree", BASE_BINS, values, labels)
    assert min(np.histogram(values, edges)[0]) >= LEAST_SHARE * 500
    assert len(edges) == BASE_BINS + 1


@pytest.mark.parametrize("rows", [100, 500, 5000])
def test_further_tree_bins_refine_the_first(rows):
    values, labels = drawn(rows)
    first, all_cuts = (tree_cuts(values, labels, bins) for bins in (BASE_BINS, 64))
    assert set(first) <= set(all_cuts)
    counts = np.histogram(values, [0, *all_cuts, values.max()])[0]
    assert counts.min() >= min(LEAST_ROWS, LEAST_SHARE * rows)


def test_a_rare_pure_range_gets_a_bin_of_its_own():
    """An amount of 7,298 in Adult's capital gain, say: 1 % of the rows, all of one class."""
    generator = np.random.default_rng(0)
    values = generator.random(5000)
    labels = (generator.random(5000) < 0.2).astype(np.int8)
    special = (values > 0.5) & (values < 0.51)
    labels[special] = 1
    cuts = tree_cuts(values, labels, 64)
    assert np.abs(cuts - 0.5).min() < 0.002
    assert np.abs(cuts - 0.51).min() < 0.002


def test_noise_gets_few_bins_however_many_are_allowed():
    generator = np.random.default_rng(1)
    cuts = tree_cuts(generator.random(20_000), generator.integers(0, 2, 20_000), 64)
    # A cut through noise gains 4 bits seldom, but thousands of places are tried.
    assert BASE_BINS - 1 <= len(cuts) < 16


def test_a_single_rare_row_gets_no_bin_of_its_own():
    generator = np.random.default_rng(2)
    values = generator.random(50_000)
    labels = (generator.random(50_000) < 0.002).astype(np.int8)
    assert len(tree_cuts(values, labels, 64)) < 8
    near = (values > 0.7) & (values < 0.701)
    labels[near] = 1  # some fifty of them in one place do
    cuts = tree_cuts(values, labels, 64)
    assert np.abs(cuts - 0.7).min() < 0.001
    assert np.abs(cuts - 0.701).min() < 0.001


def test_default_bins_grow_with_the_table():
    assert default_binning(1000) == Binning("tree", BASE_BINS)
    assert default_binning(MANY_ROWS) == default_binning(300_000) == Binning("tree", MOST_BINS)


@pytest.mark.parametrize(
    "values", [[], [1.0], [2, 2, 2], [math.nan] * 3, [math.nan, 5.0, math.inf]]
)
@pytest.mark.parametrize("method", ["uniform", "quantile", "tree"])
def test_constant_fields_are_refused(method, values):
    with pytest.raises(DataError, match=r"'f' has [01] distinct value\(s\)"):
        fit(method, 3, values)


def test_absent_values_are_left_out():
    assert fit("uniform", 2, [1, math.nan, 3, -math.inf]) == (1, 2, 3)


def test_field_without_binning():
    with pytest.raises(DataError, match="neither edges nor a binning"):
        fit_edges(Field("f", "numeric", edges=(0.0, 1.0)), np.arange(3.0), np.zeros(3, np.int8))


@given(
    st.sampled_from(["uniform", "quantile", "tree"]),
    st.integers(2, 9),
    st.lists(st.tuples(st.integers(-50, 50).map(float), st.booleans()), min_size=2, max_size=40),
)
def test_any_fit_gives_a_valid_field(method, bins, rows):
    values, labels = zip(*rows, strict=True)
    if len(set(values)) < 2:
        return
    edges = fit(method, bins, values, labels)
    fitted = Field("f", "numeric", edges=edges)
    assert (edges[0], edges[-1]) == (min(values), max(values))
    assert 1 <= len(fitted.levels) <= bins
    assert fit(method, bins, values[::-1], labels[::-1]) == edges
