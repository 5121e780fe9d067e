"""The informed attacker finds what is there, and nothing where nothing is; its benchmark runs."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from attacks.informed import by_mode, informed
from benchmarks import scorecards
from cipherscore.schema_file import save_schema
from tests.support.raw_tables import tiny_table


def shares(guess, truth):
    return np.mean(guess == truth, axis=0)


def test_a_planted_leak_is_found_and_no_other():
    """One column gives the first field away, two together the second; the third is independent."""
    generator = np.random.default_rng(0)
    seen = generator.integers(0, 4, (1200, 2))
    both = (seen[:, 0] // 2) ^ (seen[:, 1] // 2)  # no single column tells it
    alone = generator.choice(3, 1200, p=[0.6, 0.3, 0.1])
    truth = np.stack([3 - seen[:, 0], both, alone, np.zeros(1200, int)], axis=1)
    guess = informed(seen[:600], seen[600:], truth[600:], (4, 4))
    found = shares(guess, truth[:600])
    assert found[0] == 1
    assert found[1] > 0.99
    assert found[2] == pytest.approx(np.mean(alone[:600] == 0), abs=0.01)
    assert found[3] == 1
    mode = shares(by_mode(seen[:600], seen[600:], truth[600:], (4, 4), 0), truth[:600])
    assert mode[0] < 0.35
    assert mode[1] < 0.6


def test_nothing_is_found_where_nothing_is():
    generator = np.random.default_rng(1)
    seen, truth = generator.integers(0, 5, (1000, 3)), generator.integers(0, 4, (1000, 10))
    guess = informed(seen[:500], seen[500:], truth[500:], (5, 5, 5))
    assert abs(shares(guess, truth[:500]).mean() - 0.25) < 0.02  # 4.6 standard errors


def test_levels_that_the_sample_lacks_do_no_harm():
    seen = np.array([[0], [1], [4], [3]])
    sample, levels = np.array([[0], [1]] * 30), np.array([[5], [2]] * 30)
    guess = informed(seen, sample, levels, (5,))
    assert guess[:2, 0].tolist() == [5, 2]
    assert set(guess[2:, 0].tolist()) <= {2, 5}


def test_the_same_seed_guesses_the_same():
    generator = np.random.default_rng(2)
    seen = generator.integers(0, 5, (300, 2))
    truth = (seen[:, :1] + generator.integers(0, 3, (300, 4))) % 5
    first, second = (informed(seen, seen, truth, (5, 5), 3) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="2 sizes, but seen"):
        informed(np.zeros((5, 3)), np.zeros((5, 2)), np.zeros((5, 1)), (2, 2))
    with pytest.raises(ValueError, match="2 plain rows are too few"):
        informed(np.zeros((5, 1)), np.zeros((2, 1)), np.zeros((2, 1)), (2,))


def test_the_benchmark_of_scorecards(tmp_path):
    raw = tiny_table(300)
    save_schema(raw.schema, tmp_path / "own.toml")
    pa.csv.write_csv(raw.table, tmp_path / "raw.csv")
    words = ["--data", tmp_path / "raw.csv", "--schema", tmp_path / "own.toml", "--out", tmp_path,
             "--setting", "1x2", "--cuts", "2", "--take", "0"]  # fmt: skip
    assert scorecards.main([str(word) for word in words]) == 0
    found = json.loads((tmp_path / "scorecards.json").read_text())["summary"]
    assert found["fields"]["informed"]["mean"] == 1
    one = found["1x2"]
    assert one["mode"]["mean"] - 0.02 <= one["informed"]["mean"] < 0.95
    assert one["alone"]["mean"] == 0
    assert "| 1x2 |" in (tmp_path / "scorecards.md").read_text()


def test_rows_alone_are_counted():
    assert scorecards.alone(np.array([[1, 2], [1, 2], [2, 1], [3, 3]])) == 0.5
