from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cipherscore.errors import DataError
from cipherscore.rekeymap import RekeyMap
from cipherscore.tokens import to_text
from tests.support.registry_samples import FIELDS, KEY_ID, token

NEW = "4e5f6071"


def sample() -> RekeyMap:
    fields = {
        f: {token(KEY_ID, f, i): token(NEW, f, i) for i in range(n)} for f, n in FIELDS.items()
    }
    return RekeyMap("demo", KEY_ID, NEW, fields)


def test_the_file_is_private_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    sample().write(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert RekeyMap.read(path) == sample()
    content = json.loads(path.read_text())
    assert content["format"] == "cipherscore-rekey-map"
    old, new = token(KEY_ID, "size", 0), token(NEW, "size", 0)
    assert content["fields"]["size"][to_text(old)] == to_text(new)


@pytest.mark.parametrize(
    ("from_key", "to_key", "renamed"),
    [
        (KEY_ID, KEY_ID, {}),
        ("short", NEW, {}),
        (KEY_ID, NEW, {token(NEW, "a", 0): token(NEW, "a", 1)}),
        (KEY_ID, NEW, {token(KEY_ID, "a", 0): token(KEY_ID, "a", 0)}),
        (KEY_ID, NEW, {b"junk": token(NEW, "a", 0)}),
        (
            KEY_ID,
            NEW,
            {token(KEY_ID, "a", 0): token(NEW, "a", 0), token(KEY_ID, "a", 1): token(NEW, "a", 0)},
        ),
    ],
)
def test_wrong_maps(from_key: str, to_key: str, renamed: dict[bytes, bytes]) -> None:
    with pytest.raises(DataError):
        RekeyMap("demo", from_key, to_key, {"a": renamed})


def edited(**changes: object) -> str:
    return json.dumps({**json.loads(sample().to_json()), **changes})


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "null", "{}", edited(version=2), edited(format="x"), edited(fields=[]),
        edited(fields={"a": 1}), edited(fields={"a": {"é": "x"}}), edited(fields={"a": {"b": 1}}),
        edited(from_key=3), "\ud800",
    ],
)  # fmt: skip
def test_junk_is_refused(text: str) -> None:
    with pytest.raises(DataError):
        RekeyMap.from_json(text)


@settings(deadline=None)
@given(st.text())
def test_any_text_is_refused_cleanly(text: str) -> None:
    with pytest.raises(DataError):
        RekeyMap.from_json(text)


def test_a_missing_or_binary_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        RekeyMap.read(tmp_path / "absent.json")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError):
        RekeyMap.read(tmp_path / "binary")


def test_messages_show_no_token() -> None:
    good = json.loads(sample().to_json())
    old = next(iter(good["fields"]["size"]))
    good["fields"]["size"][old] = old
    with pytest.raises(DataError) as caught:
        RekeyMap.from_json(json.dumps(good))
    assert old[10:] not in str(caught.value)
