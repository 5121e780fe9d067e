"""Messages laid out by hand are what protobuf writes, and what looks alike is read alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherscore.errors import InvalidRequest
from cipherscore.proto.inference import grpc_service_pb2 as pb
from serving.oip import scoring, wire
from serving.oip.plans import Plan, Plans
from serving.oip.protocol import Answer
from serving.scorer import Scores
from tests.support.oip import FIELDS, elements, random_indices, tokens_request

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=70)
ids = st.text(max_size=200)
outputs = st.lists(st.sampled_from(scoring.OUTPUTS), min_size=1, unique=True).map(tuple)


def scores(rows: int, tag: str = "m:1", seed: int = 0) -> Scores:
    probability = np.random.default_rng(seed).random(rows, dtype=np.float32)
    return Scores(probability, probability >= 0.5, tag, 0.5)


@given(names, names, ids, outputs, st.integers(1, 300))
def test_raw_responses_are_byte_for_byte_what_protobuf_writes(
    name: str, version: str, request_id: str, chosen: tuple[str, ...], rows: int
) -> None:
    answer = scoring.answer(scores(rows, f"{name}:{version}"), chosen, request_id)
    written = wire.response_of(answer, raw=True)
    assert written == wire.response_message(answer, raw=True).SerializeToString()
    parsed = pb.ModelInferResponse.FromString(written)
    assert (parsed.model_name, parsed.model_version, parsed.id) == (name, version, request_id)
    assert [output.name for output in parsed.outputs] == list(chosen)


@given(names, ids, outputs, st.integers(1, 40), st.integers(0, 99))
def test_plans_respond_as_protobuf_does(
    tag: str, request_id: str, chosen: tuple[str, ...], rows: int, seed: int
) -> None:
    request, _ = wire.request_of(tokens_request("m", random_indices(rows), id=request_id))
    plan = Plan(request, chosen)
    for number in range(3):
        # The version may change between two answers.
        found = scores(rows, f"{tag}:{number // 2}", seed + number)
        expected = wire.response_message(scoring.answer(found, chosen, request_id), raw=True)
        assert plan.respond(found) == expected.SerializeToString()


@given(st.integers(0, (1 << 64) - 1))
def test_numbers_are_protobufs(value: int) -> None:
    expected = pb.InferParameter(uint64_param=value).SerializeToString()
    assert wire.field_start(4, 5) == b"\x22\x05"
    assert b"\x28" + wire.varint(value) == expected


def test_the_answers_are_right() -> None:
    found = Scores(np.array([0.25, 0.75], np.float32), np.array([False, True]), "m:1", 0.5)
    answer = scoring.answer(found, scoring.OUTPUTS, "")
    raw = wire.response_message(answer, raw=True)
    assert np.frombuffer(raw.raw_output_contents[0], "<f4").tolist() == [0.25, 0.75]
    assert elements(raw.raw_output_contents[1]) == [b"good", b"bad"]
    typed = wire.response_message(answer, raw=False)
    assert list(typed.outputs[0].contents.fp32_contents) == [0.25, 0.75]
    assert list(typed.outputs[1].contents.bytes_contents) == [b"good", b"bad"]
    assert not typed.raw_output_contents


@pytest.mark.parametrize("value", [True, 7, (1 << 64) - 1, "text"])
def test_parameters_go_both_ways(value: Any) -> None:
    content = wire.response_of(Answer("m:1", "", [], {"p": value}), raw=True)
    parameters = pb.ModelInferResponse.FromString(content).parameters
    assert wire._parameters(parameters) == {"p": value}


def test_a_parameter_without_a_value_is_none() -> None:
    request = pb.ModelInferRequest()
    request.parameters["empty"].SetInParent()
    assert wire.request_of(request)[0].parameters == {}


@pytest.mark.parametrize("raws", [2, 3])
def test_partly_raw_requests(raws: int) -> None:
    request = tokens_request("m", random_indices(1))
    request.raw_input_contents.extend([b""] * (raws - 1))
    with pytest.raises(InvalidRequest):
        wire.request_of(request)


def test_raw_and_typed_at_once() -> None:
    request = tokens_request("m", random_indices(1))
    request.inputs[0].contents.bytes_contents.append(b"x")
    with pytest.raises(InvalidRequest):
        wire.request_of(request)


def learned(request: pb.ModelInferRequest) -> Plans:
    plans = Plans()
    found, _ = wire.request_of(request)
    plans.learn(request.SerializeToString(), request, Plan(found, scoring.OUTPUTS))
    return plans


def test_a_plan_is_found_for_what_differs_in_its_tensor_only() -> None:
    plans = learned(tokens_request("m", random_indices(2)))
    other = tokens_request("m", random_indices(2, seed=1))
    found = plans.find(other.SerializeToString())
    assert found is not None
    assert found[1] == other.raw_input_contents[0]
    assert found[0].model == "m"


def changed(request: pb.ModelInferRequest, **fields: Any) -> pb.ModelInferRequest:
    copy = pb.ModelInferRequest()
    copy.CopyFrom(request)
    for name, value in fields.items():
        setattr(copy, name, value)
    return copy


def test_no_plan_is_found_for_anything_else() -> None:
    request = tokens_request("m", random_indices(2))
    plans = learned(request)
    content = request.SerializeToString()
    twice = changed(request)
    twice.raw_input_contents.append(b"\0" * 4)
    wider = changed(request)
    wider.inputs[0].shape[:] = [2, FIELDS + 1]
    for other in (
        changed(request, model_name="n"),
        changed(request, model_version="1"),
        changed(request, id="7"),
        twice,
        wider,
        tokens_request("m", random_indices(3)),
    ):
        assert plans.find(other.SerializeToString()) is None
    assert plans.find(content[:-1]) is None
    assert plans.find(content + b"\0") is None
    assert plans.find(b"") is None
    # The same length, but the tensor's own length says otherwise: a shorter one and a stray field.
    tensor = request.raw_input_contents[0]
    start = wire.field_start(7, len(tensor))
    cut = content[: len(content) - len(tensor) - len(start)]
    shorter = wire.field_start(7, len(tensor) - 4) + tensor[:-4]
    padded = cut + shorter + wire.field_start(7, 2) + b"\0\0"
    assert len(padded) == len(content)
    assert plans.find(padded) is None


def test_a_length_learned_twice() -> None:
    """Messages of one beginning with tensors of two lengths are told apart."""
    request = tokens_request("m", random_indices(1))
    plans = learned(request)
    shorter = changed(request)
    shorter.raw_input_contents[0] = request.raw_input_contents[0][:-4]
    found, _ = wire.request_of(request)
    plans.learn(shorter.SerializeToString(), shorter, Plan(found, scoring.OUTPUTS))
    again = plans.find(shorter.SerializeToString())
    assert again is not None
    assert again[1] == shorter.raw_input_contents[0]
    assert plans.find(request.SerializeToString()) is None
    # As long as the first, but it is the second and a stray field that fills it up.
    padded = shorter.SerializeToString() + wire.field_start(7, 2) + b"\0\0"
    assert len(padded) == request.ByteSize()
    assert plans.find(padded) is None


def test_a_tensor_inside_another_field_is_not_taken_for_the_tensor() -> None:
    request = tokens_request("m", random_indices(1))
    tensor = request.raw_input_contents[0]
    inner = wire.field_start(7, len(tensor)) + tensor
    content = request.SerializeToString() + wire.field_start(15, len(inner)) + inner
    message = pb.ModelInferRequest.FromString(content)
    assert list(message.raw_input_contents) == [tensor]
    plans = Plans()
    plans.learn(content, message, Plan(wire.request_of(message)[0], scoring.OUTPUTS))
    assert not plans._plans


def test_messages_with_an_id_or_in_another_order_are_not_learned() -> None:
    request = tokens_request("m", random_indices(1), id="x")
    assert not learned(request)._plans
    plain = tokens_request("m", random_indices(1))
    found, _ = wire.request_of(plain)
    tail = pb.ModelInferRequest(model_name="m").SerializeToString()
    content = changed(plain, model_name="").SerializeToString() + tail
    plans = Plans()
    plans.learn(content, pb.ModelInferRequest.FromString(content), Plan(found, scoring.OUTPUTS))
    assert not plans._plans


def test_the_number_of_plans_is_limited() -> None:
    plans = Plans()
    for number in range(600):
        request = tokens_request(f"m{number}", random_indices(1))
        found, _ = wire.request_of(request)
        plans.learn(request.SerializeToString(), request, Plan(found, scoring.OUTPUTS))
        assert plans.find(request.SerializeToString()) is not None
    assert len(plans._plans) <= 256
    long = tokens_request("m" * 1000, random_indices(1))
    assert not learned(long)._plans


@given(st.binary(max_size=400), st.integers(0, 400), st.integers(0, 255))
def test_find_never_disagrees_with_protobuf(noise: bytes, place: int, byte: int) -> None:
    """A plan's reading of a damaged message is protobuf's reading of it."""
    request = tokens_request("m", random_indices(1))
    plans = learned(request)
    content = bytearray(request.SerializeToString())
    content[place % len(content)] = byte
    for candidate in (bytes(content), bytes(content[: place % len(content)]) + noise):
        found = plans.find(candidate)
        if found is not None:
            parsed = pb.ModelInferRequest.FromString(candidate)
            assert list(parsed.raw_input_contents) == [found[1]]
            parsed.raw_input_contents[:] = request.raw_input_contents
            assert parsed == request
