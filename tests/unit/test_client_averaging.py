"""Several draws of a record in one call: what is sent, and how the answers become one."""

from __future__ import annotations

import asyncio
import math
from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from cipherscore.client import AsyncClient, Client
from cipherscore.client.encryption import FieldCipher
from cipherscore.client.gateway.app import create_app
from cipherscore.client.keys import Keyset
from cipherscore.client.records import RecordCodec
from cipherscore.errors import ConfigurationError, DataError, EmptyBatch, RecordError, ServiceError
from cipherscore.schema import Field, Schema, Target
from tests.support.host_double import (
    THRESHOLD,
    HostDouble,
    contribution,
    probability,
    serve,
    unpack,
)

SCHEMA = Schema(
    name="smooth",
    target=Target("risk", good="1", bad="2"),
    fields=(
        Field(
            "colour", "categorical", categories={"C1": "red", "C2": "blue"},
            homophones={"C1": (1,) * 300, "C2": (1,) * 300},
        ),
        Field("amount", "numeric", edges=tuple(float(edge) for edge in range(0, 210, 10))),
    ),
)  # fmt: skip
PLAIN = replace(SCHEMA, fields=(replace(SCHEMA.fields[0], homophones={}), SCHEMA.fields[1]))
KEYSET = Keyset.create()
CODEC = RecordCodec(FieldCipher(KEYSET, SCHEMA))
DRAWS = 5
ROWS = [{"colour": ["C1", "C2"][n % 2], "amount": 10 * n + 5} for n in range(20)]
"""Told apart by the amount, which has no homophones."""


@pytest.fixture
def server():
    tokens = {name: list(column) for name, column in CODEC.levels.items()}
    host = HostDouble(tokens, CODEC.key_id)
    with serve(host) as port:
        yield host, f"127.0.0.1:{port}"


def sent(host):
    """The tokens of all rows that the host has got, by the number of the caller's row; its order."""
    number = {CODEC.encode(row)["amount"]: place for place, row in enumerate(ROWS)}
    found, order = defaultdict(list), []
    for request in host.requests:
        for row in zip(*map(unpack, request.table.columns), strict=True):
            found[number[row[1]]].append(row)
            order.append(number[row[1]])
    return found, order


def mean(chances):
    odds = [math.log(max(chance, 1e-7) / (1 - chance)) for chance in chances]
    return 1 / (1 + math.exp(-sum(odds) / len(odds)))


def check(host, scores):
    found, order = sent(host)
    assert Counter(order) == dict.fromkeys(range(len(ROWS)), DRAWS)
    assert order != sorted(order)
    for place, score in enumerate(scores):
        assert len(set(found[place])) > 1
        expected = mean([probability(row) for row in found[place]])
        assert score.probability == pytest.approx(expected, abs=1e-3)  # float32 near 1
        assert score.decision == ("bad" if score.probability >= THRESHOLD else "good")
    assert {score.decision for score in scores} == {"bad", "good"}


@pytest.mark.parametrize("batch_rows", [8192, 7])
def test_both_clients_send_all_draws_in_random_order_and_average_log_odds(server, batch_rows):
    host, address = server
    with Client(KEYSET, SCHEMA, address, batch_rows=batch_rows) as client:
        check(host, client.score(ROWS, draws=DRAWS))
        assert len(host.requests) == -(-len(ROWS) * DRAWS // batch_rows)
        host.requests.clear()
        check(host, client.score(iter(ROWS), draws=DRAWS))
    host.requests.clear()

    async def ask():
        async with AsyncClient(KEYSET, SCHEMA, address, batch_rows=batch_rows) as client:
            return await client.score(ROWS, draws=DRAWS)

    check(host, asyncio.run(ask()))


def test_tables(server):
    pa = pytest.importorskip("pyarrow")
    host, address = server
    with Client(KEYSET, SCHEMA, address) as client:
        check(host, client.score(pa.Table.from_pylist(ROWS), draws=DRAWS))
        host.requests.clear()
        check(host, client.score(pa.Table.from_pylist(ROWS).to_pandas(), draws=DRAWS))


def test_reasons_are_means_by_field(server):
    host, address = server
    with Client(KEYSET, SCHEMA, address) as client:
        scores = client.score(ROWS, draws=DRAWS, reasons=1)
    assert {request.reasons for request in host.requests} == {2}  # means need all fields
    found, _ = sent(host)
    named = set()
    for place, score in enumerate(scores):
        columns = zip(*found[place], strict=True)
        means = [sum(map(contribution, column)) / DRAWS for column in columns]
        (reason,) = score.reasons
        assert reason.contribution == pytest.approx(max(means))
        assert reason.field == ("colour", "amount")[means.index(max(means))]
        held = {"colour": ROWS[place]["colour"], "amount": CODEC.schema.fields[1].levels[place]}
        assert reason.level == held[reason.field]
        named.add(reason.field)
    assert named == {"colour", "amount"}


def test_without_reasons_none_are_asked_for(server):
    host, address = server
    with Client(KEYSET, SCHEMA, address) as client:
        assert client.score(ROWS, draws=2)[0].reasons == ()
    assert {request.reasons for request in host.requests} == {0}


def test_certain_answers_can_be_averaged(server):
    host, address = server
    host.edit = lambda answer: answer.probability.__setitem__(slice(None), [0.0, 1.0])
    with Client(KEYSET, SCHEMA, address) as client:
        (score,) = client.score(ROWS[:1], draws=2)
    assert score.probability == pytest.approx(0.5)


def test_one_draw_is_sent_as_it_is(server):
    host, address = server
    with Client(KEYSET, SCHEMA, address) as client:
        scores = client.score(ROWS, draws=1)
    found, order = sent(host)
    assert order == list(range(len(ROWS)))
    assert [score.probability for score in scores] == pytest.approx(
        [probability(found[place][0]) for place in order]
    )


@pytest.mark.parametrize("draws", [0, -1, 65, 1.5, "2"])
def test_a_wrong_number_of_draws_is_refused(draws):
    client = Client(KEYSET, SCHEMA, "127.0.0.1:1")
    with pytest.raises(ConfigurationError, match="draws must be 1 to 64"):
        client.score(ROWS, draws=draws)


def test_a_schema_without_homophones_has_one_draw():
    client = Client(KEYSET, PLAIN, "127.0.0.1:1")
    with pytest.raises(ConfigurationError, match="gives no level several tokens"):
        client.score(ROWS, draws=2)


def test_a_wrong_row_is_named_as_the_caller_counts_and_nothing_is_sent(server):
    host, address = server
    rows = [*ROWS[:13], {"colour": "C3", "amount": 5}, *ROWS[14:]]
    pa = pytest.importorskip("pyarrow")
    with Client(KEYSET, SCHEMA, address) as client:
        for given in (rows, iter(rows), pa.Table.from_pylist(rows)):
            with pytest.raises(RecordError) as caught:
                client.score(given, draws=3)
            assert (caught.value.row, caught.value.field) == (13, "colour")
        with pytest.raises(DataError, match="record 3 lacks field 'amount'"):
            client.score([*ROWS[:3], {"colour": "C1"}], draws=9)
        for nothing in ("text", {"colour": "C1"}, 5):
            with pytest.raises(DataError, match="give a list of records"):
                client.score(nothing, draws=2)
        for empty in ([], pa.Table.from_pylist(ROWS).slice(0, 0)):
            with pytest.raises(EmptyBatch):
                client.score(empty, draws=2)
    assert not host.requests


@pytest.mark.parametrize(
    "change",
    [
        lambda answer, n: setattr(answer, "model", f"test-classifier:{n}"),
        lambda answer, n: setattr(answer, "threshold", n / 10),
        lambda answer, _: setattr(answer, "threshold", math.nan),
    ],
)
def test_answers_of_several_models_are_not_averaged(server, change):
    host, address = server
    host.edit = lambda answer: change(answer, len(host.requests))
    with Client(KEYSET, SCHEMA, address, batch_rows=len(ROWS), retries=0) as client:
        with pytest.raises(ServiceError, match=r"several models|no number"):
            client.score(ROWS, draws=2)
        assert len(client.score(ROWS, draws=1)) == len(ROWS)


def test_the_gateway_averages(server):
    host, address = server
    client = AsyncClient(KEYSET, SCHEMA, address, retries=0)
    with TestClient(create_app(client, draws=DRAWS)) as http:
        answer = http.post("/predictCreditRisk", json=ROWS)
    found, _ = sent(host)
    means = [mean([probability(row) for row in found[place]]) for place in range(len(ROWS))]
    assert answer.json() == [[2] if chance >= THRESHOLD else [1] for chance in means]
