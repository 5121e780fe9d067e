"""The JSON bodies of the protocol, with its extension for binary tensors behind the JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_core import from_json, to_json

from cipherscore.errors import InvalidRequest
from serving.oip.protocol import Answer, Request, Tensor
from serving.tables import printable

BINARY_SIZE, BINARY, ALL_BINARY = "binary_data_size", "binary_data", "binary_data_output"
_MAX_SIZE = 1 << 62


def request_of(model: str, content: bytes, header: int | None) -> tuple[Request, frozenset[str]]:
    """Return a body's request, and which outputs it wants as binary tensors.

    Args:
        model: Model it was sent to, as `serving.lineup` calls it.
        content: The body.
        header: Bytes of JSON in front of binary tensors; None if all is JSON.

    Raises:
        InvalidRequest: It is malformed.
    """
    length = len(content) if header is None else header
    if length > len(content):
        raise InvalidRequest("the body is shorter than its JSON header is said to be")
    body = _object(content if header is None else content[:length])
    parameters = _parameters(body)
    inputs, end = [], length
    for item in _items(body, "inputs"):
        tensor, end = _tensor(item, content, end)
        inputs.append(tensor)
    if end != len(content):
        raise InvalidRequest("the binary data does not have the length the inputs say")
    outputs = _items(body, "outputs")
    names = tuple(_text(output, "name") for output in outputs)
    everything = _flag(parameters, ALL_BINARY, default=False)
    binary = {
        name
        for name, output in zip(names, outputs, strict=True)
        if _flag(_parameters(output), BINARY, default=everything)
    }
    request = Request(model, inputs, _text(body, "id", default=""), parameters, names)
    return request, _Everything() if everything and not names else frozenset(binary)


def ready_only(content: bytes) -> bool:
    """Return whether a body, which may be empty, asks for models that are ready only.

    Raises:
        InvalidRequest: It is malformed.
    """
    return bool(content) and _flag(_object(content), "ready", default=False)


def _object(content: bytes) -> dict[str, Any]:
    try:
        body = from_json(content)
    except ValueError:
        # The cause is not repeated: it could show a token.
        raise InvalidRequest("the body is not valid JSON") from None
    return dict(_typed(body, dict, "the body"))


class _Everything(frozenset[str]):
    """All names there are."""

    def __contains__(self, _: object) -> bool:
        return True


def response_of(answer: Answer, binary: frozenset[str]) -> tuple[bytes, int | None]:
    """Return the body, and the length of its JSON header if binary tensors follow."""
    name, _, version = answer.tag.partition(":")
    content: dict[str, Any] = {"model_name": name, "model_version": version}
    if answer.id:
        content["id"] = answer.id
    if answer.parameters:
        content["parameters"] = answer.parameters
    outputs, tails = [], []
    for output in answer.outputs:
        described: dict[str, Any] = {
            "name": output.name,
            "datatype": output.datatype,
            "shape": output.shape,
        }
        if output.name in binary:
            raw = output.data.raw()
            tails.append(raw)
            described["parameters"] = {BINARY_SIZE: len(raw)}
        else:
            described["data"] = output.data.texts()
        outputs.append(described)
    content["outputs"] = outputs
    header = to_json(content)
    return (b"".join([header, *tails]), len(header)) if tails else (header, None)


def _tensor(item: dict[str, Any], content: bytes, start: int) -> tuple[Tensor, int]:
    """Return an input, and where the next one's binary data begins."""
    name = _text(item, "name")
    parameters = _parameters(item)
    shape = item.get("shape")
    if not isinstance(shape, list) or not all(
        type(size) is int and abs(size) < _MAX_SIZE for size in shape
    ):
        raise InvalidRequest("an input's shape is a list of integers", field=printable(name))
    tensor = Tensor(name, _text(item, "datatype"), shape, parameters=parameters)
    size = parameters.get(BINARY_SIZE)
    if size is None:
        tensor.elements = _flat(item.get("data"), name)
        return tensor, start
    if type(size) is not int or not 0 <= size <= len(content) - start or "data" in item:
        raise InvalidRequest(
            f"{BINARY_SIZE} is the length of binary data in the body", field=printable(name)
        )
    tensor.raw = content[start : start + size]
    return tensor, start + size


def _flat(data: Any, name: str) -> Sequence[Any]:
    """Return a tensor's elements; JSON has them flattened, or in a list per row."""
    if not isinstance(data, list):
        raise InvalidRequest("an input's data is a list", field=printable(name))
    if not data or not isinstance(data[0], list):
        return data
    if not all(isinstance(row, list) for row in data) or len({len(row) for row in data}) != 1:
        raise InvalidRequest("an input's rows are lists of one length", field=printable(name))
    return [element for row in data for element in row]


def _items(body: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = _typed(body.get(name) or [], list, repr(name))
    return [_typed(item, dict, f"each of {name!r}") for item in found]


def _parameters(body: dict[str, Any]) -> dict[str, Any]:
    return dict(_typed(body.get("parameters") or {}, dict, "'parameters'"))


def _flag(parameters: dict[str, Any], name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name} is true or false", field=name)
    return value


def _text(body: dict[str, Any], name: str, default: str | None = None) -> str:
    value = body.get(name, default)
    if not isinstance(value, str):
        raise InvalidRequest(f"{name!r} is required, a string", field=name)
    return value


def _typed(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind):
        raise InvalidRequest(f"{what} must be {'an object' if kind is dict else 'a list'}")
    return value
