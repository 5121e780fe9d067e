"""What a request and an answer of the Open Inference Protocol are, whatever they came in."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from cipherscore.errors import InvalidRequest, Unsupported
from cipherscore.tokens import to_text
from cipherscore.vocabulary import Vocabulary
from serving.call import Call
from serving.oip.layout import PREFIX, layout_of
from serving.tables import printable

SHARED_MEMORY = "shared_memory_region"
LABELS = ("good", "bad")
_GOOD, _BAD = (PREFIX.pack(len(label)) + label.encode() for label in LABELS)
_MARKS = bytes.maketrans(b"\x00\x01", b"\xfe\xff")
"""Stand-ins of the labels: bytes that no label and no length holds."""


@dataclass(slots=True)
class Tensor:
    """An input.

    Attributes:
        name: As the model calls it.
        datatype: Name in the protocol, such as INT32.
        shape: Sizes; any integers yet.
        raw: Its elements as little-endian bytes, or None.
        elements: Its elements flattened, if not raw: bytes, texts (JSON) or numbers.
        parameters: As sent.
    """

    name: str
    datatype: str
    shape: Sequence[int]
    raw: bytes | None = None
    elements: Sequence[Any] = ()
    parameters: Mapping[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class Request:
    """An inference request.

    Attributes:
        model: "name" or "name:version".
        inputs: Input tensors.
        id: The caller's name for it, given back.
        parameters: As sent.
        outputs: Names of the outputs asked for; empty for all.
    """

    model: str
    inputs: Sequence[Tensor]
    id: str = ""
    parameters: Mapping[str, object] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()


class Data(Protocol):
    """Elements of an output."""

    def raw(self) -> bytes:
        """Return them as in a raw tensor."""

    def elements(self) -> list[Any]:
        """Return them flattened, as protobuf's typed contents take them."""

    def texts(self) -> list[Any]:
        """Return them flattened, as JSON holds them."""


class Floats:
    """FP32 elements.

    Args:
        values: float32 array.
    """

    def __init__(self, values: np.ndarray) -> None:
        self._values = values

    def raw(self) -> bytes:
        """See `Data`."""
        return self._values.astype("<f4", copy=False).tobytes()

    def elements(self) -> list[Any]:
        """See `Data`."""
        found: list[Any] = self._values.tolist()
        return found

    texts = elements


class Classes:
    """BYTES elements "good" and "bad".

    Args:
        bad: bool or 0/1 array.
    """

    def __init__(self, bad: np.ndarray) -> None:
        self._bad = bad.astype(np.uint8)

    def raw(self) -> bytes:
        """See `Data`."""
        marks = self._bad.tobytes().translate(_MARKS)
        return marks.replace(b"\xfe", _GOOD).replace(b"\xff", _BAD)

    def elements(self) -> list[Any]:
        """See `Data`."""
        return [text.encode() for text in self.texts()]

    def texts(self) -> list[Any]:
        """See `Data`."""
        return [LABELS[bad] for bad in self._bad.tolist()]


class Tokens:
    """BYTES elements: the tokens that vocabulary indices stand for.

    Args:
        indices: int32 [rows, fields], all valid.
        vocabulary: What they index.
    """

    def __init__(self, indices: np.ndarray, vocabulary: Vocabulary) -> None:
        self._indices = indices
        self._vocabulary = vocabulary

    def raw(self) -> bytes:
        """See `Data`."""
        return layout_of(self._vocabulary).tensor(self._indices)

    def elements(self) -> list[Any]:
        """See `Data`."""
        columns = self._vocabulary.tokens.values()
        return [
            column[index]
            for row in self._indices.tolist()
            for column, index in zip(columns, row, strict=True)
        ]

    def texts(self) -> list[Any]:
        """See `Data`."""
        return [to_text(token) for token in self.elements()]


@dataclass(slots=True)
class Output:
    """An output tensor."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Data


@dataclass(slots=True)
class Answer:
    """An answered request.

    Attributes:
        tag: "name:version" of the model that answered.
        id: The request's.
        outputs: Those asked for, in that order.
        parameters: What else there is to say: texts, numbers or booleans.
    """

    tag: str
    id: str
    outputs: Sequence[Output]
    parameters: Mapping[str, Any] = field(default_factory=dict)


def wanted(name: str, version: str) -> str:
    """Return how `serving.lineup` calls a model of this name and version."""
    return f"{name}:{version}" if version else name


def check_inputs(request: Request, known: Sequence[str]) -> dict[str, Tensor]:
    """Return a request's inputs by name.

    Raises:
        InvalidRequest: One is not of ``known``, or is sent twice.
        Unsupported: One is in shared memory.
    """
    found: dict[str, Tensor] = {}
    for tensor in request.inputs:
        name = printable(tensor.name)
        if tensor.name not in known:
            raise InvalidRequest(
                f"the model has no input {name!r}; it has {', '.join(known)}", field=name
            )
        if tensor.name in found:
            raise InvalidRequest(f"input {name!r} was sent twice", field=name)
        if SHARED_MEMORY in tensor.parameters:
            raise Unsupported("tensors in shared memory are not supported", field=name)
        found[name] = tensor
    return found


def choose(
    names: Sequence[str], outputs: Sequence[str], more: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the outputs to give: ``names`` if there are any, else all of ``outputs``.

    Args:
        names: Outputs asked for.
        outputs: Those there are.
        more: Those there are for who asks for them by name.

    Raises:
        InvalidRequest: A name is no output, or is asked for twice.
    """
    for name in names:
        if name not in outputs and name not in more:
            raise InvalidRequest(
                f"the model has no output {printable(name)!r}; it has "
                f"{', '.join((*outputs, *more))}",
                field=printable(name),
            )
    if len(set(names)) != len(names):
        raise InvalidRequest("an output is asked for twice")
    return tuple(names) or tuple(outputs)


def limit_time(call: Call, parameters: Mapping[str, object]) -> None:
    """Let ``call`` end after the request's ``timeout``, microseconds, if it has one.

    Raises:
        InvalidRequest: It is no positive integer.
    """
    timeout = parameters.get("timeout")
    if timeout is None:
        return
    if type(timeout) is not int or not 0 <= timeout < 1 << 63:
        raise InvalidRequest("timeout is a number of microseconds", field="timeout")
    if timeout:
        call.deadline = min(call.deadline, time.monotonic() + timeout / 1e6)
