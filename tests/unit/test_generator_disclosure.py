from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

from tests.support.generator_tables import SIZES, structured_rows
from training import disclosure
from training.fidelity import Rows

COLUMNS = tuple(SIZES.values())
MANY = (4,) * 12


def rows(count, seed):
    return Rows(*structured_rows(count, seed))


def many_fields(count, seed):
    random = np.random.default_rng(seed)
    return Rows(
        random.integers(0, 4, (count, 12)).astype(np.int32),
        random.integers(0, 2, count).astype(np.int8),
    )


def shuffled(real, seed):
    random = np.random.default_rng(seed)
    columns = [random.permutation(column) for column in real.indices.T]
    return Rows(np.stack(columns, axis=1), random.permutation(real.label))


def test_fresh_rows_are_not_detected_and_lost_structure_is():
    real = rows(1500, 0)
    assert disclosure.detection_auc(rows(1500, 1), real, COLUMNS) == pytest.approx(0.5, abs=0.05)
    assert disclosure.detection_auc(shuffled(real, 2), real, COLUMNS) > 0.6


def test_rows_of_a_token_that_no_real_row_has_are_all_detected():
    real = many_fields(300, 0)
    made = Rows(np.full((300, 12), 1, np.int32), many_fields(300, 1).label)
    assert disclosure.detection_auc(made, real, MANY) > 0.99


def test_detection_takes_equally_many_of_both():
    few, many = rows(90, 0), rows(3000, 1)
    found = disclosure.detection_auc(many, few, COLUMNS)
    assert found == disclosure.detection_auc(many, few, COLUMNS)
    assert 0.25 < found < 0.75


def test_copies_give_every_member_away():
    learned, holdout = many_fields(400, 0), many_fields(400, 1)
    assert disclosure.membership_auc(learned, learned, holdout, MANY) > 0.99
    fresh = many_fields(2000, 2)
    assert disclosure.membership_auc(fresh, learned, holdout, MANY) == pytest.approx(0.5, abs=0.06)


def test_membership_by_hand():
    synthetic = Rows(np.array([[0, 0]], np.int32), np.array([0], np.int8))
    learned = Rows(np.array([[0, 0], [1, 1]], np.int32), np.array([0, 1], np.int8))
    holdout = Rows(np.array([[0, 1], [1, 1]], np.int32), np.array([0, 1], np.int8))
    # Distances of members 0 and 2, of others 1 and 2: of four pairs the member is nearer in two,
    # as near in one.
    found = disclosure.membership_auc(synthetic, learned, holdout, (2, 2))
    assert found == pytest.approx(2.5 / 4)


def test_rare_coverage_by_hand():
    learned = Rows(np.array([[0]] * 96 + [[1]] * 2 + [[2]] * 2, np.int32), np.zeros(100, np.int8))
    made = Rows(np.array([[0], [2]], np.int32), np.zeros(2, np.int8))
    assert disclosure.rare_coverage(made, learned, (4,)) == 0.5  # of tokens 1 and 2; nobody had 3
    assert disclosure.rare_coverage(made, made, (4,)) == 1.0


def test_validity_by_hand():
    made = Rows(np.array([[0, 1], [-1, 0], [0, 2], [1, 0]], np.int32), np.zeros(4, np.int8))
    assert disclosure.validity(made, (2, 2)) == 0.5
