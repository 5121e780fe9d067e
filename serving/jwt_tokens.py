"""JSON Web Tokens of an issuer the operator trusts: signature, issuer, audience, time, scopes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from cipherscore.errors import ConfigurationError, Unauthenticated
from serving.call import Scope
from serving.settings_file import read_text

LEEWAY = 30
"""Seconds by which the issuer's clock may differ from ours."""

MAX_BYTES = 8192
"""Longest token; a longer one is refused before anything of it is decoded."""

_MAX_KEYS = 8
_MIN_RSA_BITS = 2048
_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_SUBJECT = re.compile(r"[\x21-\x7e]{1,128}")
_SCOPES = frozenset(get_args(Scope))

_Key = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True)
class Claims:
    """What a valid token says.

    Attributes:
        subject: The client, printable ASCII without spaces.
        scopes: Those of ours among its scopes.
        expires: Unix time from which on it is refused, the leeway included.
    """

    subject: str
    scopes: frozenset[Scope]
    expires: float


class Verifier:
    """Verifies tokens with the public keys of one file.

    A key's type fixes its one algorithm (RSA: RS256, P-256: ES256, Ed25519: EdDSA), so what the
    token's header asks for, ``none`` or an HMAC under the public key, is never followed.

    Args:
        path: PEM file with one or several public keys; several while the issuer changes its key.
        issuer: What ``iss`` must be.
        audience: What ``aud`` must be or hold.

    Raises:
        ConfigurationError: The file holds no usable public key.
    """

    def __init__(self, path: Path, issuer: str, audience: str) -> None:
        self._keys = _public_keys(path)
        self._issuer = issuer
        self._audience = audience

    def verify(self, token: str) -> Claims:
        """Return what the token says.

        Raises:
            Unauthenticated: It is not valid; the message holds nothing of it.
        """
        if len(token) > MAX_BYTES:
            raise Unauthenticated(f"the token is longer than {MAX_BYTES} bytes")
        fault = "the token is not valid"
        for algorithm, key in self._keys:
            try:
                content = jwt.decode(
                    token,
                    key,
                    algorithms=[algorithm],
                    issuer=self._issuer,
                    audience=self._audience,
                    leeway=LEEWAY,
                    options={"require": ["exp", "iss", "aud", "sub"]},
                )
                return _claims(content)
            except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
                continue  # perhaps another key's
            except jwt.ExpiredSignatureError:
                fault = "the token has expired"
            except jwt.InvalidTokenError:
                pass
            # A hostile header or body can also break the decoder: deep nesting, huge numbers.
            except (ValueError, TypeError, OverflowError, RecursionError):
                pass
            break
        raise Unauthenticated(fault)


def _claims(content: dict[str, object]) -> Claims:
    subject, scope, expires = content["sub"], content.get("scope", ""), content["exp"]
    if not isinstance(subject, str) or not _SUBJECT.fullmatch(subject):
        raise jwt.InvalidTokenError
    if not isinstance(scope, str) or not isinstance(expires, (int, float)):
        raise jwt.InvalidTokenError
    return Claims(
        subject, frozenset(_SCOPES.intersection(scope.split(" "))), float(expires) + LEEWAY
    )


def _public_keys(path: Path) -> tuple[tuple[str, _Key], ...]:
    """Read the keys, each with its algorithm."""
    text = read_text(path, "jwt_key_file")
    blocks = list(_BLOCK.finditer(text))
    if not 1 <= len(blocks) <= _MAX_KEYS:
        raise ConfigurationError(
            f"jwt_key_file: {path} must hold 1 to {_MAX_KEYS} PEM blocks 'PUBLIC KEY', "
            f"not {len(blocks)}"
        )
    return tuple(_public_key(path, block[0], block[1]) for block in blocks)


def _public_key(path: Path, pem: str, kind: str) -> tuple[str, _Key]:
    if "PRIVATE" in kind:
        raise ConfigurationError(
            f"jwt_key_file: {path} holds a private key; only the issuer may have that, "
            "give its public key"
        )
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"jwt_key_file: {path}: '{kind}' is no public key") from None
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= _MIN_RSA_BITS:
        return "RS256", key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return "ES256", key
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "EdDSA", key
    raise ConfigurationError(
        f"jwt_key_file: {path}: keys are RSA of {_MIN_RSA_BITS} bits or more, P-256 or Ed25519"
    )
