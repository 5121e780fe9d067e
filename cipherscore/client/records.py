"""One applicant at a time: raw record -> tokens, tokens -> readable record.  Needs no numpy."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cipherscore.client.encryption import FieldCipher
from cipherscore.client.homophones import NONCE_LENGTH, FieldTokens
from cipherscore.errors import DataError, DecryptionError
from cipherscore.schema import MISSING_LEVEL, OTHER_LEVEL, Field, Schema
from cipherscore.scorecards import number_in


@dataclass(frozen=True)
class Readable:
    """A decrypted value: ``level`` as encrypted (code or bin) and what it means in words."""

    level: str
    meaning: str


class RecordCodec:
    """Encrypts raw records and decrypts tokens, with every level's tokens computed once.

    Args:
        cipher: The field cipher of a fitted schema.

    ``inputs`` holds what is read of a record, by name: the fields, or the scorecards' attributes.
    ``tokens`` holds, per field, every level's tokens: one, or its homophones.  ``levels`` holds,
    per field, the level of every token.  ``prf`` chooses homophones; None where no field has some.
    """

    def __init__(self, cipher: FieldCipher) -> None:
        self.schema: Schema = cipher.schema
        self.key_id = cipher.key_id
        self._cipher = cipher
        self.tokens = {f.name: cipher.tokens(f.name) for f in cipher.schema.fields}
        self.levels = {
            name: {token: level for level, tokens in column.items() for token in tokens}
            for name, column in self.tokens.items()
        }
        self.choices = {
            f.name: FieldTokens(self.tokens[f.name], {n: f.weights_of(n) for n in f.levels})
            for f in cipher.schema.fields
        }
        self.prf = cipher.smoothing_prf("choice") if cipher.schema.smoothed else None
        self.inputs = {f.name: f for f in cipher.schema.inputs}
        self._all = {**self.inputs, **cipher.schema.by_name}
        cards = cipher.schema.scorecards
        self._cards = {f.name: number_in(f.name) for f in cipher.schema.fields} if cards else {}
        self._attributes = (
            [(f, cards.points[f.name], cards.members[f.name]) for f in cards.attributes]
            if cards is not None
            else []
        )

    def encode(
        self, record: Mapping[str, object], row: int | None = None, nonce: bytes | None = None
    ) -> dict[str, bytes]:
        """Return the token of every field of ``record``, which holds raw columns or fields by name.

        The target, the group and dropped columns may be present and are ignored, so that labelled
        rows can be scored as they are.

        Args:
            record: The raw values.
            row: Its number, for messages.
            nonce: Decides which homophones the record gets, `NONCE_LENGTH` bytes; by default a
                fresh random one, so that a repeated record has other tokens.

        Raises:
            ConfigurationError: The nonce has another length, in a schema with homophones.
            DataError: A field is missing, or one is present that the schema does not know.
            RecordError: A value is not allowed.
        """
        tokens = {}
        draws = self._draws(nonce)
        values = self._sums(record, row) if self._attributes else record
        for place, f in enumerate(self.schema.fields):
            name = f.source
            if name not in values:
                name = f.name
            if name not in values:
                raise DataError(f"{_record(row)} lacks field {f.source!r}; allowed: {f.allowed}")
            level = f.level_of(values[name], row)
            same = self.tokens[f.name][level]
            if len(same) == 1:
                tokens[f.name] = same[0]
            else:
                tokens[f.name] = self.choices[f.name].choose(level, draws[place])
        unknown = record.keys() - self.inputs.keys() - self.schema.unread
        if unknown and (unknown := unknown - set(self.schema.raw_names)):
            names = ", ".join(sorted(repr(name)[:40] for name in unknown)[:5])
            raise DataError(f"{_record(row)} has fields the schema does not know: {names}")
        return tokens

    def encode_levels(self, levels: Mapping[str, str]) -> dict[str, bytes]:
        """Return the token of every field of a record given as field name to level.

        Homophones are drawn anew each time.
        """
        draws = self._draws(None)
        return {
            f.name: self.choices[f.name].choose(levels[f.name], draws[place] if draws else 0)
            for place, f in enumerate(self.schema.fields)
        }

    def encode_columns(self, records: Sequence[Mapping[str, object]]) -> dict[str, list[bytes]]:
        """Return the tokens of many records by field, after checking every record."""
        encoded = [self.encode(record, row) for row, record in enumerate(records)]
        return {f.name: [tokens[f.name] for tokens in encoded] for f in self.schema.fields}

    def decode(self, tokens: Mapping[str, bytes]) -> dict[str, str | None]:
        """Return the level of every field; None for an absent value.

        Raises:
            DecryptionError: A token is not authentic, or stands for a level the schema lacks.
        """
        return {name: self._level(name, token) for name, token in tokens.items()}

    def explain(self, levels: Mapping[str, str | None]) -> dict[str, Readable]:
        """Return what each level of a field or attribute means, in the schema's words and units."""
        return {
            name: Readable(level or "", _meaning(self._all[name], level))
            for name, level in levels.items()
        }

    def _sums(self, record: Mapping[str, object], row: int | None) -> dict[str, int]:
        """Return the sum of points by scorecard; raises as `encode` does."""
        totals = dict.fromkeys(self._cards.values(), 0)
        for f, points, number in self._attributes:
            totals[number] += points[level_in(record, f, row)]
        return {name: totals[number] for name, number in self._cards.items()}

    def _draws(self, nonce: bytes | None) -> Sequence[int]:
        if self.prf is None:
            return ()
        if nonce is None:
            nonce = secrets.token_bytes(NONCE_LENGTH)
        return self.prf.draws(nonce, len(self.schema.fields))

    def _level(self, name: str, token: bytes) -> str | None:
        level = self.levels.get(name, {}).get(token)
        if level is None:
            level = self._cipher.decrypt(name, token)
            if level not in self.tokens[name]:
                raise DecryptionError(
                    f"field {name!r}: the token stands for a level that schema "
                    f"{self.schema.identity!r} lacks; use the schema it was encrypted with"
                )
        return None if level == MISSING_LEVEL else level


def level_in(record: Mapping[str, object], field: Field, row: int | None = None) -> str:
    """Return the level of one field of a record, which has it under its raw name or its own.

    Raises:
        DataError: It is missing.
        RecordError: The value is not allowed.
    """
    name = field.source
    if name not in record:
        name = field.name
    if name not in record:
        raise DataError(f"{_record(row)} lacks field {field.source!r}; allowed: {field.allowed}")
    return field.level_of(record[name], row)


def _record(row: int | None) -> str:
    return "the record" if row is None else f"record {row}"


def _meaning(field: Field, level: str | None) -> str:
    if level is None:
        return "absent"
    if field.kind == "categorical":
        if level == OTHER_LEVEL and field.other:
            return "any other value"
        return field.categories[level] or level
    return f"{level} {field.unit}".strip()
