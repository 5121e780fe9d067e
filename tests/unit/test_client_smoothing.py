"""Both clients and the gateway with a smoothed schema: callers see levels, the host sees homophones.

The host is a double behind a real gRPC server; what it was sent is decrypted here by the key alone.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from starlette.testclient import TestClient

from cipherscore.client import AsyncClient, Client
from cipherscore.client.encryption import FieldCipher
from cipherscore.client.gateway.app import create_app
from cipherscore.client.keys import Keyset
from cipherscore.client.records import RecordCodec
from cipherscore.schema import Field, Schema, Target
from tests.support.host_double import HostDouble, probability, serve, unpack

SCHEMA = Schema(
    name="smooth",
    target=Target("risk", good="1", bad="2"),
    fields=(
        Field(
            "colour", "categorical", categories={"C1": "red", "C2": "blue"}, missing="level",
            homophones={"C1": (1,) * 400, "C2": (3, 0, 1), "<missing>": (1, 1)},
        ),
        Field("amount", "numeric", edges=(0.0, 10.0, 20.0)),
    ),
)  # fmt: skip
KEYSET = Keyset.create()
CIPHER = FieldCipher(KEYSET, SCHEMA)
CODEC = RecordCodec(CIPHER)
ROWS = [{"colour": [None, "C1", "C2"][n % 3], "amount": n % 20} for n in range(600)]


@pytest.fixture
def server():
    tokens = {name: list(column) for name, column in CODEC.levels.items()}
    host = HostDouble(tokens, CODEC.key_id)
    with serve(host) as port:
        yield host, f"127.0.0.1:{port}"


def sent(host):
    """The tokens of all rows that the host has got."""
    return [
        row
        for request in host.requests
        for row in zip(*map(unpack, request.table.columns), strict=True)
    ]


def levels(rows):
    return [
        tuple(CIPHER.decrypt(n, t) for n, t in zip(SCHEMA.by_name, row, strict=True))
        for row in rows
    ]


EXPECTED = [
    (row["colour"] or "<missing>", "[0, 10)" if row["amount"] < 10 else "[10, 20]") for row in ROWS
]


def check(host, scores):
    """Scores are of what was sent, which stands for the rows, under homophones that vary."""
    rows = sent(host)
    assert levels(rows) == EXPECTED
    assert [score.probability for score in scores] == pytest.approx(
        [probability(row) for row in rows]
    )
    used = Counter(colour for colour, _ in rows)
    assert len(used) > 100 + 2 + 2
    assert CODEC.tokens["colour"]["C2"][1] not in used
    assert {amount for _, amount in rows} == {
        column[0] for column in CODEC.tokens["amount"].values()
    }


def test_scores_of_both_clients(server):
    host, address = server
    with Client(KEYSET, SCHEMA, address) as client:
        check(host, client.score(ROWS))
    host.requests.clear()

    async def ask():
        async with AsyncClient(KEYSET, SCHEMA, address) as client:
            return await client.score(ROWS)

    check(host, asyncio.run(ask()))


def test_scores_of_tables(server):
    pa = pytest.importorskip("pyarrow")
    host, address = server
    with Client(KEYSET, SCHEMA, address) as client:
        check(host, client.score(pa.Table.from_pylist(ROWS)))


def test_a_repeated_request_repeats_no_homophones(server):
    host, address = server
    record = {"colour": "C1", "amount": 5}
    with Client(KEYSET, SCHEMA, address) as client:
        for _ in range(20):
            client.score([record])
        assert len({row["colour"] for row in client.encrypt([record] * 20)}) > 5
    assert len({colour for colour, _ in sent(host)}) > 10
    assert set(levels(sent(host))) == {("C1", "[0, 10)")}


def test_reasons_name_the_level_behind_a_homophone(server):
    _, address = server
    with Client(KEYSET, SCHEMA, address) as client:
        for row, score in zip(ROWS, client.score(ROWS, reasons=2), strict=True):
            (reason,) = [r for r in score.reasons if r.field == "colour"]
            assert reason.level == row["colour"]
            assert reason.meaning == {"C1": "red", "C2": "blue", None: "absent"}[row["colour"]]


def test_generated_rows_are_levels(server):
    host, address = server
    host.chunk = 500
    with Client(KEYSET, SCHEMA, address) as client:
        rows = client.generate(2000, seed=1)
    assert {row["colour"] for row in rows} == {None, "C1", "C2"}
    # The double draws evenly from all 405 tokens, of which 400 stand for C1.
    assert sum(row["colour"] == "C1" for row in rows) / 2000 > 0.95


def test_the_gateway_answers_as_before(server):
    host, address = server
    with TestClient(create_app(AsyncClient(KEYSET, SCHEMA, address, retries=0))) as http:
        answer = http.post("/predictCreditRisk", json=ROWS[:200])
    assert answer.status_code == 200
    rows = sent(host)
    assert levels(rows) == EXPECTED[:200]
    assert answer.json() == [[2] if probability(row) >= 0.5 else [1] for row in rows]
