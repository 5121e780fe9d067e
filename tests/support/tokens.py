"""JSON Web Tokens for tests, good ones and forged ones."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ISSUER = "https://issuer.example"
AUDIENCE = "cipherscore"
ALGORITHMS = {"ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
              "EdDSA": ed25519.Ed25519PrivateKey.generate,
              "RS256": lambda: rsa.generate_private_key(65537, 2048)}  # fmt: skip


def public_pem(key: Any) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def claims(**changes: Any) -> dict[str, Any]:
    """Claims of a good token; a change to None leaves one out."""
    content = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "bank-a",
        "scope": "score generate",
        "exp": time.time() + 600,
        **changes,
    }
    return {name: value for name, value in content.items() if value is not None}


def sign(key: Any, algorithm: str = "ES256", **changes: Any) -> str:
    # Not jwt.encode, which refuses some of what a forger would write.
    return jwt.PyJWS().encode(json.dumps(claims(**changes)).encode(), key, algorithm)


def part(content: Any) -> str:
    """One part of a token from JSON, or from bytes."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
