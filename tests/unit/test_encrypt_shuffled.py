"""Token tables whose rows stand in another order than the raw table's."""

from __future__ import annotations

import csv

import numpy as np
import pyarrow as pa
import pytest

from cipherscore.client import encrypt
from cipherscore.client.encrypt import decrypt_table, encrypt_table
from cipherscore.client.keys import Keyset
from cipherscore.client.sources import from_arrow
from cipherscore.dataset import read_tokens
from cipherscore.errors import ConfigurationError
from cipherscore.schema import Field, Schema, Target
from cipherscore.smoothing import Smoothing

KEYS = Keyset("0badcafe", {"0badcafe": bytes(range(32))})
OTHER_KEYS = Keyset("0badcafe", {"0badcafe": bytes(range(1, 33))})
ROWS = 300
NAMES = [f"n{number:03}" for number in range(ROWS)]
LABELS = np.arange(ROWS) % 3 == 0


def schema(smoothing=None):
    categories = dict.fromkeys(NAMES, "")
    fields = (
        Field("name", "categorical", categories=categories),
        Field("color", "categorical", categories={"r": "", "b": ""}, smoothing=smoothing),
    )
    return Schema("rows", fields, Target("y", good="ok", bad="bad"))


def table(*, target=True):
    columns = {"name": NAMES, "color": ["r", "b"] * (ROWS // 2)}
    if target:
        columns["y"] = np.where(LABELS, "bad", "ok")
    return from_arrow(pa.table(columns))


def order(tmp_path, keys=KEYS, seed=0, smoothing=None, **options):
    """The rows' numbers in the raw table, as they stand in the token table; and the table."""
    made = encrypt_table(table(), schema(smoothing), keys, tmp_path / "t", seed=seed, **options)
    decrypt_table(tmp_path / "t", made.schema, keys, tmp_path / "csv")
    with (tmp_path / "csv").open() as file:
        rows = list(csv.DictReader(file))
    numbers = [int(row["name"][1:]) for row in rows]
    assert [row["color"] for row in rows] == ["rb"[number % 2] for number in numbers]
    return numbers, read_tokens(tmp_path / "t")


def test_rows_keep_their_order_unless_asked(tmp_path):
    assert order(tmp_path)[0] == list(range(ROWS))


@pytest.mark.parametrize("smoothing", [None, Smoothing(0.1)])
def test_shuffled_rows_are_all_there_with_their_labels_and_split(tmp_path, smoothing):
    _, plain = order(tmp_path, smoothing=smoothing)
    numbers, found = order(tmp_path, smoothing=smoothing, shuffle=True)
    assert sorted(numbers) == list(range(ROWS))
    assert np.abs(np.corrcoef(numbers, np.arange(ROWS))[0, 1]) < 0.25
    assert np.array_equal(found.label, LABELS[numbers])
    assert np.array_equal(found.split, plain.split[numbers])
    assert len(np.unique(found.split)) == 3


def test_the_order_is_the_keys_and_the_seeds(tmp_path):
    first, again = (order(tmp_path, shuffle=True)[0] for _ in range(2))
    assert first == again
    assert order(tmp_path, OTHER_KEYS, shuffle=True)[0] != first
    assert order(tmp_path, seed=1, shuffle=True)[0] != first


def test_rows_wander_through_blocks_and_not_beyond(tmp_path, monkeypatch):
    monkeypatch.setattr(encrypt, "BLOCK_ROWS", 100)
    numbers = np.array(order(tmp_path, shuffle=True)[0])
    assert np.array_equal(numbers // 100, np.repeat([0, 1, 2], 100))
    assert not np.array_equal(numbers, np.sort(numbers))


def test_a_table_that_is_to_be_scored_keeps_its_order(tmp_path):
    with pytest.raises(ConfigurationError, match="its scores come in its order"):
        encrypt_table(
            table(target=False), schema(), KEYS, tmp_path / "t", labelled=False, shuffle=True
        )
    assert not (tmp_path / "t").exists()
