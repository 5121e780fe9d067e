"""Fixtures for all tests."""

import csv
from pathlib import Path

import pytest

from cipherscore.client.keys import Argon2Parameters, Keyset
from cipherscore.schema import Binning, Field, Schema, Target
from cipherscore.schema_file import BUILT_IN_FOLDER, load_schema

CHEAP_KDF = Argon2Parameters(memory_kib=64, iterations=1, lanes=1)
"""Argon2id at its smallest, so that tests of other things need no 64 MiB each."""


@pytest.fixture(scope="session")
def keyset() -> Keyset:
    return Keyset.create()


@pytest.fixture(scope="session")
def capstone_schema() -> Schema:
    """German Credit with the capstone's fixed bins: fitted as it is."""
    return load_schema("german-credit-capstone")


@pytest.fixture
def small_schema() -> Schema:
    """Two fields: one of each kind, the numeric one not fitted yet."""
    color = Field("color", "categorical", categories={"r": "red", "g": "green", "b": "blue"})
    size = Field(
        "size", "numeric", unit="cm", valid_range=(0.0, 100.0), binning=Binning("quantile", 3)
    )
    return Schema("small", (color, size), Target("y", good="ok", bad="bad", cost_false_good=5.0))


@pytest.fixture(scope="session")
def sample_path() -> Path:
    """The embedded synthetic sample of German Credit."""
    return Path(str(BUILT_IN_FOLDER / "german-credit-sample.csv"))


@pytest.fixture(scope="session")
def sample_records(sample_path: Path) -> list[dict[str, str]]:
    with sample_path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))
