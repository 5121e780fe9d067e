"""Homophones: known tokens and draws, every token back to its level, and how often each is drawn."""

import hmac
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherscore.client.encryption import FieldCipher, padded_length
from cipherscore.client.homophones import DRAW_BITS, FieldTokens, HomophonePrf
from cipherscore.client.keys import Keyset
from cipherscore.client.nonces import column_draws, random_nonces, table_nonces
from cipherscore.client.records import RecordCodec
from cipherscore.client.tables import encode_batch
from cipherscore.errors import ConfigurationError, SchemaError
from cipherscore.schema import Field, Schema, Target
from cipherscore.schema_file import load_schema
from tests.support import siv_reference

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/homophones_v1.json").read_text())
KEYS = Keyset("0badcafe", {"0badcafe": bytes(range(32)), "0000beef": bytes(32)})
COLOUR = Field(
    "colour", "categorical", categories={"r": "red", "g": "green", "b": "blue"}, missing="level",
    homophones={"r": (1, 1, 1), "g": (5, 0, 2), "b": (1,), "<missing>": (0, 7)},
)  # fmt: skip
SIZE = Field("size", "numeric", edges=(0.0, 1.0, 2.0))
SCHEMA = Schema("smooth", (COLOUR, SIZE), Target("y", "0", "1"))
CODEC = RecordCodec(FieldCipher(KEYS, SCHEMA))
NONCES = st.binary(min_size=12, max_size=12)
VALUES = st.sampled_from(["r", "g", "b", None])


def smoothed_capstone(weights):
    schema = load_schema("german-credit-capstone")
    levels = dict.fromkeys(schema.by_name["purpose"].levels, (1,)) | weights
    return schema.with_homophones({"purpose": levels})


def test_known_tokens():
    """Pins the format: tokens already stored must stay readable for ever."""
    cipher = FieldCipher(KEYS, smoothed_capstone({"A43": (1,) * 259}))
    for number, token in VECTORS["tokens"].items():
        made = cipher.encrypt_deterministically("purpose", "A43", int(number))
        assert made.hex() == token
        assert cipher.decrypt("purpose", made) == "A43"
    # What needs no homophones reads them too, and has the same first one.
    plain = FieldCipher(KEYS, load_schema("german-credit-capstone"))
    assert plain.decrypt("purpose", bytes.fromhex(VECTORS["tokens"]["258"])) == "A43"
    assert plain.tokens("purpose")["A43"] == (bytes.fromhex(VECTORS["tokens"]["0"]),)


def test_keys_of_a_second_hkdf():
    """RFC 5869 on hmac: extract without salt, then one block of output."""
    info = b"".join(
        len(part).to_bytes(4, "big") + part
        for part in (b"cipherscore smoothing key", b"smooth/1", b"choice")
    )
    extracted = hmac.digest(bytes(32), bytes(range(32)), "sha256")
    key = hmac.digest(extracted, info + b"\x01", "sha256")
    assert KEYS.smoothing_key("0badcafe", "smooth/1", "choice") == key
    assert CODEC.prf.draws(bytes(12), 2) == HomophonePrf(key).draws(bytes(12), 2)
    purposes = ("choice", "order", "weights")
    assert len({KEYS.smoothing_key("0badcafe", "smooth/1", purpose) for purpose in purposes}) == 3


def test_known_draw():
    known = VECTORS["draw"]
    prf = HomophonePrf(bytes.fromhex(known["key"]))
    nonce = np.frombuffer(bytes.fromhex(known["nonce"]), np.uint8)[None]
    (draw,) = column_draws(prf, nonce, int(known["field"], 16))
    assert int(draw) == int.from_bytes(bytes.fromhex(known["ciphertext"])[:6], "little")


def test_tokens_equal_the_second_implementation():
    key = KEYS.field_key("0badcafe", "smooth/1", "colour")
    head = b"\x01\x0b\xad\xca\xfe"
    for level, weights in COLOUR.homophones.items():
        for number, token in enumerate(CODEC.tokens["colour"][level]):
            suffix = b"\xff" + number.to_bytes(2, "big") if number else b""
            plaintext = (level.encode() + suffix + b"\x80").ljust(16, b"\0")
            expected = siv_reference.encrypt(key, [head, b"smooth/1", b"colour"], plaintext)
            assert token == head + expected
        assert len(CODEC.tokens["colour"][level]) == len(weights)


def test_an_unsmoothed_table_is_as_it_was():
    """One token a level, without a nonce: the same bytes as before there were homophones."""
    ones = dict.fromkeys(COLOUR.levels, (1,))
    alone = replace(SCHEMA, fields=(replace(COLOUR, homophones={}), SIZE))
    same = replace(SCHEMA, fields=(replace(COLOUR, homophones=ones), SIZE))
    assert alone.digest == same.digest != SCHEMA.digest
    for schema in (alone, same):
        codec = RecordCodec(FieldCipher(KEYS, schema))
        assert codec.prf is None
        assert not schema.smoothed
        one, two = (codec.encode({"colour": "g", "size": 1}) for _ in range(2))
        assert one == two
        assert one["colour"] == CODEC.tokens["colour"]["g"][0]
        encoded = encode_batch(pa.table({"colour": ["g"], "size": [1.0]}), codec)
        assert encoded["colour"].dictionary == (one["colour"],)


@given(st.lists(st.integers(1, 62), min_size=1, max_size=5, unique=True), st.integers(2, 400))
def test_all_tokens_of_a_field_are_equally_long_and_decrypt(lengths, count):
    levels = ["x" * length for length in lengths]
    homophones = dict.fromkeys(levels, (1,) * count)
    field = Field("f", "categorical", categories=dict.fromkeys(levels, ""), homophones=homophones)
    cipher = FieldCipher(KEYS, Schema("any", (field,), Target("y", "0", "1")))
    tokens = cipher.tokens("f")
    everything = [token for column in tokens.values() for token in column]
    assert len(set(everything)) == count * len(levels)
    assert {len(token) for token in everything} == {21 + padded_length(field)}
    for level, column in tokens.items():
        assert {cipher.decrypt("f", token) for token in (column[0], column[-1])} == {level}


@given(NONCES, VALUES)
def test_whatever_the_nonce_the_level_comes_back(nonce, value):
    record = {"colour": value, "size": 0.5}
    tokens = CODEC.encode(record, nonce=nonce)
    assert tokens == CODEC.encode(record, nonce=nonce)
    assert CODEC.decode(tokens) == {"colour": value, "size": "[0, 1)"}
    # Without its tables, by the key alone, and under a keyset that was rotated since.
    level = FieldCipher(KEYS.rotate(), SCHEMA).decrypt("colour", tokens["colour"])
    assert level == (value or "<missing>")
    number = CODEC.tokens["colour"][level].index(tokens["colour"])
    assert COLOUR.homophones[level][number] > 0


@given(st.lists(st.tuples(NONCES, VALUES), min_size=1, max_size=40))
def test_tables_and_records_get_the_same_tokens(rows):
    table = pa.table(
        {"colour": pa.array([v for _, v in rows], pa.string()), "size": [0.5] * len(rows)}
    )
    nonces = np.frombuffer(b"".join(nonce for nonce, _ in rows), np.uint8).reshape(-1, 12)
    encoded = encode_batch(table, CODEC, nonces)
    for at, (nonce, value) in enumerate(rows):
        tokens = CODEC.encode({"colour": value, "size": 0.5}, nonce=nonce)
        for name, column in encoded.items():
            assert column.dictionary[column.indices[at]] == tokens[name]
    for column in encoded.values():
        assert list(column.dictionary) == sorted(set(column.dictionary))


@given(NONCES, st.integers(1, 40))
def test_each_field_has_a_draw_of_its_own(nonce, fields):
    draws = CODEC.prf.draws(nonce, fields)
    whole = np.frombuffer(nonce, np.uint8)[None]
    assert draws == [int(column_draws(CODEC.prf, whole, n)[0]) for n in range(fields)]
    assert len(set(draws)) == fields


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30).filter(any))
def test_draws_are_shared_out_exactly_by_weight(weights):
    """The length of a token's part of all draws is its weight's share, to one draw."""
    tokens = [b"%d" % number for number in range(len(weights))]
    field = FieldTokens({"a": [b"x"], "l": tokens}, {"a": [1], "l": weights})
    starts = [start - (1 << DRAW_BITS) for start in field.starts[1:]] + [1 << DRAW_BITS]
    for number, weight in enumerate(weights):
        share = Fraction(starts[number + 1] - starts[number], 1 << DRAW_BITS)
        assert abs(share - Fraction(weight, sum(weights))) <= Fraction(1, 1 << DRAW_BITS)
        for draw in (starts[number], starts[number + 1] - 1) if weight else ():
            assert field.choose("l", draw) == tokens[number]
    assert field.choose("a", (1 << DRAW_BITS) - 1) == b"x"


def test_frequencies_approach_the_weights():
    """Deterministic: the nonces come from a seed.  100,000 draws, five standard deviations."""
    rows = 100_000
    nonces = table_nonces(5, np.arange(rows), np.zeros(rows, np.int64))
    for level, expected in (("r", (1 / 3, 1 / 3, 1 / 3)), ("g", (5 / 7, 0, 2 / 7))):
        table = pa.table({"colour": [level] * rows, "size": [0.0] * rows})
        column = encode_batch(table, CODEC, nonces)["colour"]
        counts = dict(zip(column.dictionary, np.bincount(column.indices), strict=True))
        for token, share in zip(CODEC.tokens["colour"][level], expected, strict=True):
            deviation = (rows * share * (1 - share)) ** 0.5
            assert abs(counts.get(token, 0) - rows * share) <= 5 * deviation


def test_fields_rows_seeds_and_keys_draw_independently():
    rows = np.arange(4000)
    prf = CODEC.prf
    seen = [
        column_draws(prf, table_nonces(1, rows, rows * 0), 0),
        column_draws(prf, table_nonces(1, rows, rows * 0), 1),
        column_draws(prf, table_nonces(1, rows, rows * 0 + 1), 0),
        column_draws(prf, table_nonces(2, rows, rows * 0), 0),
        column_draws(FieldCipher(KEYS, SCHEMA).smoothing_prf("order"), table_nonces(1, rows, rows * 0), 0),
        column_draws(FieldCipher(KEYS, SCHEMA, "0000beef").smoothing_prf("choice"), table_nonces(1, rows, rows * 0), 0),
        column_draws(prf, random_nonces(len(rows)), 0),
    ]  # fmt: skip
    assert len(np.unique(np.concatenate(seen))) == len(rows) * len(seen)
    correlation = np.corrcoef(np.array(seen, np.float64))
    assert np.abs(correlation - np.eye(len(seen))).max() < 5 / len(rows) ** 0.5


def test_a_repeated_record_gets_other_tokens():
    record = {"colour": "r", "size": 0.5}
    assert len({CODEC.encode(record)["colour"] for _ in range(200)}) == 3
    table = pa.table({"colour": ["r"] * 200, "size": [0.5] * 200})
    assert len(encode_batch(table, CODEC)["colour"].dictionary) == 3
    assert len(encode_batch(table, CODEC)["size"].dictionary) == 1


def test_refusals():
    with pytest.raises(ConfigurationError, match="12 bytes, not 3"):
        CODEC.encode({"colour": "r", "size": 0.5}, nonce=b"abc")
    cipher = FieldCipher(KEYS, SCHEMA)
    with pytest.raises(SchemaError, match="homophone 3 of a level that has 3"):
        cipher.encrypt_deterministically("colour", "r", 3)
    with pytest.raises(SchemaError, match="homophone -1"):
        cipher.encrypt_deterministically("colour", "r", -1)
