"""The protobuf messages of the protocol: requests read, responses laid out by hand.

A raw response is a few constant bytes around the elements; writing them directly spares building
the message.  The bytes are those that protobuf itself writes (encoding guide, fields in order of
number), which a test compares.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from cipherscore.errors import InvalidRequest
from cipherscore.proto.inference import grpc_service_pb2 as pb
from serving.oip.protocol import Answer, Output, Request, Tensor, wanted

_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_DELIMITED = 2
_CACHED = 256


def request_of(message: pb.ModelInferRequest) -> tuple[Request, bool]:
    """Return a message's request, and whether it is raw.

    Raises:
        InvalidRequest: It is partly raw.
    """
    raws = message.raw_input_contents
    inputs = message.inputs
    if raws and (len(raws) != len(inputs) or any(tensor.HasField("contents") for tensor in inputs)):
        raise InvalidRequest("raw_input_contents needs one entry per input, and no contents")
    contents: Iterable[bytes | None] = raws or [None] * len(inputs)
    request = Request(
        model=wanted(message.model_name, message.model_version),
        inputs=[_tensor(tensor, raw) for tensor, raw in zip(inputs, contents, strict=True)],
        id=message.id,
        parameters=_parameters(message.parameters) if message.parameters else {},
        outputs=tuple(output.name for output in message.outputs),
    )
    return request, bool(raws)


def _tensor(tensor: pb.ModelInferRequest.InferInputTensor, raw: bytes | None) -> Tensor:
    elements: Sequence[Any] = ()
    if raw is None and tensor.datatype in _CONTENTS:
        elements = list(getattr(tensor.contents, _CONTENTS[tensor.datatype]))
    return Tensor(
        tensor.name,
        tensor.datatype,
        list(tensor.shape),
        raw,
        elements,
        _parameters(tensor.parameters) if tensor.parameters else {},
    )


def _parameters(given: Mapping[str, pb.InferParameter]) -> dict[str, object]:
    chosen = {name: value.WhichOneof("parameter_choice") for name, value in given.items()}
    return {name: getattr(given[name], kind) for name, kind in chosen.items() if kind is not None}


def response_of(answer: Answer, *, raw: bool) -> bytes:
    """Return the serialized ModelInferResponse."""
    if raw and not answer.parameters:
        return raw_head(answer.tag, answer.id, answer.outputs) + b"".join(
            [_field(6, output.data.raw()) for output in answer.outputs]
        )
    return response_message(answer, raw=raw).SerializeToString(deterministic=True)


def response_message(answer: Answer, *, raw: bool) -> pb.ModelInferResponse:
    """Return the response as a message."""
    name, _, version = answer.tag.partition(":")
    message = pb.ModelInferResponse(model_name=name, model_version=version, id=answer.id)
    for key, value in answer.parameters.items():
        _set(message.parameters[key], value)
    for output in answer.outputs:
        tensor = message.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
        if raw:
            message.raw_output_contents.append(output.data.raw())
        else:
            getattr(tensor.contents, _CONTENTS[output.datatype]).extend(output.data.elements())
    return message


def _set(parameter: pb.InferParameter, value: object) -> None:
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int):
        # What fits is signed, as clients expect numbers to be.
        if value < 1 << 63:
            parameter.int64_param = value
        else:
            parameter.uint64_param = value
    else:
        parameter.string_param = str(value)


def raw_head(tag: str, request_id: str, outputs: Sequence[Output]) -> bytes:
    """Return a serialized raw response up to its elements."""
    return b"".join(
        [
            _model(tag),
            _field(3, request_id.encode()) if request_id else b"",
            *[_described(output.name, output.datatype, output.shape) for output in outputs],
        ]
    )


@lru_cache(_CACHED)
def _model(tag: str) -> bytes:
    name, _, version = tag.partition(":")
    return b"".join(
        _field(number, text.encode()) for number, text in ((1, name), (2, version)) if text
    )


@lru_cache(_CACHED)
def _described(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    parts = (name.encode(), datatype.encode(), b"".join(map(varint, shape)))
    return _field(5, b"".join(_field(number, part) for number, part in enumerate(parts, 1)))


def stream_response(response: bytes) -> bytes:
    """Return the serialized ModelStreamInferResponse around a serialized response."""
    return _field(2, response)


def _field(number: int, content: bytes) -> bytes:
    return b"".join((field_start(number, len(content)), content))


def field_start(number: int, length: int) -> bytes:
    """Return what stands before a text, bytes or message field (of a number below 16)."""
    return bytes([number << 3 | _DELIMITED]) + varint(length)


def varint(value: int) -> bytes:
    """Return a non-negative integer in protobuf's base 128."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
