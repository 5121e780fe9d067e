"""Token format: what an encrypted value looks like on the wire.  No key material here.

==========  ======  =====================================================
offset      bytes   content
==========  ======  =====================================================
0           1       format version, now 1
1           4       key id
5           16      synthetic IV of AES-SIV (RFC 5297, section 2.4)
21          16 * k  ciphertext of the padded level, in smoothed fields with the number
                    of its homophone; k is fixed per field
==========  ======  =====================================================

As text (JSON) a token is URL-safe base64 without padding (RFC 4648, section 5).
"""

from __future__ import annotations

import base64
import binascii
import re

from cipherscore.errors import TokenFormatError

VERSION = 1
KEY_ID_LENGTH = 4
HEADER_LENGTH = 1 + KEY_ID_LENGTH
SIV_LENGTH = 16
BLOCK_LENGTH = 16
MIN_LENGTH = HEADER_LENGTH + SIV_LENGTH + BLOCK_LENGTH
MAX_LENGTH = HEADER_LENGTH + SIV_LENGTH + 64 * BLOCK_LENGTH
_NO_TEXT = "a token is URL-safe base64 without padding"
_KEY_ID = re.compile(r"[0-9a-f]{8}\Z")


def check_key_id(key_id: str) -> str:
    """Return ``key_id`` if it is eight lower-case hexadecimal digits.

    Raises:
        TokenFormatError: It is not.
    """
    if not _KEY_ID.match(key_id):
        raise TokenFormatError("a key id is eight lower-case hexadecimal digits")
    return key_id


def header(key_id: str) -> bytes:
    """Return the five header bytes of a token made under ``key_id``."""
    return bytes([VERSION]) + bytes.fromhex(check_key_id(key_id))


def key_id_of(token: bytes) -> str:
    """Return the key id in ``token``'s header, after checking its form (not its authenticity).

    Raises:
        TokenFormatError: Wrong length or unknown format version.
    """
    body = len(token) - HEADER_LENGTH - SIV_LENGTH
    if not MIN_LENGTH <= len(token) <= MAX_LENGTH or body % BLOCK_LENGTH:
        raise TokenFormatError(
            f"a token has {MIN_LENGTH} to {MAX_LENGTH} bytes in steps of {BLOCK_LENGTH}; "
            f"this one has {len(token)}"
        )
    if token[0] != VERSION:
        raise TokenFormatError(f"token format version {token[0]} is unknown; known: {VERSION}")
    return token[1:HEADER_LENGTH].hex()


def to_text(token: bytes) -> str:
    """Return ``token`` as URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(token).rstrip(b"=").decode()


def from_text(text: str) -> bytes:
    """Return the bytes of a token written by `to_text`, or padded; its form is not checked here.

    Raises:
        TokenFormatError: Not what `to_text` writes, or longer than any token.
    """
    if len(text) > MAX_LENGTH * 4 // 3 + 4:
        raise TokenFormatError(f"a token has at most {MAX_LENGTH} bytes")
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        token = base64.b64decode(padded, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise TokenFormatError(_NO_TEXT) from None
    # The decoder also takes another alphabet and stray bits; padding aside, a token has one text.
    if to_text(token) != text.rstrip("="):
        raise TokenFormatError(_NO_TEXT)
    return token
