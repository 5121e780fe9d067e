"""Stratified splits fixed by a seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherscore.client.splits import FRACTIONS, MIN_ROWS_PER_CLASS, stratified_split
from cipherscore.dataset import TEST, TRAIN, VALIDATION
from cipherscore.errors import DataError

LABEL = np.random.default_rng(0).permutation(np.repeat([0, 1], [700, 300])).astype(np.int8)


@pytest.mark.parametrize("seed", [0, 1, 2**63])
def test_each_class_is_divided_alike(seed):
    split = stratified_split(LABEL, seed)
    assert split.dtype == np.int8
    for part, counts in {TRAIN: (448, 192), VALIDATION: (112, 48), TEST: (140, 60)}.items():
        assert np.bincount(LABEL[split == part]).tolist() == list(counts)


def test_seed_decides():
    one, again, other = (stratified_split(LABEL, seed) for seed in (5, 5, 6))
    assert (one == again).all()
    assert (one != other).any()


@pytest.mark.parametrize(
    ("good", "bad", "name"), [(0, 0, "good"), (9, 50, "good"), (50, 9, "bad"), (50, 0, "bad")]
)
def test_too_few_rows_of_a_class(good, bad, name):
    label = np.repeat([0, 1], [good, bad]).astype(np.int8)
    with pytest.raises(DataError, match=f"rows of {name} credit; at least {MIN_ROWS_PER_CLASS}"):
        stratified_split(label, 0)


@given(st.integers(10, 200), st.integers(10, 200), st.integers(0, 99))
def test_shares_hold_to_one_row(good, bad, seed):
    label = np.repeat([0, 1], [good, bad]).astype(np.int8)
    split = stratified_split(label, seed)
    for part, fraction in FRACTIONS.items():
        for value, rows in ((0, good), (1, bad)):
            assert abs((split[label == value] == part).sum() - fraction * rows) <= 0.5
