"""Vocabulary: columns of a model by token, re-keying, and files made to fail."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherscore.errors import DataError
from cipherscore.vocabulary import UNSEEN, Vocabulary

KEY = "0badcafe"
SMALL = Vocabulary.build(KEY, {"b": [b"2", b"1", b"2"], "a": [b"1"]})


def test_columns_are_distinct_sorted_and_in_field_order():
    assert SMALL.fields == ("b", "a")
    assert SMALL.tokens["b"] == (b"1", b"2")
    assert SMALL.sizes == (2, 1)
    assert SMALL.width == 3


def test_unseen_tokens_have_no_column():
    assert SMALL.encode("b", [b"2", b"x", b"", b"1"]) == [1, UNSEEN, UNSEEN, 0]
    assert SMALL.encode("a", []) == []
    with pytest.raises(KeyError):
        SMALL.encode("c", [b"1"])


def test_empty_and_repeated_columns_are_refused():
    with pytest.raises(DataError, match="'a' has no token"):
        Vocabulary.build(KEY, {"a": []})
    with pytest.raises(DataError, match="'a': the vocabulary holds a token twice"):
        Vocabulary(KEY, {"a": (b"1", b"1")})


def test_translation_keeps_columns_and_needs_every_token():
    new = SMALL.translate(
        "0000beef", {"a": {b"1": b"x"}, "b": {b"1": b"z", b"2": b"y", b"3": b"q"}}
    )
    assert new.key_id == "0000beef"
    assert new.tokens == {"b": (b"z", b"y"), "a": (b"x",)}
    assert new.digest != SMALL.digest
    with pytest.raises(DataError, match="'b': the re-key map lacks 1 of 2 tokens"):
        SMALL.translate("0000beef", {"a": {b"1": b"x"}, "b": {b"1": b"z"}})
    with pytest.raises(DataError, match="lacks 2 of 2"):
        SMALL.translate("0000beef", {})


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=5),
        st.sets(st.binary(max_size=8), min_size=1),
        min_size=1,
        max_size=4,
    )
)
def test_any_vocabulary_survives_json(columns):
    made = Vocabulary.build(KEY, columns)
    again = Vocabulary.from_json(made.to_json())
    assert again == made
    assert again.fields == made.fields
    assert again.digest == made.digest


def test_equal_tokens_give_equal_files_whatever_the_order_of_rows():
    other = Vocabulary.build(KEY, {"b": [b"1", b"2"], "a": [b"1", b"1"]})
    assert other.to_json() == SMALL.to_json()
    assert len(SMALL.digest) == 64


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("key_id"),
        lambda d: d.update(key_id="x"),
        lambda d: d.update(key_id=5),
        lambda d: d.pop("fields"),
        lambda d: d.update(fields=[]),
        lambda d: d.update(fields={}),
        lambda d: d.update(fields=["a"]),
        lambda d: d["fields"].append(d["fields"][0]),
        lambda d: d["fields"][0].update(field=5),
        lambda d: d["fields"][0].update(field=[]),
        lambda d: d["fields"][0].update(tokens=[]),
        lambda d: d["fields"][0].update(tokens=["!"]),
        lambda d: d["fields"][0].update(tokens=[5]),
        lambda d: d["fields"][0].update(tokens=None),
        lambda d: d["fields"][0].update(tokens=["AA==", "AA=="]),
    ],
)
def test_changed_files_are_refused(change):
    document = json.loads(SMALL.to_json())
    change(document)
    with pytest.raises(DataError):
        Vocabulary.from_json(json.dumps(document))


@pytest.mark.parametrize("junk", ["", "[]", "null", "{", "5", "[" * 100_000], ids=len)
def test_junk_is_no_vocabulary(junk):
    with pytest.raises(DataError, match="not a vocabulary file"):
        Vocabulary.from_json(junk)


def test_messages_show_no_token():
    secret = base64.b64encode(b"secret token").decode()
    text = SMALL.to_json().replace('"MQ=="', f'"{secret}!"')
    with pytest.raises(DataError) as caught:
        Vocabulary.from_json(text)
    assert secret not in repr(caught.value.__cause__) + str(caught.value)
