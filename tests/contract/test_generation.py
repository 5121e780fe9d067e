"""Synthetic rows: the same over HTTP and gRPC, reproducible, and refused alike."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cipherscore.errors import request_errors
from serving.generation import CHUNK_ROWS
from tests.contract.conftest import MAX_GENERATED, MAX_JSON_GENERATED
from tests.support.models import CLASS_PRIOR, NOISE_WIDTH, OTHER_KEY_ID, TinyModels, vocabulary
from tests.support.transports import Grpc, Http, Refused, Transport

NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize("count", [1, 10, CHUNK_ROWS + 1])
@pytest.mark.parametrize("credit_class", [None, "good", "bad"])
def test_a_seed_gives_the_same_rows_over_both(
    http: Http, grpc_client: Grpc, models: TinyModels, count: int, credit_class: str | None
) -> None:
    over_http = http.generate(count, credit_class=credit_class, seed=7)
    over_grpc = grpc_client.generate(count, credit_class=credit_class, seed=7)
    assert over_http == over_grpc
    assert len(over_grpc.rows) == count
    assert over_grpc.model == models.generator.tag
    assert over_grpc.seed == 7
    if credit_class:
        assert set(over_grpc.credit_class) == {credit_class}
    known = {field: set(column) for field, column in vocabulary().tokens.items()}
    assert all(row[field] in known[field] for row in over_grpc.rows for field in known)


def test_a_longer_answer_begins_like_a_shorter_one(transport: Transport) -> None:
    short, long = transport.generate(20, seed=3), transport.generate(200, seed=3)
    assert (long.rows[:20], long.credit_class[:20]) == (short.rows, short.credit_class)


def test_classes_are_drawn_at_the_training_prevalence(transport: Transport) -> None:
    found = transport.generate(4000, seed=1).credit_class
    assert abs(found.count("bad") / 4000 - CLASS_PRIOR) < 0.03


def test_without_a_seed_rows_differ_and_the_answer_names_the_seed(transport: Transport) -> None:
    first, second = transport.generate(50), transport.generate(50)
    assert first.rows != second.rows
    assert transport.generate(50, seed=first.seed).rows == first.rows


@pytest.mark.parametrize("seed", [0, 2**53 + 1, 2**64 - 1])
def test_every_seed_of_64_bits(http: Http, grpc_client: Grpc, seed: int) -> None:
    assert http.generate(5, seed=seed) == grpc_client.generate(5, seed=seed)


def test_explicit_noise_over_both(http: Http, grpc_client: Grpc) -> None:
    noise = [[0.25 * (row - column) for column in range(NOISE_WIDTH)] for row in range(6)]
    over_http = http.generate(6, credit_class="bad", noise=noise)
    assert over_http.rows == grpc_client.generate(6, credit_class="bad", noise=noise).rows
    assert over_http.rows == http.generate(6, credit_class="bad", seed=9, noise=noise).rows
    assert over_http.rows[:2] != over_http.rows[2:4]


def test_large_counts_are_streamed(grpc_client: Grpc) -> None:
    from tests.support.transports import KEY_ID, pb

    chunks = grpc_client.stub.Generate(
        pb.GenerateRequest(key_id=KEY_ID, count=MAX_GENERATED, seed=1), timeout=60
    )
    sizes = [chunk.table.rows for chunk in chunks]
    assert sum(sizes) == MAX_GENERATED
    assert max(sizes) == CHUNK_ROWS


FLAT = [[0.0] * NOISE_WIDTH]
REFUSALS: dict[str, tuple[Callable[[Transport], object], str, str | None]] = {
    "no row": (lambda t: t.generate(0), "empty-batch", "count"),
    "too many rows": (lambda t: t.generate(MAX_GENERATED + 1), "batch-too-large", "count"),
    "wrong key": (lambda t: t.generate(1, OTHER_KEY_ID), "wrong-key", "key_id"),
    "no key": (lambda t: t.generate(1, ""), "invalid-request", "key_id"),
    "unknown class": (lambda t: t.generate(1, credit_class="ugly"), "unknown-class", "credit_class"),
    "NaN noise": (
        lambda t: t.generate(1, noise=[[NAN, *FLAT[0][1:]]]), "invalid-noise", "noise"),
    "infinite noise": (
        lambda t: t.generate(1, noise=[[*FLAT[0][1:], -INFINITE]]), "invalid-noise", "noise"),
    "noise too narrow": (lambda t: t.generate(1, noise=[[0.0]]), "invalid-noise", "noise"),
    "noise too wide": (
        lambda t: t.generate(1, noise=[[0.0] * (NOISE_WIDTH + 1)]), "invalid-noise", "noise"),
    "noise for fewer rows": (lambda t: t.generate(2, noise=FLAT), "invalid-noise", "noise"),
    "noise for more rows": (lambda t: t.generate(1, noise=FLAT * 2), "invalid-noise", "noise"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_are_the_same(transport: Transport, case: str) -> None:
    attack, code, field = REFUSALS[case]
    with pytest.raises(Refused) as caught:
        attack(transport)
    refused, kind = caught.value, request_errors()[code]
    assert (refused.code, refused.field) == (code, field)
    assert refused.status == (kind.http_status if transport.name == "http" else kind.grpc_status)
    assert len(transport.generate(1).rows) == 1


def test_json_takes_fewer_rows_than_grpc(http: Http, grpc_client: Grpc) -> None:
    with pytest.raises(Refused, match="gRPC streams more") as caught:
        http.generate(MAX_JSON_GENERATED + 1)
    assert caught.value.code == "batch-too-large"
    assert len(grpc_client.generate(MAX_JSON_GENERATED + 1).rows) == MAX_JSON_GENERATED + 1
