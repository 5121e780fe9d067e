"""Token format: text form, key ids, and what is no token."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherscore.errors import TokenFormatError
from cipherscore.tokens import (
    BLOCK_LENGTH,
    MAX_LENGTH,
    MIN_LENGTH,
    check_key_id,
    from_text,
    header,
    key_id_of,
    to_text,
)

KEY_IDS = st.integers(0, 2**32 - 1).map("{:08x}".format)
BODIES = st.integers(2, 65).flatmap(
    lambda blocks: st.binary(min_size=16 * blocks, max_size=16 * blocks)
)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@given(KEY_IDS, BODIES)
def test_tokens_survive_text_and_name_their_key(key_id, body):
    token = header(key_id) + body
    text = to_text(token)
    assert set(text) <= set(ALPHABET)
    assert from_text(text) == token
    assert key_id_of(token) == key_id


@given(st.text(ALPHABET, max_size=80))
def test_each_text_stands_for_one_token_or_none(text):
    try:
        token = from_text(text)
    except TokenFormatError:
        return
    assert to_text(token) == text


def test_padding_may_be_there():
    for length in (*range(1, 9), MAX_LENGTH):
        token = (bytes(range(256)) * 5)[:length]
        assert from_text(base64.urlsafe_b64encode(token).decode()) == token


@given(st.binary(max_size=2000))
def test_any_bytes_are_a_token_or_raise(data):
    try:
        key_id = key_id_of(data)
    except TokenFormatError:
        return
    assert data[0] == 1
    assert MIN_LENGTH <= len(data) <= MAX_LENGTH
    assert data[1:5].hex() == key_id


@given(st.text(max_size=60))
def test_any_text_is_base64_or_raises(text):
    try:
        assert to_text(from_text(text)) == text.rstrip("=")
    except TokenFormatError as error:
        assert text not in str(error) or len(text) < 4  # noqa: PT017 - it may also pass


@pytest.mark.parametrize(
    "text",
    ["A", "AB", "A A", "AA\n", "+/+/", "=", "AA===", "é", "\ud800", "A" * 10**7],
    ids=len,
)
def test_other_spellings_are_refused(text):
    with pytest.raises(TokenFormatError, match="a token"):
        from_text(text)


def test_longest_token_has_a_text_form():
    token = header("00000000") + bytes(MAX_LENGTH - 5)
    assert from_text(to_text(token)) == token
    with pytest.raises(TokenFormatError):
        from_text(base64.urlsafe_b64encode(token + bytes(BLOCK_LENGTH)).rstrip(b"=").decode())


@pytest.mark.parametrize("length", [0, 1, 5, 20, 36, 38, 52, MAX_LENGTH + 16, 10**7])
def test_wrong_lengths(length):
    with pytest.raises(TokenFormatError, match=f"this one has {length}"):
        key_id_of(b"\x01" * length)


@pytest.mark.parametrize("version", [0, 2, 255])
def test_unknown_versions(version):
    with pytest.raises(TokenFormatError, match=f"version {version} is unknown; known: 1"):
        key_id_of(bytes([version]) + bytes(MIN_LENGTH - 1))


@pytest.mark.parametrize(
    "key_id", ["", "0BADCAFE", "0badcaf", "0badcafe0", "0badcafe\n", "0badcafg", "\u0660badcafe"]
)
def test_wrong_key_ids(key_id):
    for function in (check_key_id, header):
        with pytest.raises(TokenFormatError, match="eight lower-case"):
            function(key_id)
