import numpy as np
import pytest

pytest.importorskip("sklearn")

from tests.support.generator_tables import SIZES, structured_rows
from training import fidelity
from training.fidelity import Rows

COLUMNS = tuple(SIZES.values())


def rows(count, seed):
    return Rows(*structured_rows(count, seed))


def independent(count, seed):
    real = rows(count, seed)
    random = np.random.default_rng(seed)
    columns = [random.permutation(real.indices[:, f]) for f in range(real.indices.shape[1])]
    return Rows(np.stack(columns, axis=1), random.permutation(real.label))


def test_equal_tables_have_full_fidelity():
    assert fidelity.fidelity(rows(500, 0), rows(500, 0), COLUMNS) == (1.0, 1.0)


def test_independent_columns_lose_pair_fidelity_only():
    columns, pairs = fidelity.fidelity(rows(2000, 0), independent(2000, 0), COLUMNS)
    assert columns == pytest.approx(1)
    assert pairs < 0.95


def test_fidelity_by_hand():
    real = Rows(np.array([[0], [1]], np.int32), np.array([0, 1], np.int8))
    synthetic = Rows(np.array([[0], [0]], np.int32), np.array([0, 1], np.int8))
    assert fidelity.fidelity(real, synthetic, (2,)) == (0.75, 0.5)
    # Column: shares 1/2, 1/2 against 1, 0.  Pair: half of the rows lie in the right cell.
    table = fidelity.fidelity_table(real, synthetic, (2,))
    assert table.tolist() == [[0.5, 0.5], [0.5, 1.0]]


def test_fidelity_counts_an_unseen_token_as_missed():
    real = Rows(np.array([[0], [-1]], np.int32), np.array([0, 1], np.int8))
    synthetic = Rows(np.array([[0], [0]], np.int32), np.array([0, 1], np.int8))
    columns, _ = fidelity.fidelity(real, synthetic, (2,))
    assert columns < 1


def many_fields(count, seed):
    random = np.random.default_rng(seed)
    return Rows(
        random.integers(0, 4, (count, 12)).astype(np.int32),
        random.integers(0, 2, count).astype(np.int8),
    )


def test_closeness_of_copies_and_of_strangers():
    learned, holdout = many_fields(800, 0), many_fields(200, 1)
    sizes = (4,) * 12
    copied = fidelity.closeness_share(learned, learned, holdout, sizes)
    assert copied == pytest.approx(0.625, abs=0.01)
    fresh = fidelity.closeness_share(many_fields(800, 2), learned, holdout, sizes)
    assert fresh == pytest.approx(0.5, abs=0.03)


def test_copy_rate():
    learned = many_fields(100, 0)
    half = Rows(np.concatenate([learned.indices[:50], many_fields(50, 1).indices]), learned.label)
    assert fidelity.copy_rate(half, learned) == 0.5
    assert fidelity.copy_rate(many_fields(50, 2), learned) == 0


def test_tstr_tells_structure_from_marginals():
    tests = rows(1000, 9)
    real = fidelity.tstr_auc(rows(2000, 1), tests, COLUMNS)
    assert real > 0.7
    assert abs(fidelity.tstr_auc(independent(2000, 1), tests, COLUMNS) - 0.5) < 0.2
    one_class = Rows(tests.indices, np.zeros_like(tests.label))
    assert fidelity.tstr_auc(one_class, tests, COLUMNS) == 0.5


def test_rows_are_drawn_once_at_most():
    drawn = many_fields(100, 0).at_most(30)
    assert len(drawn.label) == 30
    assert len(many_fields(20, 0).at_most(30).label) == 20
