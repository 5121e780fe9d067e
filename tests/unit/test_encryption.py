"""Field cipher: known answers, a second implementation, and every way to fail."""

import json
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from hypothesis import given
from hypothesis import strategies as st

from cipherscore.client.encryption import FieldCipher, padded_length
from cipherscore.client.keys import Keyset
from cipherscore.client.records import RecordCodec
from cipherscore.errors import (
    DataError,
    DecryptionError,
    RecordError,
    SchemaError,
    TokenFormatError,
    UnknownKeyId,
)
from cipherscore.schema import MISSING_LEVEL, Field, Schema, Target
from cipherscore.schema_file import load_schema
from cipherscore.tokens import HEADER_LENGTH, from_text, header, key_id_of, to_text
from tests.support import siv_reference

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/aes_siv_rfc5297.json").read_text())
KEYS = Keyset("0badcafe", {"0badcafe": bytes(range(32)), "0000beef": bytes(32)})


def parts(vector):
    return (
        bytes.fromhex(vector["key"]),
        [bytes.fromhex(text) for text in vector["associated_data"]],
        bytes.fromhex(vector["plaintext"]),
        bytes.fromhex(vector["output"]),
    )


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda v: v["name"])
def test_rfc5297_vectors(vector):
    key, associated_data, plaintext, output = parts(vector)
    assert AESSIV(key).encrypt(plaintext, associated_data) == output
    assert siv_reference.encrypt(key, associated_data, plaintext) == output


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda v: v["name"])
def test_rfc5297_vectors_fail_when_changed(vector):
    key, associated_data, _, output = parts(vector)
    changed = [associated_data[0][::-1], *associated_data[1:]]
    flipped = bytes([output[0] ^ 1]) + output[1:]
    other = bytes([key[0] ^ 1]) + key[1:]
    for wrong in (
        (key, changed, output),
        (key, associated_data, flipped),
        (other, associated_data, output),
    ):
        with pytest.raises(InvalidTag):
            AESSIV(wrong[0]).decrypt(wrong[2], wrong[1])


def test_token_equals_the_second_implementation(capstone_schema):
    cipher = FieldCipher(KEYS, capstone_schema)
    for field in capstone_schema.fields:
        key = KEYS.field_key("0badcafe", "german-credit-capstone/1", field.name)
        for level in field.levels:
            plaintext = (level.encode() + b"\x80").ljust(padded_length(field), b"\0")
            head = b"\x01\x0b\xad\xca\xfe"
            expected = head + siv_reference.encrypt(
                key, [head, b"german-credit-capstone/1", field.name.encode()], plaintext
            )
            assert cipher.encrypt_deterministically(field.name, level) == expected


def test_known_token():
    """Pins the token format: tokens already stored must stay readable for ever."""
    cipher = FieldCipher(KEYS, load_schema("german-credit-capstone"))
    token = cipher.encrypt_deterministically("purpose", "A43")
    assert token.hex() == (Path(__file__).parents[1] / "vectors/token_v1.hex").read_text().strip()
    assert cipher.decrypt("purpose", token) == "A43"


LEVELS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40).filter(
    lambda text: text != MISSING_LEVEL and text.strip() and len(text.encode()) <= 255
)


@given(st.lists(LEVELS, min_size=1, max_size=12, unique=True))
def test_round_trip_and_equal_length_for_any_levels(levels):
    field = Field("f", "categorical", categories=dict.fromkeys(levels, ""))
    cipher = FieldCipher(KEYS, Schema("any", (field,), Target("y", "0", "1")))
    tokens = [cipher.encrypt_deterministically("f", level) for level in levels]
    assert [cipher.decrypt("f", token) for token in tokens] == levels
    assert len({len(token) for token in tokens}) == 1
    assert len(set(tokens)) == len(levels)
    assert all(from_text(to_text(token)) == token for token in tokens)


def test_every_flipped_bit_is_found(capstone_schema):
    cipher = FieldCipher(KEYS, capstone_schema)
    token = cipher.encrypt_deterministically("housing", "A152")
    for bit in range(8 * len(token)):
        changed = bytearray(token)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises((DecryptionError, TokenFormatError, UnknownKeyId)):
            cipher.decrypt("housing", bytes(changed))


def test_token_of_another_field_schema_or_key_raises(capstone_schema):
    one = FieldCipher(KEYS, capstone_schema)
    token = one.encrypt_deterministically("housing", "A152")
    with pytest.raises(DecryptionError, match="'job'"):
        one.decrypt("job", token)
    other_schema = Schema("other", capstone_schema.fields, capstone_schema.target)
    with pytest.raises(DecryptionError, match="housing"):
        FieldCipher(KEYS, other_schema).decrypt("housing", token)
    swapped = header("0000beef") + token[HEADER_LENGTH:]
    with pytest.raises(DecryptionError):
        one.decrypt("housing", swapped)
    with pytest.raises(UnknownKeyId, match="0badcafe"):
        FieldCipher(Keyset.create(), capstone_schema).decrypt("housing", token)


@pytest.mark.parametrize("junk", [b"", b"\x01", bytes(36), bytes(37), b"\x01" * 38, bytes(10**7)])
def test_junk_is_no_token(capstone_schema, junk):
    with pytest.raises((TokenFormatError, UnknownKeyId)):
        FieldCipher(KEYS, capstone_schema).decrypt("housing", junk)


def test_equal_values_of_two_fields_give_unequal_tokens():
    fields = tuple(Field(name, "categorical", categories={"1": ""}) for name in "ab")
    cipher = FieldCipher(KEYS, Schema("two", fields, Target("y", "0", "1")))
    first, second = (cipher.encrypt_deterministically(name, "1") for name in "ab")
    assert first[HEADER_LENGTH:] != second[HEADER_LENGTH:]
    assert key_id_of(first) == key_id_of(second) == "0badcafe"


def test_unknown_level_field_and_unfitted_schema(capstone_schema, small_schema):
    cipher = FieldCipher(KEYS, capstone_schema)
    with pytest.raises(RecordError, match=r"housing.*A151, A152, A153"):
        cipher.encrypt_deterministically("housing", "A999")
    with pytest.raises(SchemaError, match="no field 'house'"):
        cipher.encrypt_deterministically("house", "A151")
    with pytest.raises(SchemaError, match="bin edges"):
        FieldCipher(KEYS, small_schema)


def test_old_keys_still_decrypt_after_rotation(keyset, capstone_schema):
    token = FieldCipher(keyset, capstone_schema).encrypt_deterministically("job", "A173")
    rotated = keyset.rotate()
    cipher = FieldCipher(rotated, capstone_schema)
    assert cipher.decrypt("job", token) == "A173"
    assert cipher.encrypt_deterministically("job", "A173") != token


def test_codec_round_trip_and_refusals(keyset, capstone_schema, sample_records):
    codec = RecordCodec(FieldCipher(keyset, capstone_schema))
    for record in sample_records[:50]:
        levels = codec.decode(codec.encode(record))
        assert levels["purpose"] == record["purpose"]
        assert levels["housing"] == record["housing"]
    record = sample_records[0]
    with pytest.raises(DataError, match="lacks field 'age'"):
        codec.encode({k: v for k, v in record.items() if k != "age"})
    with pytest.raises(DataError, match="'shoe_size'"):
        codec.encode({**record, "shoe_size": 43})
    with pytest.raises(RecordError, match="record 7, field 'age'"):
        codec.encode({**record, "age": "old"}, 7)
    codec.encode({**record, "classification": 2})


def test_decoding_a_level_the_schema_lost_raises(keyset, capstone_schema):
    codec = RecordCodec(FieldCipher(keyset, capstone_schema))
    fields = tuple(
        Field(f.name, "categorical", categories={**f.categories, "A154": "tent"})
        if f.name == "housing"
        else f
        for f in capstone_schema.fields
    )
    wider = Schema(capstone_schema.name, fields, capstone_schema.target)
    token = FieldCipher(keyset, wider).encrypt_deterministically("housing", "A154")
    with pytest.raises(DecryptionError, match="level that schema"):
        codec.decode({"housing": token})


def test_meaning_in_words(keyset, capstone_schema):
    codec = RecordCodec(FieldCipher(keyset, capstone_schema))
    words = codec.explain({"purpose": "A43", "duration": "[4, 21)", "job": None})
    assert words["purpose"].meaning == "radio or television"
    assert words["duration"].meaning == "[4, 21) months"
    assert words["job"].meaning == "absent"
