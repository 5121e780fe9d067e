"""What the client and the gateway pass on of an incoming request: its trace and its id, no more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from cipherscore.client import AsyncClient, Client
from cipherscore.client.context import forwarded, forwarding
from cipherscore.client.encryption import FieldCipher
from cipherscore.client.gateway.app import create_app
from cipherscore.client.keys import Keyset
from cipherscore.client.records import RecordCodec
from cipherscore.schema import Field, Schema, Target
from tests.support.host_double import HostDouble, serve

SCHEMA = Schema(
    name="small",
    target=Target("risk", good="1", bad="2"),
    fields=(Field("colour", "categorical", categories={"C1": "", "C2": ""}),),
)
KEYSET = Keyset.create()
CODEC = RecordCodec(FieldCipher(KEYSET, SCHEMA))
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
HEADERS = {"traceparent": TRACEPARENT, "x-request-id": "order-17", "cookie": "secret=1"}
PASSED_ON = {"traceparent": TRACEPARENT, "x-request-id": "order-17"}
ROWS = [{"colour": "C1"}]


class Listening(HostDouble):
    """Keeps the metadata of its calls."""

    def __init__(self) -> None:
        tokens = {name: list(column) for name, column in CODEC.levels.items()}
        super().__init__(tokens, CODEC.key_id)
        self.metadata: list[dict[str, Any]] = []

    def _begin(self, request: Any, context: Any) -> None:
        found = dict(context.invocation_metadata())
        found.pop("user-agent", None)
        self.metadata.append(found)
        super()._begin(request, context)


@pytest.fixture
def host() -> Iterator[tuple[Listening, str]]:
    double = Listening()
    with serve(double) as port:
        yield double, f"127.0.0.1:{port}"


def test_the_gateway_passes_the_context_on(host: tuple[Listening, str]) -> None:
    double, address = host
    app = create_app(AsyncClient(KEYSET, SCHEMA, address))
    with TestClient(app) as http:
        for headers in (HEADERS, {}):
            answer = http.post("/predictCreditRisk", json=ROWS, headers=headers)
            assert answer.status_code == 200, answer.text
    assert double.metadata == [PASSED_ON, {}]


def test_requests_at_the_same_time_keep_their_own(host: tuple[Listening, str]) -> None:
    double, address = host

    async def ask(client: AsyncClient, name: str) -> None:
        with forwarding({"x-request-id": name}):
            await asyncio.sleep(0)
            await client.score(ROWS)

    async def all_at_once() -> None:
        async with AsyncClient(KEYSET, SCHEMA, address) as client:
            await asyncio.gather(*(ask(client, f"order-{n}") for n in range(20)))

    asyncio.run(all_at_once())
    assert sorted(found["x-request-id"] for found in double.metadata) == sorted(
        f"order-{n}" for n in range(20)
    )


def test_the_blocking_client_beside_its_key(host: tuple[Listening, str]) -> None:
    double, address = host
    with Client(KEYSET, SCHEMA, address, api_key="k" * 20) as client:
        with forwarding(HEADERS):
            client.score(ROWS)
        client.model()
    assert double.metadata == [
        {"authorization": "Bearer " + "k" * 20, **PASSED_ON},
        {"authorization": "Bearer " + "k" * 20},
    ]


@pytest.mark.parametrize("text", ["", "a b", "x" * 49, "né", "a\n", "a\r\nb: c"])
def test_an_id_of_another_form_stays(text: str) -> None:
    with forwarding({"x-request-id": text, "traceparent": text}):
        assert forwarded() == ()


@given(st.dictionaries(st.text() | st.sampled_from(sorted(HEADERS)), st.text()))
def test_whatever_comes_in_only_metadata_that_grpc_takes_goes_out(headers: dict[str, str]) -> None:
    with forwarding(headers):
        for name, text in forwarded():
            assert name in PASSED_ON
            assert text.isascii()
            assert text.isprintable()
            assert 0 < len(text) <= 55
    assert forwarded() == ()
