"""Re-key map: old token to new token, per field; written by the data owner, applied by the host.

It holds tokens only.  Who has it learns which old and new tokens stand for the same value, and
nothing about what that value is.

As a file it is JSON, tokens in the text form of `cipherscore.tokens`::

    {"format": "cipherscore-rekey-map", "version": 1, "schema": "german-credit",
     "from_key": "0a1b2c3d", "to_key": "4e5f6071",
     "fields": {"duration": {"<old token>": "<new token>", …}, …}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cipherscore import files, tokens
from cipherscore.errors import DataError, TokenFormatError

_FORMAT = "cipherscore-rekey-map"
_VERSION = 1


@dataclass(frozen=True)
class RekeyMap:
    """Translation of all tokens of one schema from one key to another.

    Args:
        schema: Name of the schema.
        from_key: Id of the key the old tokens were made under, eight hexadecimal digits.
        to_key: Id of the key of the new tokens; another one.
        fields: Field name to {old token: new token}.

    Raises:
        DataError: The key ids are the same or malformed, a token is not of its key, or two old
            tokens of a field have one new token.
    """

    schema: str
    from_key: str
    to_key: str
    fields: Mapping[str, Mapping[bytes, bytes]]

    def __post_init__(self) -> None:
        try:
            old, new = tokens.check_key_id(self.from_key), tokens.check_key_id(self.to_key)
        except TokenFormatError as error:
            raise DataError(f"re-key map: {error}") from error
        if old == new:
            raise DataError("re-key map: the old and the new key are the same")
        for field, renamed in self.fields.items():
            _check_field(field, renamed, old, new)

    def to_json(self) -> str:
        """Return the file's content."""
        fields = {
            field: {tokens.to_text(old): tokens.to_text(new) for old, new in renamed.items()}
            for field, renamed in self.fields.items()
        }
        content = {
            "format": _FORMAT,
            "version": _VERSION,
            "schema": self.schema,
            "from_key": self.from_key,
            "to_key": self.to_key,
            "fields": fields,
        }
        return json.dumps(content, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> RekeyMap:
        """Read what `to_json` wrote.

        Raises:
            DataError: The text is no re-key map of a known version.
        """
        try:
            content = json.loads(text)
            if (content["format"], content["version"]) != (_FORMAT, _VERSION):
                raise DataError("not a re-key map of a known version")
            fields = {
                str(field): {
                    tokens.from_text(old): tokens.from_text(new) for old, new in renamed.items()
                }
                for field, renamed in content["fields"].items()
            }
            return cls(
                str(content["schema"]), str(content["from_key"]), str(content["to_key"]), fields
            )
        except (ValueError, KeyError, TypeError, AttributeError, TokenFormatError) as error:
            # The cause is not repeated: it could show a token.
            raise DataError(f"not a re-key map: {type(error).__name__}") from None

    @classmethod
    def read(cls, path: Path) -> RekeyMap:
        """Read the file at ``path``.

        Raises:
            DataError: It cannot be read, or is no re-key map.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
        except UnicodeDecodeError:
            raise DataError("not a re-key map: no text") from None
        return cls.from_json(text)

    def write(self, path: Path) -> None:
        """Write the file at ``path`` atomically, for its owner's eyes (0600).  Raises: OSError."""
        files.write_bytes(path, self.to_json().encode(), mode=0o600)


def _check_field(field: str, renamed: Mapping[bytes, bytes], old: str, new: str) -> None:
    """Check that ``renamed`` leads one-to-one from tokens of key ``old`` to tokens of ``new``."""
    try:
        ids = {(tokens.key_id_of(a), tokens.key_id_of(b)) for a, b in renamed.items()}
    except TokenFormatError as error:
        raise DataError(f"re-key map, field {field!r}: {error}") from error
    if ids - {(old, new)}:
        raise DataError(f"re-key map, field {field!r}: a token is not under the key named for it")
    if len(set(renamed.values())) != len(renamed):
        raise DataError(f"re-key map, field {field!r}: two tokens have the same new token")
