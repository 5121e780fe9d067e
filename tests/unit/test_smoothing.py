"""Frequency smoothing: schema entries, how many homophones a level gets, and smoothed tables."""

import csv
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cipherscore.client import encrypt
from cipherscore.client.encrypt import decrypt_table, encrypt_table
from cipherscore.client.encryption import FieldCipher
from cipherscore.client.fitting import WEIGHT_SCALE, homophones, weights_prf
from cipherscore.client.keys import Keyset
from cipherscore.client.records import RecordCodec
from cipherscore.client.sources import RawTable, from_arrow
from cipherscore.dataset import TRAIN, read_tokens
from cipherscore.errors import ConfigurationError, SchemaError
from cipherscore.schema import Field, Schema, Smoothing, Target
from cipherscore.schema_file import format_schema, load_schema, parse_schema
from cipherscore.smoothing import MAX_TOKENS

KEYS = Keyset("0badcafe", {"0badcafe": bytes(range(32)), "0000beef": bytes(32)})
OTHER_KEYS = Keyset("0000beef", {"0000beef": bytes(32)})
TOML = """
format = 1
name = "small"
[target]
name = "y"
good = "ok"
bad = "bad"
"""
FIELDS = """
[[field]]
name = "colour"
kind = "categorical"
categories = {r = "red", g = "green"}
[[field]]
name = "size"
kind = "numeric"
edges = [0, 1, 2]
"""


@pytest.fixture(scope="module")
def sample(sample_path):
    names = [*load_schema("german-credit").by_name, "classification"]
    types = dict.fromkeys(names, pa.string())
    return pacsv.read_csv(sample_path, convert_options=pacsv.ConvertOptions(column_types=types))


def smooth(schema, most_share, method="proportional"):
    smoothing = Smoothing(most_share, method)
    return replace(schema, fields=tuple(replace(f, smoothing=smoothing) for f in schema.fields))


def test_a_share_for_all_fields_and_one_of_its_own():
    text = TOML + "[smoothing]\nmost_share = 0.05\n" + FIELDS
    text += '[field.smoothing]\nmost_share = 1\nmethod = "poisson"\n'
    schema = parse_schema(text)
    assert schema.by_name["colour"].smoothing == Smoothing(0.05, "proportional")
    assert schema.by_name["size"].smoothing == Smoothing(1, "poisson")
    assert not schema.fitted
    assert parse_schema(format_schema(schema)) == schema
    fitted = schema.with_homophones(
        {"colour": {"r": (1, 1, 1), "g": (1,)}, "size": {"[0, 1)": (500, 0, 7), "[1, 2]": (2,)}}
    )
    assert fitted.fitted
    assert fitted.smoothed
    assert parse_schema(format_schema(fitted)) == fitted
    assert "r = 3\n" in format_schema(fitted)
    assert parse_schema(TOML + FIELDS).by_name["size"].smoothing is None


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("smoothing = {most_share = 0}", "most_share must be 0.0001 to 1, not 0"),
        ("smoothing = {most_share = 1.5}", "most_share must be 0.0001 to 1"),
        ("smoothing = {most_share = nan}", "most_share must be 0.0001 to 1"),
        ("smoothing = {most_share = '1'}", "give a whole number or a number"),
        ("smoothing = {method = 'poisson'}", "'most_share' is missing"),
        ("smoothing = {most_share = 1, method = 'x'}", "known: proportional, poisson"),
        ("smoothing = {most_share = 1, odd = 1}", "unknown entry 'odd'"),
        ("homophones = {'[0, 1)' = 2}", r"'\[1, 2\]' is missing or no level"),
        ("homophones = {'[0, 1)' = 2, '[1, 2]' = 1, x = 1}", "'x' is missing or no level"),
        ("homophones = {'[0, 1)' = [0, 0], '[1, 2]' = 1}", "not all 0"),
        ("homophones = {'[0, 1)' = [-1, 2], '[1, 2]' = 1}", "weights are 0 to"),
        ("homophones = {'[0, 1)' = [], '[1, 2]' = 1}", "not all 0"),
        ("homophones = {'[0, 1)' = 0, '[1, 2]' = 1}", f"give 1 to {MAX_TOKENS}"),
        ("homophones = {'[0, 1)' = true, '[1, 2]' = 1}", "their number, or weights"),
        ("homophones = {'[0, 1)' = ['1'], '[1, 2]' = 1}", "their number, or weights"),
        (f"homophones = {{'[0, 1)' = {MAX_TOKENS}, '[1, 2]' = 1}}", "Raise most_share"),
    ],
)
def test_wrong_entries_are_named(entry, said):
    with pytest.raises(SchemaError, match="'size'.*" + said):
        parse_schema(TOML + FIELDS + entry + "\n")


def test_the_digest_is_of_the_tokens_there_are():
    plain = parse_schema(TOML + FIELDS)
    two = plain.with_homophones({"colour": {"r": (1, 1), "g": (1,)}})
    weighed = plain.with_homophones({"colour": {"r": (0, 5), "g": (2,)}})
    assert plain.digest == smooth(plain, 0.5).digest
    assert plain.digest != two.digest == weighed.digest
    moved = plain.with_homophones({"colour": {"r": (1,), "g": (1, 1)}})
    assert moved.digest not in (plain.digest, two.digest)


def categorical(levels, smoothing):
    codes = dict.fromkeys((f"c{level}" for level in range(levels)), "")
    return Field("f", "categorical", categories=codes, smoothing=smoothing)


PRF = weights_prf(KEYS, Schema("any", (categorical(1, None),), Target("y", "0", "1")))


@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=10).filter(any), st.floats(0.01, 1.0)
)  # fmt: skip
def test_proportional_takes_no_more_tokens_than_it_needs(counts, most_share):
    field = categorical(len(counts), Smoothing(most_share))
    found = homophones(field, np.array(counts), PRF)
    assert list(found) == list(field.levels)
    for count, weights in zip(counts, found.values(), strict=True):
        share = count / sum(counts)
        assert set(weights) == {1}
        assert share / len(weights) <= most_share * (1 + 1e-6)
        assert len(weights) == 1 or share / (len(weights) - 1) > most_share * (1 - 1e-6)


@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=10).filter(any), st.floats(0.01, 1.0)
)  # fmt: skip
def test_poisson_weights_add_up_to_the_levels_shares(counts, most_share):
    field = categorical(len(counts), Smoothing(most_share, "poisson"))
    found = homophones(field, np.array(counts), PRF)
    for count, weights in zip(counts, found.values(), strict=True):
        share = count / sum(counts)
        assert weights == (1,) if not count else min(weights) > 0
        assert not count or abs(sum(weights) / WEIGHT_SCALE - share) <= len(weights) / WEIGHT_SCALE
    assert found == homophones(field, np.array(counts), PRF)


def test_poisson_weights_are_exponential_and_secret():
    """Pouliot, Griffy and Wright 2019: gaps of a Poisson process of rate 1 / most_share."""
    field = categorical(1, Smoothing(0.001, "poisson"))
    (weights,) = homophones(field, np.array([10]), PRF).values()
    # The last gap is cut by the end.  KS test, fixed key: the p-value is a constant.
    gaps = np.array(weights[:-1]) / WEIGHT_SCALE
    assert stats.kstest(gaps, "expon", args=(0, 0.001)).pvalue > 0.01
    assert 1000 - 5 * 1000**0.5 < len(weights) < 1000 + 5 * 1000**0.5
    other = weights_prf(OTHER_KEYS, Schema("any", (field,), Target("y", "0", "1")))
    assert homophones(field, np.array([10]), other) != {"c0": weights}
    assert homophones(replace(field, name="g"), np.array([10]), PRF) != {"c0": weights}


def test_no_token_of_a_smoothed_table_is_frequent(tmp_path, sample):
    schema = smooth(load_schema("german-credit"), 0.05)
    made = encrypt_table(from_arrow(sample), schema, KEYS, tmp_path / "t", draws=50)
    found = read_tokens(tmp_path / "t")
    assert made.schema.fitted
    assert found.schema == made.schema.public()
    train = found.split == TRAIN
    most = 0.05 + 5 * (0.05 / train.sum()) ** 0.5
    for column in found.columns.values():
        assert np.bincount(column.indices[train]).max() / train.sum() <= most
        assert list(column.dictionary) == sorted(column.dictionary)
        assert len({len(token) for token in column.dictionary}) == 1


@pytest.mark.parametrize("method", ["proportional", "poisson"])
def test_one_draw_keeps_rows_and_their_order(tmp_path, sample, method):
    plain = load_schema("german-credit")
    schema = smooth(plain, 0.1, method)
    made = encrypt_table(from_arrow(sample), schema, KEYS, tmp_path / "t", seed=3)
    again = encrypt_table(from_arrow(sample), schema, KEYS, tmp_path / "again", seed=3)
    bare = encrypt_table(from_arrow(sample), plain, KEYS, tmp_path / "bare", seed=3)
    assert made == again
    assert (tmp_path / "t").read_bytes() == (tmp_path / "again").read_bytes()
    smoothed, unsmoothed = read_tokens(tmp_path / "t"), read_tokens(tmp_path / "bare")
    assert (smoothed.split == unsmoothed.split).all()
    assert (smoothed.label == unsmoothed.label).all()
    for f, g in zip(made.schema.fields, bare.schema.fields, strict=True):
        assert f.levels == g.levels
    for name, fitted in (("t", made.schema), ("bare", bare.schema)):
        decrypt_table(tmp_path / name, fitted, KEYS, tmp_path / f"{name}.csv")
    assert (tmp_path / "t.csv").read_bytes() == (tmp_path / "bare.csv").read_bytes()
    # Fitted once: the same levels and homophones again, drawn by another seed.
    encrypt_table(from_arrow(sample), made.schema, KEYS, tmp_path / "other", seed=4)
    other = read_tokens(tmp_path / "other")
    assert other.schema.digest == smoothed.schema.digest
    for name, column in other.columns.items():
        assert set(column.dictionary) <= set(
            RecordCodec(FieldCipher(KEYS, made.schema)).levels[name]
        )


def lines(path, found):
    """Each row as decrypted, with its label and part of the split."""
    with path.open(newline="") as stream:
        rows = list(csv.reader(stream))[1:]
    return [
        (*row, *map(int, rest)) for row, *rest in zip(rows, found.label, found.split, strict=True)
    ]


def test_draws_copy_training_rows_only_and_hide_their_order(tmp_path, sample, monkeypatch):
    schema = smooth(load_schema("german-credit"), 0.1)
    rows, orders = {}, {}
    batches = sample.to_batches(max_chunksize=170)
    batches.insert(2, batches[0].slice(0, 0))
    cut = RawTable("cut", "file", lambda: iter(batches))
    # In blocks of all rows, of more than a batch, and of less.
    for name, keys, block in (("one", KEYS, 1 << 20), ("mid", KEYS, 1200), ("low", KEYS, 90),
                              ("key", OTHER_KEYS, 1 << 20)):  # fmt: skip
        monkeypatch.setattr(encrypt, "BLOCK_ROWS", block)
        made = encrypt_table(cut, schema, keys, tmp_path / name, draws=5)
        found = read_tokens(tmp_path / name)
        assert (made.rows, found.draws) == (found.rows, 5)
        decrypt_table(tmp_path / name, made.schema, keys, tmp_path / "csv")
        orders[name] = lines(tmp_path / "csv", found)
        rows[name] = Counter(orders[name])
    one = encrypt_table(cut, schema, KEYS, tmp_path / "once")
    assert (one.rows, read_tokens(tmp_path / "once").draws) == (len(sample), 1)
    bare = encrypt_table(cut, load_schema("german-credit"), KEYS, tmp_path / "bare")
    decrypt_table(tmp_path / "bare", bare.schema, KEYS, tmp_path / "csv")
    once = Counter(lines(tmp_path / "csv", read_tokens(tmp_path / "bare")))
    assert read_tokens(tmp_path / "bare").draws == 0
    expected = Counter({row: n * (5 if row[-1] == TRAIN else 1) for row, n in once.items()})
    for name, found in rows.items():
        assert found == expected, name
        neighbours = sum(a == b for a, b in zip(orders[name], orders[name][1:], strict=False))
        assert neighbours < (30 if name != "low" else 400)
    assert orders["one"] != orders["key"]


def test_the_client_draws_only_what_a_training_row_had(tmp_path, sample):
    """With few rows for many tokens some are never drawn: the host refuses them, so they rest."""
    schema = smooth(load_schema("german-credit"), 0.004, "poisson")
    made = encrypt_table(from_arrow(sample), schema, KEYS, tmp_path / "t")
    vocabulary = read_tokens(tmp_path / "t").build_vocabulary()
    resting = used = 0
    codec = RecordCodec(FieldCipher(KEYS, made.schema))
    names = [f.name for f in made.schema.fields]
    train = read_tokens(tmp_path / "t").split == TRAIN
    records = [row for row, kept in zip(sample.to_pylist(), train, strict=True) if kept]
    for record in records[:150]:
        for name, token in codec.encode(record).items():
            assert token in vocabulary.index[name]
    for name in names:
        f = made.schema.by_name[name]
        for level, column in codec.tokens[name].items():
            known = [token in vocabulary.index[name] for token in column]
            weights = f.homophones[level]
            assert known == [weight > 0 for weight in weights] or not any(known)
            resting += weights.count(0)
            used += sum(known)
    assert used == vocabulary.width
    assert resting > 100
    # Tables to be scored: also only these, and other ones each time.
    for name in ("once", "twice"):
        encrypt_table(
            from_arrow(sample.filter(pa.array(train))), made.schema, KEYS, tmp_path / name, labelled=False
        )  # fmt: skip
        table = replace(read_tokens(tmp_path / name), split=np.zeros(len(records), np.int8))
        assert (table.indices(vocabulary) >= 0).all()
    assert (tmp_path / "once").read_bytes() != (tmp_path / "twice").read_bytes()


def test_shares_are_those_of_training_rows(tmp_path, sample):
    schema = smooth(load_schema("german-credit-capstone"), 0.1)
    made = encrypt_table(from_arrow(sample), schema, KEYS, tmp_path / "t", seed=1)
    found = read_tokens(tmp_path / "t")
    train = found.split == TRAIN
    housing = np.array(sample.column("housing").to_pylist())[train]
    for level, weights in made.schema.by_name["housing"].homophones.items():
        share = np.mean(housing == level)
        assert len(weights) == max(1, np.ceil(share / 0.1 - 1e-9))


def test_refusals(tmp_path, sample):
    table, plain = from_arrow(sample), load_schema("german-credit-capstone")
    schema = smooth(plain, 0.1)
    for draws, labelled, asked, said in (
        (0, True, schema, "1 to 65536"),
        (2, False, schema, "without target"),
        (2, True, plain, "no field with smoothing"),
        (2, True, smooth(plain, 1), "no field with smoothing"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            encrypt_table(table, asked, KEYS, tmp_path / "t", labelled=labelled, draws=draws)
    with pytest.raises(SchemaError, match="homophones"):
        encrypt_table(table, schema, KEYS, tmp_path / "t", labelled=False)
    with pytest.raises(SchemaError, match="take homophones out"):
        schema.with_homophones({"housing": {"A151": (1,)}})
    assert not (tmp_path / "t").exists()
