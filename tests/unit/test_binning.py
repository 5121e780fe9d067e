"""Bin edges from training values."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherscore.client.binning import LEAST_SHARE, fit_edges, tree_cuts
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


def test_tree_bins_hold_their_least_share():
    generator = np.random.default_rng(3)
    values = generator.exponential(1, 500)
    labels = (generator.random(500) < values / 4).astype(np.int8)
    edges = fit("tree", 12, values, labels)
    assert min(np.histogram(values, edges)[0]) >= LEAST_SHARE * 500
    assert 3 < len(edges) <= 13


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
