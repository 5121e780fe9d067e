"""Stratified splits fixed by a seed."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherscore.client.splits import (
    FRACTIONS,
    MIN_ROWS_PER_CLASS,
    GroupNumbers,
    grouped_split,
    stratified_split,
)
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


GROUPS = np.repeat(np.arange(200), 5)
GROUP_LABEL = (np.arange(1000) % 10 == 0).astype(np.int8)


@given(st.integers(0, 2**32 - 1))
def test_no_group_is_divided_and_each_class_is_in_each_part(seed):
    split = grouped_split(GROUP_LABEL, GROUPS, seed)
    assert (split.reshape(200, 5) == split[::5, None]).all()
    for part, share in ((TRAIN, 0.64), (VALIDATION, 0.16), (TEST, 0.2)):
        for value in (0, 1):
            assert abs((split[value == GROUP_LABEL] == part).mean() - share) < 0.02
    assert (grouped_split(GROUP_LABEL, GROUPS * 7 + 3, seed) == split).all()


def test_one_huge_group_goes_somewhere_whole():
    group = np.concatenate([np.zeros(900, int), np.arange(1, 301)])
    label = (np.arange(1200) % 2).astype(np.int8)
    split = grouped_split(label, group, 0)
    assert len(set(split[:900])) == 1


def test_too_few_groups_are_refused():
    label = np.array([0, 1] * 50, np.int8)
    with pytest.raises(
        DataError, match=r"the \w+ part has no row of \w+ credit \(2 groups, 2 with"
    ):
        grouped_split(label, np.arange(100) // 50, 0)
    with pytest.raises(DataError, match=r"no row of good credit \(0 groups"):
        grouped_split(np.empty(0, np.int8), np.empty(0, np.int64), 0)


def test_group_numbers_go_on_over_batches():
    known = GroupNumbers()
    assert known.of(pa.array(["a", " b ", None, "a", ""])).tolist() == [0, 1, 2, 0, 3]
    assert known.of(pa.array(["b", None, "c", "a"])).tolist() == [1, 5, 4, 0]
    assert GroupNumbers().of(pa.array([7, 7, 9]).dictionary_encode()).tolist() == [0, 0, 1]
