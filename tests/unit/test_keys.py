"""Keysets: wrapping, permissions, rotation, and files made to fail."""

import io
import json
import os

import pytest

from cipherscore.client.keys import KEYSET_VARIABLE, PASSPHRASE_VARIABLE, Keyset, describe
from cipherscore.client.passphrase import load_keyset, read_passphrase
from cipherscore.errors import KeysetError, UnknownKeyId
from tests.conftest import CHEAP_KDF

PASSPHRASE = "correct horse battery"


@pytest.fixture
def path(tmp_path, keyset):
    keyset.save(tmp_path / "keyset.json", PASSPHRASE, CHEAP_KDF)
    return tmp_path / "keyset.json"


def test_save_and_load(path, keyset):
    assert Keyset.load(path, PASSPHRASE) == keyset
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["keyset.json"]


def test_file_and_repr_hold_no_key(path, keyset):
    (key,) = keyset._keys.values()
    content = path.read_text()
    assert key.hex() not in content
    assert key.hex() not in repr(keyset)
    assert repr(key) not in repr(keyset)


def test_wrong_passphrase(path):
    with pytest.raises(KeysetError, match="wrong passphrase"):
        Keyset.load(path, PASSPHRASE + "x")


def test_default_cost_is_memory_hard(keyset):
    kdf = json.loads(keyset.wrap(PASSPHRASE))["kdf"]
    assert (kdf["name"], kdf["memory_kib"], kdf["iterations"]) == ("argon2id", 65536, 3)


@pytest.mark.parametrize("passphrase", ["", "short", "12345678901"])
def test_short_passphrase_is_refused(keyset, passphrase):
    with pytest.raises(KeysetError, match="12"):
        keyset.wrap(passphrase)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(primary="00000000"), "changed"),
        (lambda d: d.update(key_ids=[]), "changed"),
        (lambda d: d["kdf"].update(lanes=2), "changed"),
        (lambda d: d["kdf"].update(memory_kib=1 << 30), "memory_kib must be"),
        (lambda d: d["kdf"].update(name="md5"), "unknown"),
        (lambda d: d.update(version=2), "version is unknown"),
        (lambda d: d.pop("wrapped"), "not a keyset"),
        (lambda d: d["wrapped"].update(nonce="!"), "not a keyset"),
    ],
)
def test_changed_files_are_refused(path, change, message):
    document = json.loads(path.read_text())
    change(document)
    with pytest.raises(KeysetError, match=message):
        Keyset.unwrap(json.dumps(document).encode(), PASSPHRASE)


@pytest.mark.parametrize(
    "junk", [b"", b"[]", b"null", b"\xff\xfe", b'{"a": 1}', b"9" * 10_000_000, b"[" * 100_000]
)
def test_junk_is_no_keyset(tmp_path, junk):
    file = tmp_path / "junk"
    file.write_bytes(junk)
    file.chmod(0o600)
    with pytest.raises(KeysetError):
        Keyset.load(file, PASSPHRASE)
    with pytest.raises(KeysetError):
        describe(file)


def test_keyset_others_may_read_is_refused(path):
    path.chmod(0o644)
    with pytest.raises(KeysetError, match="chmod 600"):
        Keyset.load(path, PASSPHRASE)


def test_missing_file(tmp_path):
    with pytest.raises(KeysetError, match="No such file"):
        Keyset.load(tmp_path / "none.json", PASSPHRASE)


def test_rotation_keeps_old_keys(keyset):
    rotated = keyset.rotate()
    assert rotated.key_ids == (*keyset.key_ids, rotated.primary)
    assert rotated.field_key(keyset.primary, "s/1", "f") == keyset.field_key(
        keyset.primary, "s/1", "f"
    )
    with pytest.raises(UnknownKeyId):
        keyset.field_key(rotated.primary, "s/1", "f")


def test_field_keys_differ_and_do_not_collide_by_concatenation(keyset):
    key = keyset.primary
    derived = {
        keyset.field_key(key, schema, field)
        for schema, field in [("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc"), ("ab", "d")]
    }
    assert len(derived) == 5
    assert all(len(value) == 64 for value in derived)


def test_describe_needs_no_passphrase(path, keyset):
    facts = describe(path)
    assert facts["primary"] == keyset.primary
    assert "salt" not in facts["kdf"]


def test_keyset_from_the_environment(monkeypatch, tmp_path, keyset):
    monkeypatch.setenv(KEYSET_VARIABLE, keyset.wrap(PASSPHRASE, CHEAP_KDF).decode())
    monkeypatch.setenv(PASSPHRASE_VARIABLE, PASSPHRASE)
    assert load_keyset(tmp_path / "unused.json") == keyset


def test_passphrase_sources(monkeypatch, tmp_path):
    monkeypatch.delenv(PASSPHRASE_VARIABLE, raising=False)
    file = tmp_path / "passphrase"
    file.write_text(PASSPHRASE + "\n")
    assert read_passphrase(file) == PASSPHRASE
    reader, writer = os.pipe()
    os.write(writer, PASSPHRASE.encode() + b"\r\n")
    os.close(writer)
    assert read_passphrase(descriptor=reader) == PASSPHRASE
    os.close(reader)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(KeysetError, match="no default"):
        read_passphrase()
    with pytest.raises(KeysetError, match="file descriptor 999"):
        read_passphrase(descriptor=999)
    with pytest.raises(KeysetError, match="cannot read the passphrase"):
        read_passphrase(tmp_path / "none")


def test_full_disk_leaves_the_old_keyset(path, keyset, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(KeysetError, match="No space left"):
        keyset.rotate().save(path, PASSPHRASE, CHEAP_KDF)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["keyset.json"]
