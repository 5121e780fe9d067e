"""Keysets: the owner's master keys, wrapped under a passphrase; the only reader of key material.

File format (JSON)::

    {"format": "cipherscore-keyset", "version": 1,
     "primary": "1f0c9a2e", "key_ids": ["1f0c9a2e"],
     "kdf": {"name": "argon2id", "memory_kib": 65536, "iterations": 3, "lanes": 4,
             "salt": "…"},
     "wrapped": {"nonce": "…", "ciphertext": "…"}}

``ciphertext`` is AES-256-GCM over the JSON of the master keys; all outside ``wrapped`` is its
associated data, so that no parameter can be changed unnoticed.  The wrapping key comes from the
passphrase by Argon2id (RFC 9106) at that RFC's second recommended parameter set, section 4.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cipherscore.errors import KeysetError, UnknownKeyId, shorten
from cipherscore.files import write_bytes
from cipherscore.tokens import KEY_ID_LENGTH

FORMAT = "cipherscore-keyset"
FORMAT_VERSION = 1
MASTER_KEY_LENGTH = 32
FIELD_KEY_LENGTH = 64
SMOOTHING_KEY_LENGTH = 32
MIN_PASSPHRASE_LENGTH = 12
MAX_FILE_LENGTH = 1 << 20
PASSPHRASE_VARIABLE = "CIPHERSCORE_PASSPHRASE"  # noqa: S105 - a name, no secret
KEYSET_VARIABLE = "CIPHERSCORE_KEYSET"


@dataclass(frozen=True)
class Argon2Parameters:
    """Cost of unwrapping a keyset (RFC 9106, section 3.1): memory in KiB, passes, lanes."""

    memory_kib: int = 64 * 1024
    iterations: int = 3
    lanes: int = 4


RFC9106_LOW_MEMORY = Argon2Parameters()
_LIMITS = Argon2Parameters(memory_kib=1 << 20, iterations=16, lanes=16)


@dataclass(frozen=True)
class Keyset:
    """Master keys by key id, one of them primary (used to encrypt; all can decrypt).

    ``repr`` shows ids only.
    """

    primary: str
    _keys: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def create(cls) -> Keyset:
        """Make a keyset with one fresh 256-bit master key."""
        return cls("", {}).rotate()

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Ids of all keys, oldest first."""
        return tuple(self._keys)

    def rotate(self) -> Keyset:
        """Return a keyset with a fresh primary key; the old ones stay, for decryption."""
        key_id = secrets.token_hex(KEY_ID_LENGTH)
        while key_id in self._keys:
            key_id = secrets.token_hex(KEY_ID_LENGTH)
        return Keyset(key_id, {**self._keys, key_id: secrets.token_bytes(MASTER_KEY_LENGTH)})

    def field_key(self, key_id: str, schema: str, field_name: str) -> bytes:
        """Derive the 64-byte AES-256-SIV key of one field by HKDF-SHA256 (RFC 5869).

        Raises:
            UnknownKeyId: The keyset holds no key ``key_id``.
        """
        return self._derive(key_id, FIELD_KEY_LENGTH, "cipherscore field key", schema, field_name)

    def smoothing_key(
        self, key_id: str, schema: str, purpose: Literal["choice", "order", "weights"]
    ) -> bytes:
        """Derive a 32-byte AES-256 key of frequency smoothing by HKDF-SHA256 (RFC 5869).

        Args:
            key_id: Id of the master key.
            schema: The schema's identity.
            purpose: Choice of homophones, order of rows, or weights of homophones.

        Raises:
            UnknownKeyId: The keyset holds no key ``key_id``.
        """
        label = "cipherscore smoothing key"
        return self._derive(key_id, SMOOTHING_KEY_LENGTH, label, schema, purpose)

    def _derive(self, key_id: str, length: int, *parts: str) -> bytes:
        """Derive ``length`` bytes; each part is told with its length, so that none runs over."""
        if key_id not in self._keys:
            raise UnknownKeyId(
                f"the keyset has no key {shorten(key_id)}; it holds {', '.join(self.key_ids)}"
            )
        info = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
        return HKDF(SHA256(), length, None, info).derive(self._keys[key_id])

    def save(
        self, path: Path, passphrase: str, parameters: Argon2Parameters = RFC9106_LOW_MEMORY
    ) -> None:
        """Write the keyset to ``path`` with permission 0600, wrapped under ``passphrase``.

        Raises:
            KeysetError: The passphrase is too short, or the file cannot be written.
        """
        try:
            write_bytes(path, self.wrap(passphrase, parameters), mode=0o600)
        except OSError as error:
            raise KeysetError(f"{path}: cannot write the keyset: {error.strerror}") from None

    def wrap(self, passphrase: str, parameters: Argon2Parameters = RFC9106_LOW_MEMORY) -> bytes:
        """Return the wrapped keyset as the bytes of its file.

        Raises:
            KeysetError: The passphrase is shorter than `MIN_PASSPHRASE_LENGTH`.
        """
        if len(passphrase) < MIN_PASSPHRASE_LENGTH:
            raise KeysetError(
                f"the passphrase has {len(passphrase)} characters; use {MIN_PASSPHRASE_LENGTH} or "
                "more. There is no default"
            )
        salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
        content: dict[str, Any] = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "primary": self.primary,
            "key_ids": list(self.key_ids),
            "kdf": {"name": "argon2id", **parameters.__dict__, "salt": _encode(salt)},
        }
        keys = json.dumps({key_id: _encode(key) for key_id, key in self._keys.items()}).encode()
        sealed = AESGCM(_wrapping_key(passphrase, salt, parameters)).encrypt(
            nonce, keys, _associated_data(content)
        )
        content["wrapped"] = {"nonce": _encode(nonce), "ciphertext": _encode(sealed)}
        return (json.dumps(content, indent=2) + "\n").encode()

    @classmethod
    def unwrap(cls, content: bytes, passphrase: str, origin: str = "keyset") -> Keyset:
        """Read a wrapped keyset.

        Raises:
            KeysetError: No keyset, unknown version, wrong passphrase, or changed file.
        """
        try:
            document: dict[str, Any] = json.loads(content)
            wrapped = document.pop("wrapped")
            if document["format"] != FORMAT or document["version"] != FORMAT_VERSION:
                raise KeysetError(f"{origin}: keyset format or version is unknown")
            parameters, salt = _read_kdf(document["kdf"], origin)
            nonce, sealed = _decode(wrapped["nonce"]), _decode(wrapped["ciphertext"])
            key = _wrapping_key(passphrase, salt, parameters)
            opened = AESGCM(key).decrypt(nonce, sealed, _associated_data(document))
            keys = {key_id: _decode(text) for key_id, text in json.loads(opened).items()}
            return cls(str(document["primary"]), keys)
        except InvalidTag:
            raise KeysetError(f"{origin}: wrong passphrase, or the file was changed") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise KeysetError(f"{origin}: not a keyset file ({type(error).__name__})") from None

    @classmethod
    def load(cls, path: Path, passphrase: str) -> Keyset:
        """Read the keyset file at ``path``.

        Raises:
            KeysetError: The file is missing, readable by other users, no keyset, or the passphrase
                is wrong.
        """
        try:
            if os.name == "posix" and path.stat().st_mode & 0o077:
                raise KeysetError(
                    f"{path}: other users may read this keyset; run `chmod 600 {path}`"
                )
            content = path.read_bytes()[:MAX_FILE_LENGTH]
        except OSError as error:
            raise KeysetError(f"{path}: cannot read the keyset: {error.strerror}") from None
        return cls.unwrap(content, passphrase, str(path))


def describe(path: Path) -> dict[str, Any]:
    """Return what a keyset file says without its passphrase: ids, primary, KDF parameters.

    Raises:
        KeysetError: The file is missing or no keyset.
    """
    try:
        document = json.loads(path.read_bytes()[:MAX_FILE_LENGTH])
        kdf = {key: value for key, value in document["kdf"].items() if key != "salt"}
        return {"primary": document["primary"], "key_ids": document["key_ids"], "kdf": kdf}
    except OSError as error:
        raise KeysetError(f"{path}: cannot read the keyset: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise KeysetError(f"{path}: not a keyset file ({type(error).__name__})") from None


def _read_kdf(kdf: Mapping[str, Any], origin: str) -> tuple[Argon2Parameters, bytes]:
    """Read and bound the KDF parameters, so that a planted file cannot ask for all memory."""
    if kdf["name"] != "argon2id":
        raise KeysetError(f"{origin}: key derivation {shorten(kdf['name'])} is unknown")
    parameters = Argon2Parameters(int(kdf["memory_kib"]), int(kdf["iterations"]), int(kdf["lanes"]))
    for name, limit in _LIMITS.__dict__.items():
        if not 1 <= getattr(parameters, name) <= limit:
            raise KeysetError(f"{origin}: kdf {name} must be 1 to {limit}")
    return parameters, _decode(kdf["salt"])


def _wrapping_key(passphrase: str, salt: bytes, parameters: Argon2Parameters) -> bytes:
    return Argon2id(
        salt=salt,
        length=32,
        iterations=parameters.iterations,
        lanes=parameters.lanes,
        memory_cost=parameters.memory_kib,
    ).derive(passphrase.encode())


def _associated_data(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
