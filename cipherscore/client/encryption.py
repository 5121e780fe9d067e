"""Deterministic field cipher: AES-256-SIV (RFC 5297) under a key of its own for each field."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from cipherscore.client.homophones import HomophonePrf
from cipherscore.client.keys import Keyset
from cipherscore.errors import DecryptionError, RecordError, SchemaError
from cipherscore.schema import Field, Schema
from cipherscore.tokens import BLOCK_LENGTH, HEADER_LENGTH, header, key_id_of

_PAD_MARK = b"\x80"
_HOMOPHONE_MARK = b"\xff"
"""Between a level and the number of its homophone; no byte of UTF-8."""
_NUMBER_LENGTH = 2


class FieldCipher:
    """Encrypts and decrypts the levels of one schema's fields.

    Args:
        keyset: The owner's keys; the primary one encrypts, any of them decrypts.
        schema: A fitted schema; its identity and the field's name are associated data.
        key_id: Encrypt under this key instead of the primary one.

    Raises:
        SchemaError: A field of the schema has no bin edges, categories or homophones yet.
        UnknownKeyId: The keyset has no key ``key_id``.
    """

    def __init__(self, keyset: Keyset, schema: Schema, key_id: str | None = None) -> None:
        if not schema.fitted:
            raise SchemaError(
                f"schema {schema.name!r} has fields without bin edges, categories or homophones; "
                "use the fitted schema that `cipherscore encrypt` wrote"
            )
        self.schema = schema
        self.key_id = key_id or keyset.primary
        self._keyset = keyset
        self._header = header(self.key_id)
        self._aead = lru_cache(maxsize=None)(self._make_aead)
        self._aead(self.key_id, schema.fields[0].name)
        self._padded_length = {f.name: padded_length(f) for f in schema.fields}

    def encrypt_deterministically(self, field: str, level: str, homophone: int = 0) -> bytes:
        """Return the token of one level of one field, or one of its tokens.

        **What this leaks.** Equal levels of a field give equal tokens.  Whoever sees tokens learns
        which records agree in a field, how often each level occurs, and which levels occur
        together; with a sample of the population this is enough to recover most values by matching
        frequencies (Naveed, Kamara and Wright, CCS 2015).  Hidden are the spelling of a value, its
        length, and whether tokens of two fields, schemas or keys stand for the same value.  What
        homophones hide besides is in docs/smoothing.md.

        Args:
            field: Field name.
            level: One of ``schema.by_name[field].levels``.
            homophone: Which of the level's tokens, from 0.

        Returns:
            The token (see `cipherscore.tokens`), of the same length for every level of the field.

        Raises:
            RecordError: The field has no such level.
            SchemaError: The schema has no such field, or the level no such homophone.
        """
        description = self._field(field)
        if level not in description.levels:
            raise RecordError(field, level, description.allowed)
        count = len(description.weights_of(level))
        if not 0 <= homophone < count:
            raise SchemaError(f"field {field!r}: homophone {homophone} of a level that has {count}")
        length = self._padded_length[field]
        plaintext = (level.encode() + _suffix(homophone) + _PAD_MARK).ljust(length, b"\0")
        sealed = self._aead(self.key_id, field).encrypt(
            plaintext, self._associated_data(self._header, field)
        )
        return self._header + sealed

    def decrypt(self, field: str, token: bytes) -> str:
        """Return the level a token stands for, whichever of its homophones it is.

        Raises:
            TokenFormatError: The bytes have not the form of a token.
            UnknownKeyId: The token was made under a key the keyset lacks.
            DecryptionError: The token belongs to another field or schema, or was changed.
        """
        self._field(field)
        key_id = key_id_of(token)
        try:
            plaintext = self._aead(key_id, field).decrypt(
                token[HEADER_LENGTH:], self._associated_data(token[:HEADER_LENGTH], field)
            )
        except InvalidTag:
            raise DecryptionError(
                f"field {field!r}: the token is not one of this field and schema "
                f"{self.schema.identity!r}, or it was changed"
            ) from None
        level = plaintext.rstrip(b"\0").removesuffix(_PAD_MARK).partition(_HOMOPHONE_MARK)[0]
        return level.decode()

    def tokens(self, field: str) -> dict[str, tuple[bytes, ...]]:
        """Return the tokens of every level of ``field``, in schema order; one if not smoothed."""
        description = self._field(field)
        return {
            level: tuple(
                self.encrypt_deterministically(field, level, homophone)
                for homophone in range(len(description.weights_of(level)))
            )
            for level in description.levels
        }

    def smoothing_prf(self, purpose: Literal["choice", "order"]) -> HomophonePrf:
        """Return the keyed function that chooses homophones, or the order of rows."""
        key = self._keyset.smoothing_key(self.key_id, self.schema.identity, purpose)
        return HomophonePrf(key)

    def _field(self, name: str) -> Field:
        try:
            return self.schema.by_name[name]
        except KeyError:
            raise SchemaError(
                f"schema {self.schema.name!r} has no field {name!r}; it has "
                f"{', '.join(self.schema.by_name)}"
            ) from None

    def _associated_data(self, head: bytes, field: str) -> list[bytes]:
        return [head, self.schema.identity.encode(), field.encode()]

    def _make_aead(self, key_id: str, field: str) -> AESSIV:
        return AESSIV(self._keyset.field_key(key_id, self.schema.identity, field))


def _suffix(homophone: int) -> bytes:
    """Return what follows the level: 0xFF and the number, or nothing for the first homophone."""
    if not homophone:
        return b""
    return _HOMOPHONE_MARK + homophone.to_bytes(_NUMBER_LENGTH, "big")


def padded_length(field: Field) -> int:
    """Return the padded plaintext length in bytes: the longest level and one mark, in full blocks.

    Padding is ISO/IEC 7816-4 (0x80, then zeros).  In a smoothed field every level leaves room for
    the number of a homophone, so that all tokens are equally long.
    """
    longest = max(len(level.encode()) for level in field.levels)
    if field.smoothed:
        longest += len(_HOMOPHONE_MARK) + _NUMBER_LENGTH
    return -(-(longest + 1) // BLOCK_LENGTH) * BLOCK_LENGTH
