"""Clients, gateway and reasons with scorecards: callers see attributes, the host sees sums.

The host is a double behind a real gRPC server; what it was sent is decrypted here by the key alone.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from cipherscore.client import AsyncClient, Client
from cipherscore.client.attribute_reasons import shared_out
from cipherscore.client.encryption import FieldCipher
from cipherscore.client.gateway.app import create_app
from cipherscore.client.keys import Keyset
from cipherscore.client.records import RecordCodec
from cipherscore.errors import ConfigurationError, RecordError
from cipherscore.schema import Field, Schema, Scorecards, Target
from cipherscore.scorecards import planned_fields
from tests.support.host_double import HostDouble, contribution, probability, serve, unpack

ATTRIBUTES = (
    Field("colour", "categorical", "Colour", {"C1": "red", "C2": "blue"}, missing="level"),
    Field("amount", "numeric", "Amount", edges=(0.0, 10.0, 20.0), unit="DM"),
    Field("job", "categorical", "Work", {"J1": "unskilled", "J2": "skilled"}),
)
CARDS = Scorecards(
    ATTRIBUTES,
    {"colour": 1, "amount": 1, "job": 2},
    {
        "colour": {"C1": 30, "C2": -20, "<missing>": 4},
        "amount": {"[0, 10)": 11, "[10, 20]": -7},
        "job": {"J1": 50, "J2": -50},
    },
)
EDGES = ((-30.0, -5.0, 20.0, 45.0), (-50.0, 0.0, 50.0))
SCHEMA = Schema(
    "cards", tuple(replace(f, edges=e) for f, e in zip(planned_fields(2, 3), EDGES, strict=True)),
    Target("risk", good="1", bad="2"), scorecards=CARDS,
)  # fmt: skip
KEYSET = Keyset.create()
CIPHER = FieldCipher(KEYSET, SCHEMA)
CODEC = RecordCodec(CIPHER)
ROWS = [
    {"colour": [None, "C1", "C2"][n % 3], "amount": n % 20, "job": ["J1", "J2"][n % 2]}
    for n in range(120)
]


def points(row):
    """Points of each attribute, written apart from the schema's code."""
    return {
        "colour": {None: 4, "C1": 30, "C2": -20}[row["colour"]],
        "amount": 11 if row["amount"] < 10 else -7,
        "job": {"J1": 50, "J2": -50}[row["job"]],
    }


def bins(row):
    found = points(row)
    first, second = found["colour"] + found["amount"], found["job"]
    return (
        "[-30, -5)" if first < -5 else "[-5, 20)" if first < 20 else "[20, 45]",
        "[-50, 0)" if second < 0 else "[0, 50]",
    )


@pytest.fixture
def server():
    host = HostDouble({name: list(column) for name, column in CODEC.levels.items()}, CODEC.key_id)
    with serve(host) as port:
        yield host, f"127.0.0.1:{port}"


def ask(kind, address, rows, batch_rows=8192, **options):
    if kind is Client:
        with Client(KEYSET, SCHEMA, address, batch_rows=batch_rows) as client:
            return client.score(rows, **options)

    async def call():
        async with AsyncClient(KEYSET, SCHEMA, address, batch_rows=batch_rows) as client:
            return await client.score(rows, **options)

    return asyncio.run(call())


def check(host, scores):
    """The host got the sums' bins of all rows, and nothing else."""
    sent = []
    for request in host.requests:
        assert [column.field for column in request.table.columns] == ["scorecard_1", "scorecard_2"]
        sent += zip(*map(unpack, request.table.columns), strict=True)
    levels = [tuple(CIPHER.decrypt(f"scorecard_{n}", t) for n, t in enumerate(r, 1)) for r in sent]
    assert levels == [bins(row) for row in ROWS]
    assert [s.probability for s in scores] == pytest.approx([probability(row) for row in sent])


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("form", ["records", "arrow", "pandas"])
def test_raw_rows_are_scored_by_their_sums(server, kind, form):
    host, address = server
    rows = ROWS
    if form == "arrow":
        rows = pytest.importorskip("pyarrow").Table.from_pylist(ROWS)
    if form == "pandas":
        rows = pytest.importorskip("pandas").DataFrame(ROWS)
    check(host, ask(kind, address, rows))


def test_a_refused_value_is_named_and_nothing_sent(server):
    host, address = server
    with pytest.raises(RecordError, match=r"record 7.*'job'.*J9.*J1, J2"):
        ask(Client, address, [*ROWS[:7], {**ROWS[7], "job": "J9"}])
    assert not host.requests


def expected_reasons(row, given, count):
    """Per attribute: its points, and its part of what its scorecard contributes besides them."""
    own, found = points(row), {}
    for card, members in (("scorecard_1", ("colour", "amount")), ("scorecard_2", ("job",))):
        size = sum(abs(own[name]) for name in members)
        left = given[card] - sum(own[name] for name in members) / 100
        for name in members:
            found[name] = own[name] / 100 + left * abs(own[name]) / size
    order = sorted(found, key=lambda name: -found[name])[:count]
    return [(name, pytest.approx(found[name])) for name in order]


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("form", ["records", "iterator", "arrow"])
@pytest.mark.parametrize("count", [1, 3])
def test_reasons_name_attributes_and_add_up(server, kind, form, count):
    host, address = server
    rows = {"records": list, "iterator": iter}.get(form, list)(ROWS)
    if form == "arrow":
        rows = pytest.importorskip("pyarrow").Table.from_pylist(ROWS)
    scores = ask(kind, address, rows, batch_rows=50, reasons=count)
    assert {request.reasons for request in host.requests} == {2}  # all scorecards
    for row, score in zip(ROWS, scores, strict=True):
        tokens = CODEC.encode(row)
        found = [(reason.field, reason.contribution) for reason in score.reasons]
        given = {card: contribution(token) for card, token in tokens.items()}
        assert found == expected_reasons(row, given, count)
        if count == 3:
            total = sum(map(contribution, tokens.values()))
            assert sum(value for _, value in found) == pytest.approx(total)
            (colour,) = [reason for reason in score.reasons if reason.field == "colour"]
            meaning = {None: "absent", "C1": "red", "C2": "blue"}[row["colour"]]
            facts = (colour.level, colour.meaning, colour.description)
            assert facts == (row["colour"], meaning, "Colour")
            (amount,) = [reason for reason in score.reasons if reason.field == "amount"]
            assert amount.meaning == ("[0, 10) DM" if row["amount"] < 10 else "[10, 20] DM")


def test_views_of_a_scorecard_speak_for_the_same_attributes():
    """Each attribute's part is of what both views contribute together."""
    fields = planned_fields(2, 3, 2)
    edges = (EDGES[0], (-30.0, 0.0, 45.0), EDGES[1], (-50.0, 10.0, 50.0))
    schema = replace(SCHEMA, fields=tuple(map(lambda f, e: replace(f, edges=e), fields, edges)))
    codec = RecordCodec(FieldCipher(KEYSET, schema))
    host = HostDouble({name: list(column) for name, column in codec.levels.items()}, codec.key_id)
    with serve(host) as port, Client(KEYSET, schema, f"127.0.0.1:{port}") as client:
        scores = client.score(ROWS, reasons=3)
    assert host.requests[0].reasons == 4
    for row, score in zip(ROWS, scores, strict=True):
        tokens = codec.encode(row)
        summed = {
            card: contribution(tokens[card + "a"]) + contribution(tokens[card + "b"])
            for card in ("scorecard_1", "scorecard_2")
        }
        found = [(reason.field, reason.contribution) for reason in score.reasons]
        assert found == expected_reasons(row, summed, 3)


def test_there_are_as_many_reasons_as_attributes(server):
    host, address = server
    with pytest.raises(ConfigurationError, match="0 to 3, the number of attributes, not 4"):
        ask(Client, address, ROWS, reasons=4)
    assert ask(AsyncClient, address, ROWS)[0].reasons == ()
    assert host.requests[0].reasons == 0


@given(
    given_=st.floats(-50, 50),
    own=st.dictionaries(st.text(max_size=3), st.integers(-1000, 1000), min_size=1),
)
def test_shares_add_up_and_stay_near_the_points(given_, own):
    found = shared_out(given_, own)
    assert found.keys() == own.keys()
    assert math.isclose(sum(found.values()), given_, abs_tol=1e-9)
    left = abs(given_ - sum(own.values()) / 100)
    for name, value in found.items():
        assert abs(value - own[name] / 100) <= left + 1e-9


def test_the_gateway_and_generated_rows(server):
    host, address = server
    with TestClient(create_app(AsyncClient(KEYSET, SCHEMA, address, retries=0))) as http:
        answer = http.post("/predictCreditRisk", json=ROWS)
        refused = http.post("/predictCreditRisk", json=[{**ROWS[0], "job": "J9"}])
        missing = http.post("/predictCreditRisk", json=[{"colour": "C1", "amount": 1}])
    assert answer.status_code == 200
    assert len(answer.json()) == len(ROWS)
    assert (refused.json()["field"], refused.json()["record"]) == ("job", 0)
    assert (missing.status_code, missing.json()["field"]) == (400, "job")
    host.requests.clear()
    with Client(KEYSET, SCHEMA, address) as client:
        rows = client.generate(20, seed=1)
    assert {name for row in rows for name in row} == {"scorecard_1", "scorecard_2", "risk"}
    assert {row["scorecard_2"] for row in rows} == {"[-50, 0)", "[0, 50]"}
