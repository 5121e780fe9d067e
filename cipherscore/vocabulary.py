"""Vocabulary: which column of a model stands for which token, per field.

It is built from training rows, saved with the model and looked up by the server.  It holds tokens
only; without the key it says how many levels a field has, and nothing about what they mean.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from cipherscore.errors import DataError, TokenFormatError
from cipherscore.tokens import check_key_id, to_text

UNSEEN = -1
"""Index of a token absent from the vocabulary; models give it no contribution."""


@dataclass(frozen=True)
class Vocabulary:
    """Per field, the tokens in column order.

    Args:
        key_id: Id of the key all tokens were made under, eight hexadecimal digits.
        tokens: Field name to its tokens; a token's position is its column index within the field.

    Raises:
        DataError: A field has no token, or one token twice.
    """

    key_id: str
    tokens: Mapping[str, tuple[bytes, ...]]

    def __post_init__(self) -> None:
        for field, column in self.tokens.items():
            if not column:
                raise DataError(
                    f"field {field!r} has no token in the training rows; drop the field"
                )
            if len(set(column)) != len(column):
                raise DataError(f"field {field!r}: the vocabulary holds a token twice")

    @classmethod
    def build(cls, key_id: str, columns: Mapping[str, Iterable[bytes]]) -> Vocabulary:
        """Build from the tokens seen in training rows: distinct and sorted by their bytes."""
        return cls(key_id, {field: tuple(sorted(set(seen))) for field, seen in columns.items()})

    @property
    def fields(self) -> tuple[str, ...]:
        """Field names in model order."""
        return tuple(self.tokens)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of columns of each field, in model order."""
        return tuple(len(column) for column in self.tokens.values())

    @property
    def width(self) -> int:
        """Number of one-hot columns over all fields."""
        return sum(self.sizes)

    @cached_property
    def index(self) -> Mapping[str, Mapping[bytes, int]]:
        """Field name to {token: column index within the field}."""
        return {
            field: {token: position for position, token in enumerate(column)}
            for field, column in self.tokens.items()
        }

    @cached_property
    def packed(self) -> Mapping[str, Mapping[bytes, bytes]]:
        """Field name to {token: its column index as four little-endian bytes}.

        One row's joined values are the model's input, which makes the way of a single row short.
        """
        return {
            field: {token: position.to_bytes(4, "little") for token, position in known.items()}
            for field, known in self.index.items()
        }

    @cached_property
    def packed_text(self) -> Mapping[str, Mapping[str, bytes]]:
        """`packed` by the tokens' text as JSON has it, with and without base64's padding."""
        return {
            field: {
                text: index
                for token, index in known.items()
                for plain in (to_text(token),)
                for text in (plain, plain + "=" * (-len(plain) % 4))
            }
            for field, known in self.packed.items()
        }

    def encode(self, field: str, dictionary: Sequence[bytes]) -> list[int]:
        """Return the column index of each token of ``dictionary``, `UNSEEN` where there is none."""
        known = self.index[field]
        return [known.get(token, UNSEEN) for token in dictionary]

    def translate(self, key_id: str, mapping: Mapping[str, Mapping[bytes, bytes]]) -> Vocabulary:
        """Return the same columns under new tokens (key rotation).

        Args:
            key_id: Id of the new key.
            mapping: Field name to {old token: new token}.

        Raises:
            DataError: A token of this vocabulary has no new token.
        """
        tokens = {}
        for field, column in self.tokens.items():
            renamed = mapping.get(field, {})
            missing = sum(token not in renamed for token in column)
            if missing:
                raise DataError(
                    f"field {field!r}: the re-key map lacks {missing} of {len(column)} tokens; "
                    "make it with the keyset and schema the model was trained under"
                )
            tokens[field] = tuple(renamed[token] for token in column)
        return Vocabulary(key_id, tokens)

    def to_json(self) -> str:
        """Return canonical JSON: the key id and, per field in order, base64 tokens."""
        fields = [
            {"field": field, "tokens": [base64.b64encode(token).decode() for token in column]}
            for field, column in self.tokens.items()
        ]
        return json.dumps({"key_id": self.key_id, "fields": fields}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Vocabulary:
        """Read what `to_json` wrote.

        Raises:
            DataError: The text is no vocabulary.
        """
        try:
            content = json.loads(text)
            columns = [
                (entry["field"], tuple(base64.b64decode(t, validate=True) for t in entry["tokens"]))
                for entry in content["fields"]
            ]
            tokens = dict(columns)
            key_id = check_key_id(content["key_id"])
        except (ValueError, KeyError, TypeError, RecursionError, TokenFormatError) as error:
            # The cause is not repeated: it could show a token.
            raise DataError(f"not a vocabulary file: {type(error).__name__}") from None
        if not tokens or len(tokens) < len(columns):
            raise DataError("not a vocabulary file: fields are missing or named twice")
        if not all(isinstance(field, str) for field in tokens):
            raise DataError("not a vocabulary file: a field's name is no text")
        return cls(key_id, tokens)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over `to_json`, 64 hexadecimal digits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()
