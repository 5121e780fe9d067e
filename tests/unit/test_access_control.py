"""Who gets in, with what, and how often."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from cipherscore.errors import (
    ConfigurationError,
    PermissionDenied,
    RateLimited,
    Unauthenticated,
)
from serving import access, clients_file, file_watch
from serving.access import Access
from serving.clients_file import Entry, digest, new_key
from serving.jwt_tokens import LEEWAY
from serving.settings import Settings
from tests.support.tokens import ALGORITHMS, AUDIENCE, ISSUER, public_pem, sign

KEY = ALGORITHMS["ES256"]()
API_KEY, SECOND, ADMIN = new_key(), new_key(), new_key()
ENTRIES = (
    Entry("bank-a", ("score",), (digest(API_KEY), digest(SECOND)), rate_per_second=0.001, rate_burst=3),
    Entry("bank-b", ("score", "generate"), certificates=("gw.bank-b", "spiffe://bank/b")),
    Entry("root", ("admin",), (digest(ADMIN),)),
)  # fmt: skip


def bearer(credential: str) -> dict[str, str]:
    return {"authorization": f"Bearer {credential}"}


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at files with every request."""
    monkeypatch.setattr(file_watch, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(access, "LOOK_SECONDS", 0.0)


@pytest.fixture
def clients(tmp_path: Path) -> Path:
    clients_file.write(tmp_path / "clients.toml", ENTRIES)
    return tmp_path / "clients.toml"


@pytest.fixture
def jwt_settings(tmp_path: Path) -> dict[str, object]:
    (tmp_path / "jwt.pem").write_bytes(public_pem(KEY))
    return {"jwt_key_file": tmp_path / "jwt.pem", "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}


@pytest.fixture
def guarded(clients: Path, jwt_settings: Mapping[str, object]) -> Access:
    return Access(Settings(clients_file=clients, **jwt_settings))


def refused(access_: Access, headers: Mapping[str, str], certificate: str = "") -> str:
    with pytest.raises(Unauthenticated) as caught:
        access_.identify(headers, certificate)
    message = str(caught.value)
    for value in headers.values():
        assert len(value) < 8 or value not in message
    # What is open to everybody stays open.
    public = access_.identify(headers, certificate, required=False)
    assert (public.name, public.scopes) == ("anonymous", frozenset())
    access_.leave(access_.enter(public, None))
    return message


@pytest.mark.parametrize(
    "headers",
    [
        bearer(API_KEY),
        {"authorization": f"bearer {API_KEY}"},
        {"authorization": f" BEARER  {SECOND} "},
        {"x-api-key": API_KEY},
        {**bearer(API_KEY), "x-api-key": "something else"},
    ],
)
def test_a_key_in_any_form(guarded: Access, headers: dict[str, str]) -> None:
    first = guarded.identify(headers)
    assert first.name == "bank-a"
    assert guarded.identify(headers) is first
    assert guarded.identify(headers, "gw.bank-b") is first


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer(new_key()),
        bearer(API_KEY[:-1]),
        bearer(API_KEY + "x"),
        bearer(API_KEY.swapcase()),
        bearer(digest(API_KEY)),
        bearer("x" * 100_000),
        bearer("é\ud800"),
        bearer(""),
        {"authorization": API_KEY},
        {"authorization": f"Basic {API_KEY}"},
        {"authorization": ""},
        {"x-api-key": f"Bearer {API_KEY}"},
        {"x-api-key": ""},
        {"authorization": "Bearer wrong-key", "x-api-key": API_KEY},
        {"X-API-Key": API_KEY},
    ],
)
def test_wrong_keys(guarded: Access, headers: dict[str, str]) -> None:
    guarded.identify(bearer(API_KEY))
    guarded.identify({"x-api-key": API_KEY})
    refused(guarded, headers)


def test_a_wrong_key_is_not_made_good_by_a_certificate(guarded: Access) -> None:
    assert guarded.identify({}, "gw.bank-b").name == "bank-b"
    assert guarded.identify({}, "spiffe://bank/b").name == "bank-b"
    refused(guarded, bearer("wrong-key"), "gw.bank-b")
    refused(guarded, {}, "gw.bank-c")


def test_scopes(guarded: Access) -> None:
    bank, root = guarded.identify(bearer(API_KEY)), guarded.identify(bearer(ADMIN))
    guarded.leave(guarded.enter(bank, "score"))
    for _ in range(9):
        guarded.leave(guarded.enter(bank, None))
        guarded.charge(None)
    for client, scope in ((bank, "generate"), (bank, "admin"), (root, "score")):
        with pytest.raises(PermissionDenied, match=scope):
            guarded.enter(client, scope)  # type: ignore[arg-type]
    assert bank.limiter.running == root.limiter.running == 0


def test_the_rate_holds_over_all_keys_of_a_client(guarded: Access) -> None:
    for key in (API_KEY, SECOND, API_KEY):
        guarded.leave(guarded.enter(guarded.identify(bearer(key)), "score"))
    with pytest.raises(RateLimited) as caught:
        guarded.enter(guarded.identify(bearer(SECOND)), "score")
    assert caught.value.retry_after is not None
    assert 900 < caught.value.retry_after <= 1000


def test_messages_of_a_stream_count(guarded: Access) -> None:
    slot = guarded.enter(guarded.identify(bearer(API_KEY)), "score")
    guarded.charge(slot)
    guarded.charge(slot)
    with pytest.raises(RateLimited):
        guarded.charge(slot)
    assert slot is not None
    assert slot.running == 1


def test_concurrency_of_the_settings(tmp_path: Path) -> None:
    clients_file.write(tmp_path / "c", [Entry("a", ("score",), (digest(API_KEY),))])
    guarded = Access(Settings(clients_file=tmp_path / "c", max_concurrent=2))
    client = guarded.identify(bearer(API_KEY))
    slots = [guarded.enter(client, "score") for _ in range(2)]
    with pytest.raises(RateLimited):
        guarded.enter(client, "score")
    guarded.leave(slots[0])
    guarded.enter(client, "score")


# ---- tokens


def test_a_token(guarded: Access) -> None:
    headers = bearer(sign(KEY, scope="score admin"))
    client = guarded.identify(headers)
    assert (client.name, client.scopes) == ("jwt:bank-a", {"score", "admin"})
    assert guarded.identify(headers) is client
    refused(guarded, {"x-api-key": sign(KEY)})


def test_a_token_is_verified_once_and_again_when_it_has_expired(
    guarded: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = bearer(sign(KEY, exp=time.time() + 20))
    guarded.identify(headers)
    with monkeypatch.context() as patch:
        patch.setattr("serving.jwt_tokens.Verifier.verify", lambda *_: pytest.fail("not needed"))
        guarded.identify(headers)
    # Its clock goes on while ours stands: verified again, it is refused.
    later = time.monotonic() + 20 + LEEWAY + 1
    monkeypatch.setattr(access, "monotonic", lambda: later)
    monkeypatch.setattr("serving.jwt_tokens.LEEWAY", -60)
    assert "expired" in refused(guarded, headers)


def test_tokens_of_one_subject_share_their_limits(jwt_settings: Mapping[str, object]) -> None:
    guarded = Access(Settings(**jwt_settings, rate_per_second=0.001, rate_burst=2))
    tokens = [sign(KEY, jti=str(number)) for number in range(3)]
    for token in tokens[:2]:
        guarded.enter(guarded.identify(bearer(token)), "score")
    with pytest.raises(RateLimited):
        guarded.enter(guarded.identify(bearer(tokens[2])), "score")
    guarded.enter(guarded.identify(bearer(sign(KEY, sub="bank-b"))), "score")


def test_a_subject_is_not_taken_for_a_client_of_the_file(guarded: Access) -> None:
    assert guarded.identify(bearer(sign(KEY, sub="root"))).name == "jwt:root"
    assert guarded.identify(bearer(sign(KEY, sub="root"))).limiter is not (
        guarded.identify(bearer(ADMIN)).limiter
    )


def test_what_is_remembered_is_bounded(guarded: Access, monkeypatch) -> None:
    monkeypatch.setattr(access, "_MAX_KNOWN", 3)
    monkeypatch.setattr(access, "_MAX_LIMITERS", 6)
    for number in range(20):
        guarded.identify(bearer(sign(KEY, sub=f"s{number}")))
        with pytest.raises(Unauthenticated):
            guarded.identify(bearer(new_key()))
    assert len(guarded._bearers) <= 3
    assert len(guarded._limiters) <= 6
    assert {"bank-a", "bank-b", "root"} <= guarded._limiters.keys()


def test_a_busy_limiter_is_not_forgotten(jwt_settings: Mapping[str, object], monkeypatch) -> None:
    monkeypatch.setattr(access, "_MAX_LIMITERS", 3)
    guarded = Access(Settings(**jwt_settings, max_concurrent=1))
    guarded.enter(guarded.identify(bearer(sign(KEY, sub="busy"))), "score")
    for number in range(9):
        guarded.identify(bearer(sign(KEY, sub=f"s{number}")))
    with pytest.raises(RateLimited):
        guarded.enter(guarded.identify(bearer(sign(KEY, sub="busy", jti="2"))), "score")


# ---- without clients


def test_with_nothing_set_up_everybody_may_score_and_generate() -> None:
    open_ = Access(Settings())
    for headers in ({}, bearer("anything"), {"x-api-key": "x"}):
        client = open_.identify(headers)
        assert client.name == "anonymous"
        open_.leave(open_.enter(client, "score"))
        open_.leave(open_.enter(client, "generate"))
        with pytest.raises(PermissionDenied, match="needs a credential"):
            open_.enter(client, "admin")


def test_limits_hold_for_everybody_together() -> None:
    open_ = Access(Settings(rate_per_second=0.001, rate_burst=1))
    open_.enter(open_.identify({}), "score")
    with pytest.raises(RateLimited):
        open_.enter(open_.identify({"x-api-key": "another"}), "score")


def test_mutual_tls_alone_names_the_client_by_its_certificate(tmp_path: Path) -> None:
    guarded = Access(Settings(tls_client_ca_file=tmp_path / "ca"))
    client = guarded.identify({}, "gw.bank-c")
    assert (client.name, client.scopes) == ("cert:gw.bank-c", {"score", "generate"})
    with pytest.raises(PermissionDenied):
        guarded.enter(client, "admin")
    refused(guarded, {})
    refused(guarded, bearer("some-key"), "gw.bank-c")


def test_with_tokens_a_certificate_alone_is_not_enough(jwt_settings: Mapping[str, object]) -> None:
    guarded = Access(Settings(**jwt_settings, tls_client_ca_file=Path("/ca")))
    refused(guarded, {}, "gw.bank-b")
    assert guarded.identify(bearer(sign(KEY)), "gw.bank-b").name == "jwt:bank-a"


# ---- files that change


def test_a_removed_client_is_refused_at_once(guarded: Access, clients: Path) -> None:
    assert guarded.identify(bearer(API_KEY)).name == "bank-a"
    clients_file.write(clients, ENTRIES[1:])
    refused(guarded, bearer(API_KEY))
    assert guarded.identify(bearer(ADMIN)).name == "root"
    clients_file.write(clients, ())
    refused(guarded, bearer(ADMIN))
    refused(guarded, {}, "gw.bank-b")


def test_other_scopes_and_limits_apply_at_once(guarded: Access, clients: Path) -> None:
    for _ in range(3):
        slot = guarded.enter(guarded.identify(bearer(API_KEY)), "score")
    changed = Entry(
        "bank-a", ("generate",), (digest(API_KEY),), rate_per_second=0, max_concurrent=4
    )
    clients_file.write(clients, [changed])
    client = guarded.identify(bearer(API_KEY))
    with pytest.raises(PermissionDenied):
        guarded.enter(client, "score")
    guarded.enter(client, "generate")
    with pytest.raises(RateLimited, match="more than 4"):
        guarded.enter(client, "generate")
    guarded.leave(slot)
    guarded.enter(client, "generate")


@pytest.mark.parametrize("content", ["[[client", '[[client]]\nname = "x"', None])
def test_a_broken_file_changes_nothing_and_is_logged_once(
    guarded: Access, clients: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    if content is None:
        clients.unlink()
    else:
        clients.write_text(content)
    for _ in range(3):
        assert guarded.identify(bearer(API_KEY)).name == "bank-a"
        refused(guarded, {})
    assert len(caplog.records) == 1
    assert str(clients) in caplog.text
    clients_file.write(clients, ENTRIES[2:])
    refused(guarded, bearer(API_KEY))


def test_a_new_issuer_key_ends_the_old_one(
    guarded: Access, jwt_settings: Mapping[str, object]
) -> None:
    token, other = sign(KEY), ALGORITHMS["EdDSA"]()
    guarded.identify(bearer(token))
    path = jwt_settings["jwt_key_file"]
    assert isinstance(path, Path)
    path.write_bytes(public_pem(other))
    refused(guarded, bearer(token))
    assert guarded.identify(bearer(sign(other, "EdDSA"))).name == "jwt:bank-a"


def test_a_file_swapped_by_a_link_is_noticed(tmp_path: Path) -> None:
    """As Kubernetes exchanges a mounted secret."""
    for name, entries in (("one", ENTRIES), ("two", ENTRIES[2:])):
        (tmp_path / name).mkdir()
        clients_file.write(tmp_path / name / "c", entries)
    (tmp_path / "now").symlink_to("one")
    guarded = Access(Settings(clients_file=tmp_path / "now" / "c"))
    guarded.identify(bearer(API_KEY))
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(tmp_path / "now")
    refused(guarded, bearer(API_KEY))


def test_a_wrong_file_at_start_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("[[client]]\n")
    with pytest.raises(ConfigurationError, match="client 1"):
        Access(Settings(clients_file=tmp_path / "c"))
