"""Scoring: the same answers and the same refusals over HTTP and gRPC."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cipherscore.errors import request_errors
from cipherscore.tokens import to_text
from tests.contract.conftest import MAX_BYTES, MAX_ROWS
from tests.support.models import (
    KEY_ID,
    OTHER_KEY_ID,
    SIZES,
    THRESHOLD,
    TinyModels,
    expected_probability,
    token,
    vocabulary,
)
from tests.support.server import Server
from tests.support.transports import Grpc, Http, Refused, Row, Transport


def rows(count: int, seed: int = 0) -> tuple[list[Row], np.ndarray]:
    """Return random known rows and their indices [count, fields]."""
    tokens = vocabulary().tokens
    random = np.random.default_rng(seed)
    indices = np.stack([random.integers(size, size=count) for size in SIZES.values()], axis=1)
    return [
        {field: tokens[field][i] for field, i in zip(SIZES, row, strict=True)} for row in indices
    ], indices


GOOD_ROW = rows(1)[0][0]


@pytest.fixture(autouse=True)
def _alive_afterwards(server: Server, http: Http, grpc_client: Grpc) -> Iterator[None]:
    yield
    assert server.ready()
    assert http.score([GOOD_ROW]) == grpc_client.score([GOOD_ROW])


@pytest.mark.parametrize("count", [1, 2, 65, 300, MAX_ROWS])
def test_scores_are_the_models_and_equal_over_both(
    http: Http, grpc_client: Grpc, models: TinyModels, count: int
) -> None:
    batch, indices = rows(count, seed=count)
    over_http, over_grpc = http.score(batch), grpc_client.score(batch)
    assert over_http == over_grpc
    assert np.allclose(over_grpc.probability, expected_probability(indices), atol=1e-6)
    assert over_grpc.model == models.classifier.tag
    assert over_grpc.threshold == THRESHOLD
    bad = [probability >= THRESHOLD for probability in over_grpc.probability]
    assert over_grpc.decision == ["bad" if b else "good" for b in bad]
    if count > 2:
        assert 0 < sum(bad) < count


def other(field: str, value: bytes) -> list[Row]:
    return [GOOD_ROW, {**GOOD_ROW, field: value}]


BIG = b"\x01" * 10_000_000
REFUSALS: dict[str, tuple[Callable[[Transport], object], str, str | None]] = {
    "unknown token": (
        lambda t: t.score(other("beta", token("beta", 99))), "unknown-token", "beta"),
    "token of another field": (
        lambda t: t.score(other("beta", token("alpha", 1))), "unknown-token", "beta"),
    "token of another key": (
        lambda t: t.score(other("gamma", token("gamma", 1, OTHER_KEY_ID))), "wrong-key", "gamma"),
    "wrong key id": (lambda t: t.score([GOOD_ROW], OTHER_KEY_ID), "wrong-key", "key_id"),
    "no key id": (lambda t: t.score([GOOD_ROW], ""), "invalid-request", "key_id"),
    "key id of another form": (
        lambda t: t.score([GOOD_ROW], "0AAB8D7C"), "invalid-request", "key_id"),
    "missing field": (
        lambda t: t.score([{f: v for f, v in GOOD_ROW.items() if f != "beta"}]),
        "missing-field", "beta"),
    "extra field": (lambda t: t.score([{**GOOD_ROW, "delta": token("delta", 0)}]),
                    "extra-field", "delta"),
    "extra field with a strange name": (
        lambda t: t.score([{**GOOD_ROW, "ü\n" + "x" * 9: token("delta", 0)}]),
        "extra-field", "\\xfc\\n" + "x" * 9),
    "extra field with the text of a token as its name": (
        lambda t: t.score([{**GOOD_ROW, to_text(token("delta", 0)): token("delta", 0)}]),
        "extra-field", "(a long name)"),
    "no row": (lambda t: t.score([]), "empty-batch", None),
    "too many rows": (lambda t: t.score([GOOD_ROW] * (MAX_ROWS + 1)), "batch-too-large", None),
    "short token": (lambda t: t.score(other("alpha", b"\x01abc")), "malformed-token", "alpha"),
    "empty token": (lambda t: t.score(other("alpha", b"")), "malformed-token", "alpha"),
    "token of another version": (
        lambda t: t.score(other("alpha", b"\x02" + token("alpha", 0)[1:])),
        "malformed-token", "alpha"),
    "one flipped bit in the header": (
        lambda t: t.score(other("alpha", b"\x01\x0b" + token("alpha", 0)[2:])),
        "wrong-key", "alpha"),
    "1 MB token": (lambda t: t.score(other("alpha", BIG[:1_000_000])), "malformed-token", "alpha"),
    "junk": (lambda t: t.junk(), "invalid-request", None),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_are_the_same(transport: Transport, case: str) -> None:
    attack, code, field = REFUSALS[case]
    with pytest.raises(Refused) as caught:
        attack(transport)
    refused, kind = caught.value, request_errors()[code]
    assert (refused.code, refused.field) == (code, field)
    assert refused.status == (kind.http_status if transport.name == "http" else kind.grpc_status)
    if code in {"unknown-token", "malformed-token"}:
        assert refused.row == 1


def test_a_request_larger_than_the_limit(http: Http, grpc_client: Grpc) -> None:
    assert len(BIG) > MAX_BYTES
    with pytest.raises(Refused) as caught:
        http.score(other("alpha", BIG))
    assert (caught.value.status, caught.value.code) == (413, "batch-too-large")
    with pytest.raises(Refused) as caught:
        grpc_client.score(other("alpha", BIG))
    assert caught.value.status == "RESOURCE_EXHAUSTED"


def test_no_token_in_messages_or_logs(server: Server, transport: Transport) -> None:
    secret = token("beta", 4711)
    for attack in (secret, secret[:-3], b"\x02" + secret[1:], token("beta", 4711, OTHER_KEY_ID)):
        with pytest.raises(Refused) as caught:
            transport.score(other("beta", attack))
        log = server.log.read_text()
        for text in (to_text(attack), repr(attack)[2:-1], attack.hex()):
            assert text[:16] not in caught.value.text
            assert text[12:28] not in log


def test_concurrent_requests(http: Http, grpc_client: Grpc) -> None:
    batch, indices = rows(400, seed=1)
    expected = expected_probability(indices)

    def one(number: int) -> bool:
        caller = (http, grpc_client)[number % 2]
        part = batch[number : number + 1 + number % 150]
        found = caller.score(part).probability
        return np.allclose(found, expected[number : number + len(part)], atol=1e-6)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(one, range(200)))


def test_one_refused_request_hurts_no_other(transport: Transport) -> None:
    def one(number: int) -> bool:
        if number % 3:
            return len(transport.score([GOOD_ROW]).probability) == 1
        try:
            transport.score(other("beta", b"x"))
        except Refused as refused:
            return refused.code == "malformed-token"
        return False

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(60)))


def test_repeated_dictionary_entries_are_allowed(grpc_client: Grpc) -> None:
    from tests.support.transports import pb, scored, table

    request = pb.ScoreRequest(key_id=KEY_ID, table=table([GOOD_ROW, GOOD_ROW]))
    for column in request.table.columns:
        column.dictionary.append(column.dictionary[0])
        column.indices = bytes([0, 1])
    assert scored(grpc_client.call("Score", request)) == grpc_client.score([GOOD_ROW, GOOD_ROW])
