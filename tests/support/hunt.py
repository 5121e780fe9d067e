"""Looks for keys and plaintext values in memory and files, in every form they might have there."""

from __future__ import annotations

import base64
import json
import re
import struct
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cipherscore.client.encryption import padded_length
from cipherscore.client.keys import Argon2Parameters, Keyset, _wrapping_key
from cipherscore.schema import Schema

_LONG_MEANING = 12
_LONG_LEVEL = 10
_LENGTH_OFFSETS = (16, 24, 32)
"""Bytes from a Python object's length to its text: bytes, str since 3.12, str before."""
_WORD = rb"0-9A-Za-z+/_=-"


class Finder:
    """Finds any of many byte strings in one pass, a gigabyte in some seconds.

    Four bytes of each are its anchor.  The anchors are looked up at every position at once, and
    the whole string is compared where one stands.
    """

    def __init__(self, needles: Mapping[str, bytes]) -> None:
        self._at: dict[int, list[tuple[str, bytes, int]]] = defaultdict(list)
        for name, needle in needles.items():
            offset = max(range(len(needle) - 3), key=lambda i: _oddness(needle[i : i + 4]))
            (anchor,) = struct.unpack_from("<I", needle, offset)
            self._at[anchor].append((name, needle, offset))
        self._anchors = np.array(sorted(self._at), np.uint32)
        self._maybe = np.zeros(1 << 16, bool)
        self._maybe[_hash(self._anchors)] = True

    def find(self, content: bytes) -> Iterator[tuple[str, int]]:
        """Yield name and place of each occurrence."""
        for shift in range(4):
            count = (len(content) - shift) // 4
            if count < 1:
                return
            words = np.frombuffer(content, "<u4", count, shift)
            places = np.flatnonzero(self._maybe[_hash(words)])
            places = places[np.isin(words[places], self._anchors)]
            for place in places.tolist():
                for name, needle, offset in self._at[int(words[place])]:
                    start = 4 * place + shift - offset
                    if start >= 0 and content.startswith(needle, start):
                        yield name, start


class Hunt:
    """What must not be found.

    Args:
        exact: Description to bytes that are long and peculiar enough to be found nowhere by chance.
        levels: Short plaintexts; found only as a whole: a Python object in memory; a quoted text or
            a word in files.  Five quoted bytes can stand in 200 MB of memory by chance; there a
            field's name is sought with them (`record_forms`).
    """

    def __init__(self, exact: Mapping[str, bytes], levels: Iterable[str] = ()) -> None:
        self.exact = dict(exact)
        assert min(map(len, self.exact.values())) >= 7
        self.levels = {level: level.encode() for level in levels}
        quoted = {
            f"quoted {level}, {quote}": f"{quote}{level}{quote}".encode()
            for level in self.levels
            for quote in "\"'"
        }
        self._anywhere = Finder(self.exact)
        self._in_files = Finder(self.exact | quoted)
        self._ended = Finder({level: text + b"\0" for level, text in self.levels.items()})
        any_level = b"|".join(re.escape(text) for text in self.levels.values())
        self._word = re.compile(b"(?<![%b])(?:%b)(?![%b])" % (_WORD, any_level, _WORD))

    def in_memory(self, chunks: Iterable[bytes]) -> Counter[str]:
        """Return what is found in overlapping pieces of memory, and how often."""
        found: Counter[str] = Counter()
        for chunk in chunks:
            found.update(name for name, _ in self._anywhere.find(chunk))
            found.update(f"object {level}" for level in self._objects(chunk))
        return found

    def in_text(self, content: bytes) -> Counter[str]:
        """Return what is found in text, where a level also counts as a bare word."""
        found = Counter(name for name, _ in self._in_files.find(content))
        if self.levels:
            found.update(f"word {m.group().decode()}" for m in self._word.finditer(content))
        return found

    def in_file(self, path: Path) -> Counter[str]:
        """Return what is found in a file, looking into archives and Parquet too."""
        found: Counter[str] = Counter()
        for part in parts(path):
            if b"\0" in part:
                found.update(name for name, _ in self._in_files.find(part))
            else:
                found += self.in_text(part)
        return found

    def _objects(self, content: bytes) -> Iterator[str]:
        """Yield the levels that are the whole of a Python ``str`` or ``bytes``."""
        for level, place in self._ended.find(content):
            size = struct.pack("<q", len(self.levels[level]))
            starts = (place - offset for offset in _LENGTH_OFFSETS)
            if any(start >= 0 and content[start : start + 8] == size for start in starts):
                yield level


def _hash(words: np.ndarray) -> np.ndarray:
    """Return 16-bit hashes of 32-bit words."""
    return (words * np.uint32(2654435761)) >> np.uint32(16)


def _oddness(piece: bytes) -> int:
    """Return how rare four bytes should be: many different ones, zeros least of all."""
    return len(set(piece)) - 2 * piece.count(0)


def secrets_of(keyset_file: Path, passphrase: str, schema: Schema) -> dict[str, bytes]:
    """Return every key of a keyset and the passphrase, raw and in the usual text forms."""
    keyset = Keyset.load(keyset_file, passphrase)
    document = json.loads(keyset_file.read_bytes())
    kdf = {key: value for key, value in document["kdf"].items() if key not in ("name", "salt")}
    salt = base64.b64decode(document["kdf"]["salt"])
    found = _forms("wrapping key", _wrapping_key(passphrase, salt, Argon2Parameters(**kdf)))
    for key_id, key in keyset._keys.items():
        found |= _forms(f"master key {key_id}", key)
        for field in schema.fields:
            derived = keyset.field_key(key_id, schema.identity, field.name)
            # AES-SIV keeps the halves apart: one authenticates, the other encrypts.
            for half in (derived[:32], derived[32:]):
                found |= _forms(f"key of {field.name} under {key_id}", half, f" {half[:2].hex()}")
    found["passphrase"] = passphrase.encode()
    for part in ("ciphertext", "nonce"):
        found |= _forms(f"keyset's {part}", base64.b64decode(document["wrapped"][part]))
    return found


def plaintexts_of(schema: Schema) -> dict[str, bytes]:
    """Return the schema's plaintexts in the forms that are peculiar enough to look for as bytes."""
    found = {}
    for field in schema.fields:
        length = padded_length(field)
        for level in field.levels:
            text = level.encode()
            found[f"padded {field.name} {level}"] = (text + b"\x80").ljust(length, b"\0")
            if len(text) >= _LONG_LEVEL:
                found[f"level {field.name} {level}"] = text
        if field.kind == "categorical":
            # As Arrow keeps texts: one after the other.
            found[f"codes of {field.name}"] = b"".join(c.encode() for c in field.categories)
            for meaning in field.categories.values():
                if len(meaning) >= _LONG_MEANING:
                    found[f"meaning {meaning}"] = meaning.encode()
    return found


def record_forms(record: Mapping[str, Any]) -> dict[str, bytes]:
    """Return forms of one raw record: its texts side by side, and its odd numbers."""
    texts = [str(value) for value in record.values()]
    found = {
        f"values {','.join(texts[i : i + 3])}": ",".join(texts[i : i + 3]).encode()
        for i in range(len(texts) - 2)
    }
    for name, value in record.items():
        for gap in ("", " "):
            pair = f'"{name}":{gap}{json.dumps(value)}'
            found[f"JSON {pair}"] = pair.encode()
        if isinstance(value, float):
            found[f"{name} as text"] = repr(value).encode()
            found[f"{name} as double"] = struct.pack("<d", value)
    return {name: needle for name, needle in found.items() if len(needle) >= 7}


def parts(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes, and what is inside it if they are compressed."""
    yield path.read_bytes()
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        yield json.dumps(
            {
                k.decode(errors="replace"): v.decode(errors="replace")
                for k, v in (table.schema.metadata or {}).items()
            }
        ).encode()
        for column in table.columns:
            yield b"\n".join(
                v if isinstance(v, bytes) else str(v).encode() for v in column.unique().to_pylist()
            )
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(name) for name in archive.namelist())


def levels_of(schema: Schema) -> Sequence[str]:
    """Return all plaintexts of a schema."""
    return [level for field in schema.fields for level in field.levels]


def _forms(name: str, secret: bytes, mark: str = "") -> dict[str, bytes]:
    return {
        f"{name}{mark}, raw": secret,
        f"{name}{mark}, hex": secret.hex().encode(),
        f"{name}{mark}, base64": base64.b64encode(secret).rstrip(b"="),
        f"{name}{mark}, url-safe base64": base64.urlsafe_b64encode(secret).rstrip(b"="),
    }
