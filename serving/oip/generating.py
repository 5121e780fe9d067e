"""A generator's inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cipherscore.errors import EmptyBatch, InvalidNoise, InvalidRequest, UnknownClass
from serving.generation import BAD, GOOD, Chunk, GenerateOrder, Generator
from serving.oip.layout import cells
from serving.oip.protocol import (
    LABELS,
    Answer,
    Classes,
    Output,
    Request,
    Tensor,
    Tokens,
    check_inputs,
)
from serving.oip.tensors import INTEGERS, TOKENS, check_shape, integers

COUNT, SEED, CLASS, NOISE = "count", "seed", "credit_class", "noise"
INPUTS = (COUNT, SEED, CLASS, NOISE)
OUTPUTS = (TOKENS, CLASS)
_CLASSES = {"good": GOOD, "bad": BAD}
_MAX_LABEL_BYTES = 4 + max(map(len, LABELS))


def order_of(request: Request, generator: Generator, max_rows: int) -> GenerateOrder:
    """Return what a request asks ``generator`` for.

    Raises:
        RequestError: It is malformed, contradicts itself, or names no number of rows.
    """
    found = check_inputs(request, INPUTS)
    noise = None if NOISE not in found else _noise(found[NOISE])
    classes = _classes(request, found.get(CLASS), max_rows)
    count = _number(request, found, COUNT)
    sizes = {
        size
        for size in (
            count,
            None if noise is None else len(noise),
            len(classes) if isinstance(classes, np.ndarray) else None,
        )
        if size is not None
    }
    if not sizes:
        raise EmptyBatch("say how many rows: count, noise or credit_class", field=COUNT)
    if len(sizes) > 1:
        raise InvalidRequest("count, noise and credit_class differ in rows", field=COUNT)
    return GenerateOrder(
        # The protocol has no place for a key id: whoever asks gets what the model has.
        key_id=generator.model.record.key_id,
        count=sizes.pop(),
        credit_class=classes,
        seed=_number(request, found, SEED),
        noise=noise,
    )


def answer(
    chunks: Sequence[Chunk],
    generator: Generator,
    seed: int,
    names: Sequence[str],
    request_id: str,
) -> Answer:
    """Return rows as the outputs ``names``."""
    indices = np.concatenate([chunk.indices for chunk in chunks])
    classes = np.concatenate([chunk.credit_class for chunk in chunks])
    outputs = {
        TOKENS: lambda: Output(
            TOKENS, "BYTES", indices.shape, Tokens(indices, generator.model.vocabulary)
        ),
        CLASS: lambda: Output(CLASS, "BYTES", classes.shape, Classes(classes)),
    }
    return Answer(
        generator.model.tag, request_id, [outputs[name]() for name in names], {SEED: seed}
    )


def _number(request: Request, found: dict[str, Tensor], name: str) -> int | None:
    """Return an integer sent as a parameter, or as a tensor of one INT32, INT64 or UINT64."""
    tensor = found.get(name)
    if tensor is None:
        value = request.parameters.get(name)
        if value is not None and type(value) is not int:
            raise InvalidRequest(f"{name!r} is an integer", field=name)
        return value
    check_shape(name, tensor.shape, 1)
    kind = np.dtype("<u8") if tensor.datatype == "UINT64" else INTEGERS.get(tensor.datatype)
    raw = integers(name, tensor.elements, kind) if tensor.raw is None else tensor.raw
    if kind is None or list(tensor.shape) != [1] or len(raw) != kind.itemsize:
        raise InvalidRequest(f"{name!r} is one INT32 or INT64", field=name)
    return int(np.frombuffer(raw, dtype=kind)[0])


def _noise(tensor: Tensor) -> np.ndarray:
    """Return float32 [rows, width]; too large a number becomes infinite, which is refused later."""
    check_shape(NOISE, tensor.shape, 2)
    rows, width = tensor.shape
    if tensor.datatype != "FP32":
        raise InvalidNoise(f"{NOISE!r} is FP32", field=NOISE)
    if tensor.raw is not None:
        if len(tensor.raw) != rows * width * 4:
            raise InvalidNoise(f"{NOISE!r} does not hold what its shape says", field=NOISE)
        flat: np.ndarray = np.frombuffer(tensor.raw, dtype="<f4")
    else:
        if not all(type(value) in {int, float} for value in tensor.elements):
            raise InvalidNoise(f"{NOISE!r} holds something that is no number", field=NOISE)
        if len(tensor.elements) != rows * width:
            raise InvalidNoise(f"{NOISE!r} does not hold what its shape says", field=NOISE)
        try:
            with np.errstate(over="ignore"):
                flat = np.array(tensor.elements, dtype=np.float64).astype(np.float32)
        except OverflowError as error:
            raise InvalidNoise(f"{NOISE!r} holds too large a number", field=NOISE) from error
    return flat.reshape(rows, width)


def _classes(request: Request, tensor: Tensor | None, max_rows: int) -> int | np.ndarray | None:
    """Return the class of all rows, sent as a parameter; or of each, a tensor; or None."""
    if tensor is None:
        value = request.parameters.get(CLASS)
        if value is None:
            return None
        if not isinstance(value, str) or value not in _CLASSES:
            raise UnknownClass("credit_class is 'good' or 'bad'", field=CLASS)
        return _CLASSES[value]
    check_shape(CLASS, tensor.shape, 1)
    rows = tensor.shape[0]
    if rows > max_rows:
        raise InvalidRequest(f"{CLASS!r} asks for more than {max_rows} rows", field=CLASS)
    numbers = _labels(tensor, rows) if tensor.datatype == "BYTES" else _class_numbers(tensor)
    if len(numbers) != rows:
        raise InvalidRequest(f"{CLASS!r} does not hold what its shape says", field=CLASS)
    wrong = (numbers != GOOD) & (numbers != BAD)
    if wrong.any():
        raise UnknownClass(
            "a class is 'good' or 'bad', as a number 0 or 1",
            field=CLASS,
            row=int(np.argmax(wrong)),
        )
    return numbers.astype(np.int32, copy=False)


def _labels(tensor: Tensor, rows: int) -> np.ndarray:
    """Return int32 [rows]: 0, 1, or -1 for what is neither label."""
    known: dict[object, int] = {}
    for label, number in _CLASSES.items():
        known[label] = known[label.encode()] = number
    if tensor.raw is None:
        elements = tensor.elements
    elif len(tensor.raw) > rows * _MAX_LABEL_BYTES:
        raise UnknownClass("a class is 'good' or 'bad'", field=CLASS)
    else:
        elements = list(cells(tensor.raw))
    return np.array(
        [known.get(e, -1) if isinstance(e, (str, bytes)) else -1 for e in elements], dtype=np.int32
    )


def _class_numbers(tensor: Tensor) -> np.ndarray:
    kind = INTEGERS.get(tensor.datatype)
    raw = integers(CLASS, tensor.elements, kind) if tensor.raw is None else tensor.raw
    if kind is None or len(raw) % kind.itemsize:
        raise InvalidRequest(f"{CLASS!r} is BYTES, INT32 or INT64", field=CLASS)
    found: np.ndarray = np.frombuffer(raw, dtype=kind)
    return found
