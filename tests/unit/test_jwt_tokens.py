"""Tokens of a trusted issuer pass; nothing else does."""

from __future__ import annotations

import hashlib
import hmac
import time
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from cipherscore.errors import ConfigurationError, Unauthenticated
from serving.jwt_tokens import LEEWAY, MAX_BYTES, Verifier
from tests.support.certificates import make_authority
from tests.support.tokens import ALGORITHMS, AUDIENCE, ISSUER, claims, part, public_pem, sign

KEY = ALGORITHMS["ES256"]()
OTHER = ALGORITHMS["ES256"]()


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Verifier:
    path = tmp_path_factory.mktemp("jwt") / "key.pem"
    path.write_bytes(public_pem(KEY))
    return Verifier(path, ISSUER, AUDIENCE)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_kind_of_key(tmp_path: Path, algorithm: str) -> None:
    key = ALGORITHMS[algorithm]()
    (tmp_path / "k").write_bytes(public_pem(key))
    verifier = Verifier(tmp_path / "k", ISSUER, AUDIENCE)
    found = verifier.verify(sign(key, algorithm))
    assert (found.subject, found.scopes) == ("bank-a", {"score", "generate"})
    assert found.expires == pytest.approx(time.time() + 600 + LEEWAY, abs=60)
    with pytest.raises(Unauthenticated):
        verifier.verify(sign(ALGORITHMS[algorithm](), algorithm))


def test_an_issuer_may_change_its_key(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(b"new one:\n" + public_pem(OTHER) + public_pem(KEY))
    verifier = Verifier(tmp_path / "k", ISSUER, AUDIENCE)
    for key in (KEY, OTHER):
        assert verifier.verify(sign(key)).subject == "bank-a"
    with pytest.raises(Unauthenticated, match="expired"):
        verifier.verify(sign(KEY, exp=1))


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [
        (None, set()),
        ("", set()),
        ("score", {"score"}),
        ("openid score  admin email", {"score", "admin"}),
        ("SCORE score\tadmin scores", set()),
    ],
)
def test_scopes(verifier: Verifier, scope: str | None, scopes: set[str]) -> None:
    assert verifier.verify(sign(KEY, scope=scope)).scopes == scopes


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://issuer.example/"},
        {"iss": None},
        {"iss": [ISSUER]},
        {"aud": "someone"},
        {"aud": None},
        {"aud": ["a", "b"]},
        {"sub": None},
        {"sub": ""},
        {"sub": "a b"},
        {"sub": "a\nb"},
        {"sub": "x" * 129},
        {"sub": 7},
        {"exp": None},
        {"exp": "soon"},
        {"exp": float("inf")},
        {"exp": [2**40]},
        {"exp": True},
        {"nbf": 2**40},
        {"scope": ["score"]},
        {"scope": {"score": True}},
    ],
)
def test_claims_that_do_not_hold(verifier: Verifier, changes: dict[str, object]) -> None:
    with pytest.raises(Unauthenticated):
        verifier.verify(sign(KEY, **changes))


def test_time(verifier: Verifier) -> None:
    now = time.time()
    with pytest.raises(Unauthenticated, match="expired"):
        verifier.verify(sign(KEY, exp=now - LEEWAY - 5))
    verifier.verify(sign(KEY, exp=now - LEEWAY + 20))
    verifier.verify(sign(KEY, nbf=now + LEEWAY - 20, iat=now + LEEWAY - 20))


def test_one_audience_of_several_is_enough(verifier: Verifier) -> None:
    assert verifier.verify(sign(KEY, aud=["x", AUDIENCE])).subject == "bank-a"


def forged(header: dict[str, object], signature: bytes = b"") -> str:
    return f"{part(header)}.{part(claims())}.{part(signature)}"


def hmac_signed(algorithm: str, secret: bytes) -> str:
    head = f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part(claims())}"
    return f"{head}.{part(hmac.new(secret, head.encode(), hashlib.sha256).digest())}"


ATTACKS = {
    "alg none": forged({"alg": "none"}),
    "alg None": forged({"alg": "None"}),
    "alg nOnE, signed": forged({"alg": "nOnE"}, b"x" * 64),
    "no alg": forged({"typ": "JWT"}),
    "alg is a list": forged({"alg": ["ES256", "none"]}),
    "HS256 with the public key": hmac_signed("HS256", public_pem(KEY)),
    "HS256 with the stripped public key": hmac_signed("HS256", public_pem(KEY).strip()),
    "HS256 with nothing": hmac_signed("HS256", b""),
    "ES256, empty signature": forged({"alg": "ES256"}),
    "ES256, zero signature (CVE-2022-21449)": forged({"alg": "ES256"}, bytes(64)),
    "ES384 of the same key": forged({"alg": "ES384"}, b"x" * 96),
    "own key in the header": jwt.encode(
        claims(), OTHER, "ES256", headers={"jwk": {"kty": "EC", "crv": "P-256", "x": "", "y": ""}}
    ),
    "a key to be fetched": jwt.encode(
        claims(), OTHER, "ES256", headers={"jku": "http://127.0.0.1:9/", "x5u": "http://127.0.0.1:9/"}
    ),
    "a key file of the attacker": jwt.encode(claims(), OTHER, "ES256", headers={"kid": "/dev/null"}),
    "unknown critical header": jwt.encode(
        claims(), KEY, "ES256", headers={"crit": ["x"], "x": True}
    ),
    "unencoded payload": jwt.encode(claims(), KEY, "ES256", headers={"crit": ["b64"], "b64": False}),
    "token in a token": jwt.PyJWS().encode(sign(KEY).encode(), KEY, "ES256", headers={"cty": "JWT"}),
    "payload is a list": jwt.PyJWS().encode(b"[1]", KEY, "ES256"),
    "payload is no JSON": jwt.PyJWS().encode(b"\xff\xfe", KEY, "ES256"),
    "payload with a huge number": jwt.PyJWS().encode(
        b'{"exp":1e999,"iss":"https://issuer.example","aud":"cipherscore","sub":"a"}', KEY, "ES256"
    ),
    "deep payload": jwt.PyJWS().encode(b"[" * 5_000, KEY, "ES256"),
    "deep header": f"{part(b'[' * 5_000)}.{part(claims())}.{part(b'')}",
    "long number in the header": f"{part(b'9' * 5_000)}.{part(claims())}.{part(b'')}",
    "header is no object": f"{part(['ES256'])}.{part(claims())}.{part(b'')}",
    "too long": sign(KEY, padding="x" * MAX_BYTES),
    "not ASCII": sign(KEY) + "é",
    "another signature": sign(KEY, sub="a").rsplit(".", 1)[0] + "." + sign(KEY).rsplit(".", 1)[1],
    "three dots": sign(KEY) + ".",
    "encrypted": "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0..a.b.c",
    "empty": "",
    "dots": "..",
    "zero bytes": "\0.\0.\0",
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks(verifier: Verifier, attack: str) -> None:
    token = ATTACKS[attack]
    with pytest.raises(Unauthenticated) as caught:
        verifier.verify(token)
    assert not token or token not in str(caught.value)
    assert caught.value.__cause__ is None


@given(st.text() | st.binary().map(lambda raw: f"{part(raw)}.{part(raw)}.{part(raw)}"))
def test_junk(verifier: Verifier, token: str) -> None:
    with pytest.raises(Unauthenticated):
        verifier.verify(token)


TOKEN = sign(KEY, exp=2**34)


@given(st.data())
def test_one_changed_character_is_noticed(verifier: Verifier, data: st.DataObject) -> None:
    # The very last character holds unused bits.
    place = data.draw(st.integers(0, len(TOKEN) - 2))
    other = data.draw(st.sampled_from("ABCxyz019-_.").filter(lambda char: char != TOKEN[place]))
    with pytest.raises(Unauthenticated):
        verifier.verify(TOKEN[:place] + other + TOKEN[place + 1 :])


def private_pem() -> bytes:
    return OTHER.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must hold 1 to 8"),
        (public_pem(KEY) * 9, "not 9"),
        (private_pem(), "holds a private key"),
        (public_pem(KEY) + private_pem(), "holds a private key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "is no public key"),
        (make_authority().certificate, "'CERTIFICATE' is no public key"),
        (public_pem(rsa.generate_private_key(65537, 1024)), "2048 bits or more"),
        (public_pem(ec.generate_private_key(ec.SECP384R1())), "P-256"),
        (b"\xff\xfe", "not UTF-8"),
        (None, "cannot read"),
    ],
)
def test_files_that_hold_no_usable_key(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "k").write_bytes(content)
    with pytest.raises(ConfigurationError, match=message) as caught:
        Verifier(tmp_path / "k", ISSUER, AUDIENCE)
    assert "MII" not in str(caught.value)
