"""What only gRPC can be asked: columns, streams, health, reflection."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from cipherscore.proto.v1 import cipherscore_pb2 as pb
from tests.contract.test_scoring import GOOD_ROW, rows
from tests.support.models import KEY_ID, SIZES
from tests.support.transports import Grpc, Http, Refused, refused, scored, table

SERVICE = "cipherscore.v1.CipherScore"


def request(**changes: object) -> pb.ScoreRequest:
    """Return a good request of two rows, its column ``beta`` changed."""
    found = pb.ScoreRequest(key_id=KEY_ID, table=table([GOOD_ROW, GOOD_ROW]))
    column = next(column for column in found.table.columns if column.field == "beta")
    for name, value in changes.items():
        if name == "dictionary":
            column.dictionary[:] = value  # type: ignore[call-overload]
        elif name == "rows":
            found.table.rows = value  # type: ignore[assignment]
        else:
            setattr(column, name, value)
    return found


WRONG_COLUMNS = {
    "too few indices": {"indices": b"\0"},
    "too many indices": {"indices": b"\0\0\0"},
    "no indices": {"indices": b""},
    "index past the dictionary": {"indices": b"\0\1"},
    "index far past it": {"indices": b"\xff\0"},
    "no dictionary": {"dictionary": []},
    "two bytes needed": {"dictionary": [GOOD_ROW["beta"]] * 257},
    "dictionary too long": {"dictionary": [b""] * 65_537, "indices": b"\0" * 4},
}


@pytest.mark.parametrize("case", WRONG_COLUMNS)
def test_wrong_columns(grpc_client: Grpc, case: str) -> None:
    with pytest.raises(Refused) as caught:
        grpc_client.call("Score", request(**WRONG_COLUMNS[case]))
    assert (caught.value.status, caught.value.code) == ("INVALID_ARGUMENT", "invalid-request")
    assert caught.value.field == "beta"
    assert scored(grpc_client.call("Score", request()))


@pytest.mark.parametrize("count", [1, 3, 2**31, 2**32 - 1])
def test_rows_that_do_not_fit_the_columns(grpc_client: Grpc, count: int) -> None:
    with pytest.raises(Refused) as caught:
        grpc_client.call("Score", request(rows=count))
    assert caught.value.code in {"invalid-request", "batch-too-large"}


def test_one_column_twice(grpc_client: Grpc) -> None:
    double = request()
    double.table.columns.append(double.table.columns[1])
    with pytest.raises(Refused) as caught:
        grpc_client.call("Score", double)
    assert (caught.value.code, caught.value.field) == ("invalid-request", "beta")


def test_a_field_name_twice_instead_of_another(grpc_client: Grpc) -> None:
    with pytest.raises(Refused) as caught:
        grpc_client.call("Score", request(field="alpha"))
    assert (caught.value.code, caught.value.field) == ("missing-field", "beta")


def test_columns_in_any_order(grpc_client: Grpc) -> None:
    batch, _ = rows(20)
    backwards = [{field: row[field] for field in reversed(SIZES)} for row in batch]
    assert grpc_client.score(backwards) == grpc_client.score(batch)


def test_two_byte_indices(grpc_client: Grpc, http: Http) -> None:
    batch, _ = rows(2000)
    assert len({row["gamma"] for row in batch}) > 256
    assert grpc_client.score(batch) == http.score(batch)


def test_stream_answers_in_order_and_ends_at_a_refusal(grpc_client: Grpc) -> None:
    batches = [rows(n, seed=n)[0] for n in (1, 200, 3)]

    def requests() -> Iterator[pb.ScoreRequest]:
        for batch in batches:
            yield pb.ScoreRequest(key_id=KEY_ID, table=table(batch))
        yield request(indices=b"")
        yield request()

    answers = grpc_client.stub.ScoreStream(requests(), timeout=60)
    for batch in batches:
        assert scored(next(answers)) == grpc_client.score(batch)
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert (refused(caught.value).code, refused(caught.value).field) == ("invalid-request", "beta")


def test_a_client_that_leaves_a_stream(grpc_client: Grpc) -> None:
    for _ in range(5):
        answers = grpc_client.stub.Generate(
            pb.GenerateRequest(key_id=KEY_ID, count=50_000), timeout=60
        )
        next(answers)
        answers.cancel()
    assert grpc_client.score([GOOD_ROW])


def test_health(grpc_client: Grpc) -> None:
    stub = health_pb2_grpc.HealthStub(grpc_client.channel)
    for name in ("", SERVICE):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="other"), timeout=10)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection(grpc_client: Grpc) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(grpc_client.channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    answer = next(iter(stub.ServerReflectionInfo(iter([asked]), timeout=10)))
    names = {service.name for service in answer.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= names


@pytest.mark.parametrize("kind", ["classifier", "generator"])
def test_model_facts_are_the_same_over_both(http: Http, grpc_client: Grpc, kind: str) -> None:
    facts = grpc_client.model(kind)
    assert facts == http.model(kind)
    assert facts["metrics"] == {"test.auc": 0.75}
    assert facts["fields"] == list(SIZES)
    assert facts["device_reason"]


@pytest.mark.parametrize("kind", ["", "oracle"])
def test_unknown_kinds(grpc_client: Grpc, kind: str) -> None:
    with pytest.raises(Refused) as caught:
        grpc_client.model(kind)
    assert (caught.value.status, caught.value.code) == ("NOT_FOUND", "unknown-model")
