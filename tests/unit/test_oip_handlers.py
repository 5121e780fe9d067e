"""The protocol's methods in one process: what they answer and what they refuse."""

from __future__ import annotations

import asyncio
import base64
import gzip
import zlib
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cipherscore.errors import RateLimited, RequestError, request_errors
from cipherscore.proto.inference import grpc_service_pb2 as pb
from cipherscore.tokens import to_text
from tests.support.models import (
    NOISE_WIDTH,
    SIZES,
    THRESHOLD,
    expected_probability,
    tiny_models,
    token,
)
from tests.support.oip import (
    FIELDS,
    Host,
    Reply,
    cells_of,
    elements,
    random_indices,
    raw_bytes,
    tokens_request,
)

LOOP = asyncio.new_event_loop()
MAX_ROWS, MAX_GENERATED, MAX_UNARY = 3000, 20_000, 500


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    home: Path = tmp_path_factory.mktemp("registry")
    found = Host(
        tiny_models(home),
        max_rows=MAX_ROWS,
        max_generated_rows=MAX_GENERATED,
        max_generated_json_rows=MAX_UNARY,
        max_message_bytes=4 << 20,
    )
    yield found
    found.close()
    LOOP.close()


def run(work: Coroutine[Any, Any, Any]) -> Any:
    async def limited() -> Any:
        return await asyncio.wait_for(work, 60)

    # A model's batcher lives on one loop.
    return LOOP.run_until_complete(limited())


def infer(host: Host, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    found: pb.ModelInferResponse = run(host.infer(request))
    return found


def check_scores(response: pb.ModelInferResponse, indices: np.ndarray) -> None:
    probability = np.frombuffer(response.raw_output_contents[0], "<f4")
    assert np.allclose(probability, expected_probability(indices), atol=1e-6)
    decisions = [b"bad" if p >= THRESHOLD else b"good" for p in probability]
    assert elements(response.raw_output_contents[1]) == decisions


def indices_request(host: Host, indices: np.ndarray, datatype: str) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=host.classifier)
    request.inputs.add(name="indices", datatype=datatype, shape=indices.shape)
    kind = {"INT32": "<i4", "INT64": "<i8"}[datatype]
    request.raw_input_contents.append(indices.astype(kind).tobytes())
    return request


@pytest.mark.parametrize("rows", [1, 2, 100, MAX_ROWS])
def test_raw_scoring(host: Host, rows: int) -> None:
    indices = random_indices(rows)
    request = tokens_request(host.classifier, indices)
    # The second time the beginning is known.
    for _ in range(2):
        response = infer(host, request)
        check_scores(response, indices)
        assert (response.model_name, response.model_version) == (
            host.classifier,
            host.tiny.classifier.version,
        )
        assert [(o.name, o.datatype, list(o.shape)) for o in response.outputs] == [
            ("probability", "FP32", [rows]),
            ("decision", "BYTES", [rows]),
        ]
    for datatype in ("INT32", "INT64"):
        check_scores(infer(host, indices_request(host, indices, datatype)), indices)


def test_typed_scoring(host: Host) -> None:
    indices = random_indices(7)
    request = pb.ModelInferRequest(model_name=host.classifier, id="seven")
    tensor = request.inputs.add(name="tokens", datatype="BYTES", shape=[7, FIELDS])
    tensor.contents.bytes_contents.extend(cells_of(indices))
    tokens = infer(host, request)
    assert not tokens.raw_output_contents
    assert tokens.id == "seven"
    assert np.allclose(tokens.outputs[0].contents.fp32_contents, expected_probability(indices))
    for datatype, field in (("INT32", "int_contents"), ("INT64", "int64_contents")):
        request = pb.ModelInferRequest(model_name=host.classifier)
        tensor = request.inputs.add(name="indices", datatype=datatype, shape=[7, FIELDS])
        getattr(tensor.contents, field).extend(indices.ravel().tolist())
        assert infer(host, request).outputs == tokens.outputs


def test_only_the_outputs_asked_for(host: Host) -> None:
    request = tokens_request(host.classifier, random_indices(2))
    request.outputs.add(name="decision")
    response = infer(host, request)
    assert [output.name for output in response.outputs] == ["decision"]
    assert len(response.raw_output_contents) == 1
    request.outputs.add(name="probability")
    assert [o.name for o in infer(host, request).outputs] == ["decision", "probability"]


def test_a_version_can_be_pinned(host: Host) -> None:
    version = host.tiny.classifier.version
    request = tokens_request(host.classifier, random_indices(1), model_version=version)
    assert infer(host, request).model_version == version
    assert infer(host, tokens_request(f"{host.classifier}:{version}", random_indices(1)))
    request.model_version = "1"
    assert refused(host, request).code == "unknown-model"


def refused(host: Host, request: pb.ModelInferRequest, scopes: Any = None) -> RequestError:
    call = host.call() if scopes is None else host.call(frozenset(scopes))
    with pytest.raises(RequestError) as caught:
        run(host.infer(request, call))
    return caught.value


def edit(host: Host, change: Any) -> pb.ModelInferRequest:
    request = tokens_request(host.classifier, random_indices(2))
    change(request)
    return request


def set_shape(*shape: int) -> Any:
    return lambda r: r.inputs[0].shape.__setitem__(slice(None), shape)


REFUSALS: dict[str, tuple[Any, str, str | None]] = {
    "no model": (lambda r: r.ClearField("model_name"), "", None),
    "another model": (lambda r: setattr(r, "model_name", "nobody"), "unknown-model", "model"),
    "another input": (lambda r: setattr(r.inputs[0], "name", "rows"), "invalid-request", None),
    "no input": (lambda r: (r.ClearField("inputs"), r.ClearField("raw_input_contents")),
                 "invalid-request", None),
    "another datatype": (
        lambda r: setattr(r.inputs[0], "datatype", "INT8"), "invalid-request", "tokens"),
    "a shape of one": (set_shape(2 * FIELDS), "invalid-request", "tokens"),
    "a shape of three": (set_shape(1, 2, FIELDS), "invalid-request", "tokens"),
    "no shape": (set_shape(), "invalid-request", "tokens"),
    "negative": (set_shape(-2, -FIELDS), "invalid-request", "tokens"),
    "huge": (set_shape(1 << 62, FIELDS), "invalid-request", "tokens"),
    "another width": (set_shape(FIELDS, 2), "invalid-request", "tokens"),
    "no rows": (set_shape(0, FIELDS), "empty-batch", None),
    "more rows than sent": (set_shape(3, FIELDS), "invalid-request", "tokens"),
    "fewer rows than sent": (set_shape(1, FIELDS), "invalid-request", "tokens"),
    "another output": (lambda r: r.outputs.add(name="logit"), "invalid-request", "logit"),
    "an output twice": (
        lambda r: (r.outputs.add(name="decision"), r.outputs.add(name="decision")),
        "invalid-request", None),
    "shared memory": (
        lambda r: r.inputs[0].parameters["shared_memory_region"].__setattr__("string_param", "x"),
        "unsupported", "tokens"),
    "a wrong timeout": (
        lambda r: r.parameters["timeout"].__setattr__("string_param", "soon"),
        "invalid-request", "timeout"),
    "the input twice": (
        lambda r: (r.inputs.append(r.inputs[0]), r.raw_input_contents.append(b"")),
        "invalid-request", "tokens"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(host: Host, case: str) -> None:
    change, code, field = REFUSALS[case]
    request = edit(host, change)
    if not code:
        # An empty name is the version in production.
        assert infer(host, request).model_name == host.classifier
        return
    error = refused(host, request)
    assert error.code == code
    if field is not None:
        assert error.field == field
    assert infer(host, edit(host, lambda _: None)).outputs


def test_too_many_rows(host: Host) -> None:
    indices = random_indices(MAX_ROWS + 1)
    assert refused(host, tokens_request(host.classifier, indices)).code == "batch-too-large"
    assert refused(host, indices_request(host, indices, "INT32")).code == "batch-too-large"


def test_both_inputs_at_once(host: Host) -> None:
    request = tokens_request(host.classifier, random_indices(1))
    other = indices_request(host, random_indices(1), "INT32")
    request.inputs.append(other.inputs[0])
    request.raw_input_contents.append(other.raw_input_contents[0])
    assert refused(host, request).code == "invalid-request"


def test_junk_is_refused(host: Host) -> None:
    for name in ("ModelInfer", "ModelReady", "RepositoryModelLoad"):
        with pytest.raises(RequestError) as caught:
            run(host.unary(name, b"\xff\xfe"))
        assert caught.value.code == "invalid-request"


def test_a_timeout_shortens_the_deadline(host: Host) -> None:
    request = tokens_request(host.classifier, random_indices(1))
    request.parameters["timeout"].int64_param = 5_000_000
    call = host.call()
    before = call.deadline
    run(host.infer(request, call))
    assert call.deadline < before - 50
    request.parameters["timeout"].int64_param = 0
    assert infer(host, request).outputs


# ---- generating


def generate_request(host: Host, **parameters: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=host.generator)
    for name, value in parameters.items():
        kind = "int64_param" if isinstance(value, int) else "string_param"
        setattr(request.parameters[name], kind, value)
    return request


def rows_made(response: pb.ModelInferResponse) -> tuple[list[bytes], list[bytes]]:
    tokens, classes = response.outputs
    assert (tokens.name, classes.name) == ("tokens", "credit_class")
    assert list(tokens.shape) == [classes.shape[0], FIELDS]
    if response.raw_output_contents:
        return elements(response.raw_output_contents[0]), elements(response.raw_output_contents[1])
    return list(tokens.contents.bytes_contents), list(classes.contents.bytes_contents)


def test_generated_rows_can_be_scored(host: Host) -> None:
    made = infer(host, generate_request(host, count=20, seed=7))
    tokens, classes = rows_made(made)
    assert set(classes) == {b"good", b"bad"}
    assert made.parameters["seed"].int64_param == 7
    request = pb.ModelInferRequest(model_name=host.classifier)
    request.inputs.add(name="tokens", datatype="BYTES", shape=[20, FIELDS])
    request.raw_input_contents.append(raw_bytes(tokens))
    assert infer(host, request).outputs
    assert rows_made(infer(host, generate_request(host, count=20, seed=7))) == (tokens, classes)
    assert rows_made(infer(host, generate_request(host, count=20, seed=8)))[0] != tokens


def test_count_and_seed_as_tensors_are_those_as_parameters(host: Host) -> None:
    expected = rows_made(infer(host, generate_request(host, count=5, seed=3)))
    request = pb.ModelInferRequest(model_name=host.generator)
    for name, value in (("count", 5), ("seed", 3)):
        request.inputs.add(name=name, datatype="INT64", shape=[1])
        request.raw_input_contents.append(np.array([value], "<i8").tobytes())
    response = infer(host, request)
    assert response.raw_output_contents
    assert rows_made(response) == expected
    typed = pb.ModelInferRequest(model_name=host.generator)
    typed.inputs.add(name="count", datatype="INT32", shape=[1]).contents.int_contents.append(5)
    typed.inputs.add(name="seed", datatype="INT64", shape=[1]).contents.int64_contents.append(3)
    assert rows_made(infer(host, typed)) == expected


@pytest.mark.parametrize("datatype", ["BYTES", "INT32", "INT64"])
def test_a_class_for_each_row(host: Host, datatype: str) -> None:
    bad = [True, False, False, True]
    request = pb.ModelInferRequest(model_name=host.generator)
    request.inputs.add(name="credit_class", datatype=datatype, shape=[4])
    labels = [b"bad" if b else b"good" for b in bad]
    kinds = {"INT32": "<i4", "INT64": "<i8"}
    request.raw_input_contents.append(
        raw_bytes(labels) if datatype == "BYTES" else np.array(bad, kinds[datatype]).tobytes()
    )
    assert rows_made(infer(host, request))[1] == labels
    wrong = {"BYTES": raw_bytes([b"good", b"", b"bad", b"bad"])}.get(
        datatype, np.array([0, 2, 1, 1], kinds.get(datatype, "<i4")).tobytes()
    )
    request.raw_input_contents[0] = wrong
    error = refused(host, request)
    assert (error.code, error.row) == ("unknown-class", 1)


def test_noise_decides_the_rows(host: Host) -> None:
    noise = np.random.default_rng(1).standard_normal((6, NOISE_WIDTH), dtype=np.float32)
    request = generate_request(host, credit_class="bad")
    request.inputs.add(name="noise", datatype="FP32", shape=noise.shape)
    request.raw_input_contents.append(noise.tobytes())
    first = rows_made(infer(host, request))
    assert first[1] == [b"bad"] * 6
    assert rows_made(infer(host, request)) == first
    del request.raw_input_contents[:]
    request.inputs[0].contents.fp32_contents.extend(noise.ravel().tolist())
    assert rows_made(infer(host, request)) == first


def tensor(name: str, datatype: str, shape: list[int], content: bytes) -> Any:
    def change(request: pb.ModelInferRequest) -> None:
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        request.raw_input_contents.append(content)

    return change


def parameter(name: str, kind: str, value: Any) -> Any:
    return lambda request: setattr(request.parameters[name], kind, value)


WRONG_ORDERS: dict[str, tuple[Any, str, str | None]] = {
    "nothing": (lambda _: None, "empty-batch", "count"),
    "zero": (parameter("count", "int64_param", 0), "empty-batch", "count"),
    "negative": (parameter("count", "int64_param", -1), "empty-batch", "count"),
    "too many": (parameter("count", "int64_param", MAX_UNARY + 1), "batch-too-large", "count"),
    "huge": (parameter("count", "uint64_param", (1 << 64) - 1), "batch-too-large", "count"),
    "text": (parameter("count", "string_param", "5"), "invalid-request", "count"),
    "true": (parameter("count", "bool_param", True), "invalid-request", "count"),
    "a long count": (tensor("count", "INT32", [2], bytes(8)), "invalid-request", "count"),
    "a count of floats": (tensor("count", "FP32", [1], bytes(4)), "invalid-request", "count"),
    "a cut count": (tensor("count", "INT64", [1], bytes(4)), "invalid-request", "count"),
    "noise of another width": (
        tensor("noise", "FP32", [2, NOISE_WIDTH + 1], bytes(8 * NOISE_WIDTH + 8)),
        "invalid-noise", "noise"),
    "noise of another length": (
        tensor("noise", "FP32", [2, NOISE_WIDTH], bytes(4)), "invalid-noise", "noise"),
    "noise of integers": (
        tensor("noise", "INT32", [1, NOISE_WIDTH], bytes(4 * NOISE_WIDTH)),
        "invalid-noise", "noise"),
    "infinite noise": (
        tensor("noise", "FP32", [1, NOISE_WIDTH], np.full(NOISE_WIDTH, np.inf, "<f4").tobytes()),
        "invalid-noise", "noise"),
    "an unknown class": (
        lambda r: (parameter("count", "int64_param", 1)(r),
                   parameter("credit_class", "string_param", "ugly")(r)),
        "unknown-class", "credit_class"),
    "too many classes": (
        tensor("credit_class", "INT32", [1 << 40], b""), "invalid-request", "credit_class"),
    "classes of another length": (
        tensor("credit_class", "INT32", [3], bytes(8)), "invalid-request", "credit_class"),
    "labels cut off": (
        tensor("credit_class", "BYTES", [2], raw_bytes([b"bad", b"good"])[:-1]),
        "unknown-class", "credit_class"),
    "labels too long": (
        tensor("credit_class", "BYTES", [1], raw_bytes([b"bad" * 50])),
        "unknown-class", "credit_class"),
    "sizes that differ": (
        lambda r: (parameter("count", "int64_param", 3)(r),
                   tensor("credit_class", "INT32", [2], bytes(8))(r)),
        "invalid-request", "count"),
    "an unknown input": (tensor("age", "INT32", [1], bytes(4)), "invalid-request", "age"),
    "a seed of 65 bits": (
        lambda r: (parameter("count", "int64_param", 1)(r),
                   parameter("seed", "int64_param", -1)(r)),
        "invalid-request", "seed"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_ORDERS)
def test_wrong_orders(host: Host, case: str) -> None:
    change, code, field = WRONG_ORDERS[case]
    request = pb.ModelInferRequest(model_name=host.generator)
    change(request)
    error = refused(host, request)
    assert (error.code, error.field) == (code, field)


def test_tokens_for_a_generator_and_counts_for_a_classifier(host: Host) -> None:
    assert refused(host, tokens_request(host.generator, random_indices(1))).code == "unknown-model"
    request = generate_request(host, count=1)
    request.model_name = host.classifier
    assert refused(host, request).code == "invalid-request"
    request.model_name = "nobody"
    assert refused(host, request).code == "unknown-model"


def test_generating_needs_its_scope(host: Host) -> None:
    request = generate_request(host, count=1)
    assert refused(host, request, {"score"}).code == "permission-denied"
    assert run(host.infer(request, host.call(frozenset({"generate"}))))


# ---- streams


def test_a_stream_answers_in_order_and_survives_a_refusal(host: Host) -> None:
    first, last = random_indices(3), random_indices(5)
    requests = [
        tokens_request(host.classifier, first, id="a").SerializeToString(),
        tokens_request("nobody", first, id="b").SerializeToString(),
        b"\xff\xff",
        tokens_request(host.classifier, last, id="c").SerializeToString(),
    ]
    call = host.call()
    answers = run(host.stream(requests, call))
    assert [answer.infer_response.id for answer in answers] == ["a", "b", "", "c"]
    assert [bool(answer.error_message) for answer in answers] == [False, True, True, False]
    check_scores(answers[0].infer_response, first)
    check_scores(answers[3].infer_response, last)
    assert all(
        answer.infer_response.parameters["triton_final_response"].bool_param for answer in answers
    )
    assert call.rows == 8


def test_generated_rows_are_streamed_in_chunks(host: Host) -> None:
    request = generate_request(host, count=10_000, seed=5)
    request.id = "g"
    answers = run(host.stream([request.SerializeToString()]))
    sizes = [answer.infer_response.outputs[0].shape[0] for answer in answers]
    assert len(sizes) > 1
    assert sum(sizes) == 10_000
    final = [
        answer.infer_response.parameters["triton_final_response"].bool_param for answer in answers
    ]
    assert final == [False] * (len(sizes) - 1) + [True]
    parameters = {name: value for name, value in request.parameters.items() if name == "seed"}
    assert parameters
    few = rows_made(infer(host, generate_request(host, count=100, seed=5)))
    assert rows_made(answers[0].infer_response)[0][: 100 * FIELDS] == few[0]
    too_many = generate_request(host, count=MAX_GENERATED + 1).SerializeToString()
    assert "at most" in run(host.stream([too_many]))[0].error_message


def test_each_request_of_a_stream_counts_against_the_rate(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    charged: list[object] = []

    def charge(call: object) -> None:
        charged.append(call)
        if len(charged) == 2:
            raise RateLimited("too fast")

    monkeypatch.setattr(host.gate, "charge", charge)
    request = tokens_request(host.classifier, random_indices(1)).SerializeToString()
    answers = run(host.stream([request] * 3))
    assert [answer.error_message for answer in answers] == ["", "too fast", ""]


# ---- facts


def unary(host: Host, name: str, request: Any, kind: Any) -> Any:
    return kind.FromString(run(host.unary(name, request.SerializeToString())))


def test_facts(host: Host) -> None:
    assert unary(host, "ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse).live
    assert unary(host, "ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse).ready
    for name, version, ready in (
        (host.classifier, "", True),
        (host.generator, host.tiny.generator.version, True),
        (host.generator, "1", False),
        ("nobody", "", False),
    ):
        asked = pb.ModelReadyRequest(name=name, version=version)
        assert unary(host, "ModelReady", asked, pb.ModelReadyResponse).ready is ready
    found = unary(host, "ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse)
    assert found.name == "cipherscore"
    assert "binary_tensor_data" in found.extensions


def test_metadata_and_configuration_agree(host: Host) -> None:
    for name in (host.classifier, host.generator):
        found = unary(
            host, "ModelMetadata", pb.ModelMetadataRequest(name=name), pb.ModelMetadataResponse
        )
        config = unary(
            host, "ModelConfig", pb.ModelConfigRequest(name=name), pb.ModelConfigResponse
        ).config
        assert found.name == config.name == name
        assert found.versions == [
            (host.tiny.classifier if name == host.classifier else host.tiny.generator).version
        ]
        for given, told in ((config.input, found.inputs), (config.output, found.outputs)):
            assert [(t.name, list(t.dims)) for t in given] == [
                (t.name, list(t.shape)) for t in told
            ]
        assert config.model_transaction_policy.decoupled is (name == host.generator)
    with pytest.raises(RequestError) as caught:
        unary(host, "ModelConfig", pb.ModelConfigRequest(name="x"), pb.ModelConfigResponse)
    assert caught.value.code == "unknown-model"


def test_the_repository(host: Host) -> None:
    everything = unary(
        host, "RepositoryIndex", pb.RepositoryIndexRequest(), pb.RepositoryIndexResponse
    )
    ready = unary(
        host, "RepositoryIndex", pb.RepositoryIndexRequest(ready=True), pb.RepositoryIndexResponse
    )
    assert {m.name for m in everything.models} == {host.classifier, host.generator, "other"}
    assert {m.name for m in ready.models} == {host.classifier, host.generator}
    host.lineup.changes.clear()
    answer = unary(
        host,
        "RepositoryModelLoad",
        pb.RepositoryModelLoadRequest(model_name="a:1"),
        pb.RepositoryModelLoadResponse,
    )
    assert answer.isLoaded
    unary(
        host,
        "RepositoryModelUnload",
        # Where the first field is the model's name, as some clients have it.
        pb.RepositoryModelUnloadRequest(repository_name="a:1"),
        pb.RepositoryModelUnloadResponse,
    )
    assert host.lineup.changes == [("load", "a:1"), ("unload", "a:1")]
    with pytest.raises(RequestError):
        unary(host, "RepositoryModelLoad", pb.RepositoryModelLoadRequest(), pb.ServerLiveResponse)


def test_scopes_of_the_methods(host: Host) -> None:
    scopes = {path.rpartition("/")[2]: method.scope for path, method in host.methods.items()}
    assert {name for name, scope in scopes.items() if scope == "score"} == {
        "ModelInfer",
        "ModelStreamInfer",
    }
    assert {name for name, scope in scopes.items() if scope == "admin"} == {
        "RepositoryModelLoad",
        "RepositoryModelUnload",
    }
    declared = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    assert scopes.keys() == set(declared)


# ---- HTTP


def post(host: Host, path: str, body: Any, headers: dict[str, str] | None = None) -> Reply:
    found: Reply = run(host.http("POST", path, body, headers))
    return found


def get(host: Host, path: str) -> Reply:
    found: Reply = run(host.http("GET", path))
    return found


def json_request(indices: np.ndarray, **more: Any) -> dict[str, Any]:
    texts = [to_text(cell) for cell in cells_of(indices)]
    return {
        "inputs": [
            {"name": "tokens", "datatype": "BYTES", "shape": list(indices.shape), "data": texts}
        ],
        **more,
    }


def infer_path(host: Host, version: str = "") -> str:
    return f"/v2/models/{host.classifier}{f'/versions/{version}' if version else ''}/infer"


@pytest.mark.parametrize("nested", [False, True])
def test_json_scoring(host: Host, nested: bool) -> None:
    indices = random_indices(9)
    request = json_request(indices, id="nine")
    data = request["inputs"][0]["data"]
    if nested:
        request["inputs"][0]["data"] = [data[i : i + FIELDS] for i in range(0, len(data), FIELDS)]
    version = host.tiny.classifier.version if nested else ""
    reply = post(host, infer_path(host, version), request)
    assert reply.status == 200, reply.body
    found = reply.json
    assert (found["model_name"], found["model_version"], found["id"]) == (
        host.classifier,
        host.tiny.classifier.version,
        "nine",
    )
    probability, decision = found["outputs"]
    assert probability["shape"] == decision["shape"] == [9]
    assert np.allclose(probability["data"], expected_probability(indices), atol=1e-6)
    assert decision["data"] == ["bad" if p >= THRESHOLD else "good" for p in probability["data"]]
    numbers = {"name": "indices", "datatype": "INT64", "shape": [9, FIELDS]}
    numbers["data"] = indices.tolist() if nested else indices.ravel().tolist()
    assert post(host, infer_path(host), {"inputs": [numbers]}).json["outputs"] == found["outputs"]


def binary_body(header: dict[str, Any], *tails: bytes) -> tuple[bytes, dict[str, str]]:
    import json

    content = json.dumps(header).encode()
    return content + b"".join(tails), {"inference-header-content-length": str(len(content))}


def test_binary_tensors(host: Host) -> None:
    indices = random_indices(11)
    raw = raw_bytes(cells_of(indices))
    described = {
        "name": "tokens",
        "datatype": "BYTES",
        "shape": [11, FIELDS],
        "parameters": {"binary_data_size": len(raw)},
    }
    body, headers = binary_body(
        {"inputs": [described], "parameters": {"binary_data_output": True}}, raw
    )
    reply = post(host, infer_path(host), body, headers)
    assert reply.status == 200, reply.body
    length = int(reply.headers["inference-header-content-length"])
    assert reply.headers["content-type"] == "application/octet-stream"
    probability = np.frombuffer(reply.body[length : length + 44], "<f4")
    assert np.allclose(probability, expected_probability(indices), atol=1e-6)
    assert set(elements(reply.body[length + 44 :])) <= {b"good", b"bad"}
    chosen = [
        {"name": "decision"},
        {"name": "probability", "parameters": {"binary_data": True}},
    ]
    body, headers = binary_body({"inputs": [described], "outputs": chosen}, raw)
    import json

    reply = post(host, infer_path(host), body, headers)
    length = int(reply.headers["inference-header-content-length"])
    decision, other = json.loads(reply.body[:length])["outputs"]
    assert len(decision["data"]) == 11
    assert other["parameters"] == {"binary_data_size": 44}
    assert np.array_equal(np.frombuffer(reply.body[length:], "<f4"), probability)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_bodies(host: Host, encoding: str) -> None:
    import json

    pack = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding]
    content = json.dumps(json_request(random_indices(2))).encode()
    headers = {"content-encoding": encoding}
    assert post(host, infer_path(host), pack(content), headers).status == 200
    for wrong, status in (
        (pack(content)[:-9], 400),
        (b"junk", 400),
        (pack(b" " * (5 << 20)), 413),
    ):
        assert post(host, infer_path(host), wrong, headers).status == status
    assert post(host, infer_path(host), content, {"content-encoding": "br"}).status == 415


def wrong_input(**changes: Any) -> dict[str, Any]:
    request = json_request(random_indices(2))
    request["inputs"][0].update(changes)
    return request


TEXTS = [to_text(cell) for cell in cells_of(random_indices(2))]
WRONG_BODIES: dict[str, tuple[Any, str]] = {
    "no JSON": (b"{", "invalid-request"),
    "empty": (b"", "invalid-request"),
    "a list": ([], "invalid-request"),
    "deep": (b"[" * 100_000, "invalid-request"),
    "no inputs": ({}, "invalid-request"),
    "inputs of text": ({"inputs": "tokens"}, "invalid-request"),
    "an input of text": ({"inputs": ["tokens"]}, "invalid-request"),
    "no name": ({"inputs": [{"datatype": "BYTES", "shape": [1], "data": []}]}, "invalid-request"),
    "no data": (wrong_input(data=None), "invalid-request"),
    "a shape of text": (wrong_input(shape="2,3"), "invalid-request"),
    "a shape of floats": (wrong_input(shape=[2.0, 3.0]), "invalid-request"),
    "a shape of booleans": (wrong_input(shape=[True, 3]), "invalid-request"),
    "a huge shape": (wrong_input(shape=[10**30, 3]), "invalid-request"),
    "too few": (wrong_input(data=TEXTS[:-1]), "invalid-request"),
    "ragged": (wrong_input(data=[TEXTS[:1], TEXTS[1:]]), "invalid-request"),
    "half nested": (wrong_input(data=[TEXTS[:3], *TEXTS[3:]]), "invalid-request"),
    "deeply nested": (wrong_input(data=[[[t] for t in TEXTS[:3]]] * 2), "invalid-request"),
    "numbers for tokens": (wrong_input(data=[1] * 6), "invalid-request"),
    "none for tokens": (wrong_input(data=[None] * 6), "invalid-request"),
    "no token": (wrong_input(data=["%"] * 6), "malformed-token"),
    "another token": (wrong_input(data=[to_text(token("x", 1))] * 6), "unknown-token"),
    "floats for indices": (
        wrong_input(name="indices", datatype="INT32", data=[0.5] * 6), "invalid-request"),
    "booleans for indices": (
        wrong_input(name="indices", datatype="INT32", data=[True] * 6), "invalid-request"),
    "huge indices": (
        wrong_input(name="indices", datatype="INT64", data=[10**30] * 6), "invalid-request"),
    "indices too large for 32 bits": (
        wrong_input(name="indices", datatype="INT32", data=[2**31] * 6), "invalid-request"),
    "indices of text": (
        wrong_input(name="indices", datatype="INT32", data=["0"] * 6), "invalid-request"),
    "indices of unknown width": (
        wrong_input(name="indices", datatype="FP32", data=[0] * 6), "invalid-request"),
    "parameters of text": ({**wrong_input(), "parameters": "x"}, "invalid-request"),
    "an id that is a number": ({**wrong_input(), "id": 5}, "invalid-request"),
    "an output of text": ({**wrong_input(), "outputs": ["decision"]}, "invalid-request"),
    "an unknown output": ({**wrong_input(), "outputs": [{"name": "x"}]}, "invalid-request"),
    "a flag of text": (
        {**wrong_input(), "parameters": {"binary_data_output": "yes"}}, "invalid-request"),
    "binary data that is not there": (
        wrong_input(parameters={"binary_data_size": 7}), "invalid-request"),
    "a negative size": (wrong_input(parameters={"binary_data_size": -7}), "invalid-request"),
    "binary and text": (wrong_input(parameters={"binary_data_size": 0}), "invalid-request"),
    "an unhashable parameter": (
        {**wrong_input(), "parameters": {"timeout": [1]}}, "invalid-request"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_BODIES)
def test_wrong_bodies(host: Host, case: str) -> None:
    body, code = WRONG_BODIES[case]
    reply = post(host, infer_path(host), body)
    assert reply.json["code"] == code
    assert reply.status == request_errors()[code].http_status
    assert isinstance(reply.json["error"], str)
    assert reply.headers["content-type"] == "application/json"
    for text in TEXTS:
        assert text[8:].encode() not in reply.body


@pytest.mark.parametrize("header", ["5", "-1", "x", "99999999", "1" * 40, "²"])
def test_wrong_header_lengths(host: Host, header: str) -> None:
    body = b'{"inputs": []}'
    headers = {"inference-header-content-length": header.encode().decode("latin-1")}
    assert post(host, infer_path(host), body, headers).status == 400


def test_leftover_binary_data(host: Host) -> None:
    body, headers = binary_body(json_request(random_indices(1)), b"more")
    assert post(host, infer_path(host), body, headers).json["code"] == "invalid-request"


def test_json_generating(host: Host) -> None:
    path = f"/v2/models/{host.generator}/infer"
    body = {"inputs": [], "parameters": {"count": 4, "seed": 9, "credit_class": "good"}}
    found = post(host, path, body).json
    tokens, classes = found["outputs"]
    assert classes["data"] == ["good"] * 4
    assert tokens["shape"] == [4, FIELDS]
    assert found["parameters"]["seed"] == 9
    raw = infer(host, generate_request(host, count=4, seed=9, credit_class="good"))
    expected = [base64.urlsafe_b64encode(t).rstrip(b"=").decode() for t in rows_made(raw)[0]]
    assert tokens["data"] == expected
    noise = np.zeros((2, NOISE_WIDTH)).tolist()
    described = {"name": "noise", "datatype": "FP32", "shape": [2, NOISE_WIDTH], "data": noise}
    assert post(host, path, {"inputs": [described]}).status == 200
    for value, code in (
        (1e300, "invalid-noise"),
        (10**400, "invalid-noise"),
        ("x", "invalid-noise"),
    ):
        described["data"] = [[value] * NOISE_WIDTH] * 2
        assert post(host, path, {"inputs": [described]}).json["code"] == code
    labels = {"name": "credit_class", "datatype": "BYTES", "shape": [2], "data": ["bad", "good"]}
    assert post(host, path, {"inputs": [labels]}).json["outputs"][1]["data"] == ["bad", "good"]
    labels["data"] = [{}, "good"]
    assert post(host, path, {"inputs": [labels]}).json["code"] == "unknown-class"


def test_http_facts(host: Host) -> None:
    assert get(host, "/v2").json["name"] == "cipherscore"
    assert get(host, "/v2/").status == 200
    assert get(host, "/v2/health/live").json == {"live": True}
    assert get(host, "/v2/health/ready").json == {"ready": True}
    name = f"/v2/models/{host.classifier}"
    found = get(host, name).json
    assert found["inputs"][0] == {"name": "tokens", "datatype": "BYTES", "shape": [-1, FIELDS]}
    assert get(host, f"{name}/versions/{host.tiny.classifier.version}").json == found
    assert get(host, f"{name}/ready").json["ready"] is True
    assert get(host, f"{name}/config").json["backend"] == "onnxruntime"
    assert get(host, f"{name}/versions/1/ready").status == 404
    index = post(host, "/v2/repository/index", b"").json
    assert len(post(host, "/v2/repository/index", {"ready": True}).json) == len(index) - 1
    assert post(host, "/v2/repository/index", b"[]").status == 400


@pytest.mark.parametrize(
    "path",
    ["/v2/x", "/v2/models", "/v2/models/a/b", "/v2/models/a/versions", "/v2/health", "/v2//x"],
)
def test_unknown_paths(host: Host, path: str) -> None:
    reply = get(host, path)
    assert (reply.status, reply.json["code"]) == (404, "not-found")


def test_wrong_methods(host: Host) -> None:
    reply = get(host, infer_path(host))
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert post(host, "/v2/health/live", b"").status == 405


def test_loading_over_http_needs_the_scope(host: Host) -> None:
    host.lineup.changes.clear()
    reply = post(host, "/v2/repository/models/a/load", b"")
    assert (reply.status, reply.json["code"]) == (403, "permission-denied")
    assert not host.lineup.changes


def test_draining_shows(host: Host) -> None:
    host.gate.draining = True
    try:
        assert get(host, "/v2/health/ready").status == 503
        assert get(host, "/v2/health/live").status == 200
        reply = post(host, infer_path(host), json_request(random_indices(1)))
        assert (reply.status, reply.json["code"]) == (503, "draining")
        assert reply.headers["retry-after"] == "1"
    finally:
        host.gate.draining = False


def test_every_admitted_request_is_finished_once(host: Host) -> None:
    host.observer.finished_codes.clear()
    post(host, infer_path(host), json_request(random_indices(1)))
    post(host, infer_path(host), b"{")
    get(host, "/v2/models/nobody")
    assert host.observer.finished_codes == [
        ("ModelInfer", "ok"),
        ("ModelInfer", "invalid-request"),
        ("ModelMetadata", "unknown-model"),
    ]
    assert host.gate.running == 0


def test_a_bug_is_not_told(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.lineup, "index", lambda: 1 / 0)
    reply = post(host, "/v2/repository/index", b"")
    assert (reply.status, reply.json["error"]) == (500, "internal error")
    with pytest.raises(ZeroDivisionError):
        run(host.unary("RepositoryIndex", b""))


def test_sizes_stay_as_they_are() -> None:
    assert list(SIZES.values()) == [3, 2, 300], "the cases above rely on the fields' sizes"
