"""Fuzzes the Open Inference Protocol's readers in process: protobuf, raw tensors, JSON.

    python -m tests.fuzz.oip_tensors --inputs 1000000 --seconds 1800

Inputs are made from good requests by changing bytes, lengths, shapes, datatypes and JSON values.
Each must be read or refused: anything but a `RequestError` fails, and so do indices other than those
a plain reading of the same tensor gives, or a refusal that repeats a token.  The seed of an input
is printed when it fails; `--first SEED --inputs 1` runs it again.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import sys
import time
import traceback
from typing import Any

import numpy as np

from cipherscore.errors import RequestError
from cipherscore.proto.inference import grpc_service_pb2 as pb
from cipherscore.tokens import from_text, to_text
from serving.oip import json_wire, scoring, wire
from serving.oip.plans import Plan, Plans
from serving.oip.protocol import Request, choose, limit_time
from serving.rpc import parse
from tests.support.models import KEY_ID, OTHER_KEY_ID, SIZES, token, vocabulary
from tests.support.oip import FIELDS, cells_of, elements, random_indices, raw_bytes

VOCABULARY = vocabulary()
_ROWS = (0, 1, 1, 1, 2, 3, 5, 26, 40)
_NUMBERS = (0, 1, -1, 2, 3, 4, 255, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63))
_DATATYPES = ("BYTES", "INT32", "INT64", "FP32", "UINT64", "", "bytes", "\x00")
_NAMES = ("tokens", "indices", "noise", "count", "", "Tokens", "😀")
_STRANGE = [
    token("beta", 99), token("beta", 1, OTHER_KEY_ID), b"", b"\x01abc", b"\x02" * 37, b"\x01" * 2000,
    token("alpha", 0) + b"\0" * 16,
]  # fmt: skip
_VALUES: list[Any] = [
    None, True, 0, -1, 1.5, 10**30, 2**63, "", "x", [], {}, [[]], "AAA=", "é", "\x00", KEY_ID,
    float("nan"), 1e308, [[[1]]], {"binary_data_size": 3}, *map(to_text, _STRANGE),
]  # fmt: skip


class Fuzzer:
    """Makes inputs and judges what becomes of them."""

    def __init__(self) -> None:
        self.outcomes: collections.Counter[str] = collections.Counter()
        self._plans = Plans()

    def run(self, seed: int) -> None:
        """Try the input of ``seed``."""
        random_ = random.Random(seed)
        way = random_.random()
        indices = random_indices(random_.choice(_ROWS), seed)
        content = b""
        try:
            if way < 0.75:
                content = self._message(random_, indices)
                self._read_message(content)
            else:
                content, header = self._json(random_, indices)
                request, _ = json_wire.request_of("m", content, header)
                self._read(request)
                self.outcomes["JSON read"] += 1
        except RequestError as error:
            self.outcomes[error.code] += 1
            _check_detail(error, content)

    def _read_message(self, content: bytes) -> None:
        message = parse(pb.ModelInferRequest(), content)
        found = self._plans.find(content)
        request, raw = wire.request_of(message)
        result = self._read(request)
        self.outcomes["message read"] += 1
        if found is not None:
            plan, tensor = found
            assert list(message.raw_input_contents) == [tensor]
            table = plan.table(tensor)
            assert table.rows == len(result)
            if len(result):
                assert np.array_equal(_array(table.indices(VOCABULARY)), result)
            self.outcomes["by a plan"] += 1
        elif (
            raw
            and scoring.is_scoring(request)
            and not scoring.has_indices(request)
            and not message.parameters
        ):
            self._plans.learn(content, message, Plan(request, scoring.OUTPUTS))

    def _read(self, request: Request) -> np.ndarray:
        assert len(request.inputs) < 50
        if not scoring.is_scoring(request):
            self.outcomes["not for scoring"] += 1
            return np.empty(0)
        choose(request.outputs, scoring.OUTPUTS)
        limit_time(_NoCall, request.parameters)  # type: ignore[arg-type]
        table = scoring.table_of(request, VOCABULARY)
        if table.rows == 0:
            return np.empty(0)
        found = _array(table.indices(VOCABULARY))
        assert len(found) == table.rows
        assert np.array_equal(found, _plainly(request)), "read otherwise than plainly"
        return found

    def _message(self, random_: random.Random, indices: np.ndarray) -> bytes:
        request = pb.ModelInferRequest(model_name="m")
        tensor = request.inputs.add(name="tokens", datatype="BYTES", shape=indices.shape)
        kind = random_.random()
        cells = cells_of(indices)
        if cells and random_.random() < 0.3:
            cells[random_.randrange(len(cells))] = random_.choice([*_STRANGE, token("gamma", 7)])
        raw = b""
        if kind < 0.55:
            raw = raw_bytes(cells)
        elif kind < 0.7:
            tensor.contents.bytes_contents.extend(cells)
        else:
            wide = random_.random() < 0.5
            tensor.name, tensor.datatype = "indices", "INT64" if wide else "INT32"
            flat = indices.astype("<i8" if wide else "<i4").ravel()
            if len(flat) and random_.random() < 0.3:
                flat[random_.randrange(len(flat))] = random_.choice((-1, 2, 3, 300, 2**31 - 1, -9))
            if random_.random() < 0.7:
                raw = flat.tobytes()
            else:
                field = tensor.contents.int64_contents if wide else tensor.contents.int_contents
                field.extend(flat.tolist())
        if raw or kind < 0.55:
            request.raw_input_contents.append(
                _damaged(random_, raw) if random_.random() < 0.3 else raw
            )
        for _ in range(random_.choice((0, 0, 0, 1, 1, 3))):
            _change_message(random_, request)
        content = request.SerializeToString()
        return _damaged(random_, content) if random_.random() < 0.25 else content

    def _json(self, random_: random.Random, indices: np.ndarray) -> tuple[bytes, int | None]:
        rows = len(indices)
        tensor: dict[str, Any] = {"name": "tokens", "datatype": "BYTES", "shape": [rows, FIELDS]}
        tail = b""
        cells = cells_of(indices)
        way = random_.random()
        if way < 0.3:
            tail = raw_bytes(cells)
            tensor["parameters"] = {"binary_data_size": len(tail)}
        elif way < 0.7:
            tensor["data"] = [to_text(cell) for cell in cells]
        else:
            tensor.update(name="indices", datatype="INT64", data=indices.tolist())
        body: Any = {"inputs": [tensor], "outputs": [{"name": "probability"}], "id": "x"}
        for _ in range(random_.choice((0, 0, 1, 1, 2))):
            _change_json(random_, body)
        content = json.dumps(body).encode()
        if random_.random() < 0.15:
            content = _damaged(random_, content)
        header = len(content) if tail else None
        if random_.random() < 0.05:
            header = random_.choice((None, 0, 5, len(content), len(content) + 1, 10**17))
        return content + tail, header


class _NoCall:
    deadline = 0.0


def _array(payload: bytes | np.ndarray) -> np.ndarray:
    found = payload if isinstance(payload, np.ndarray) else np.frombuffer(payload, "<i4")
    assert found.dtype == np.int32
    found = found.reshape(-1, FIELDS)
    assert ((found >= 0) & (found < list(SIZES.values()))).all()
    return found


def _plainly(request: Request) -> np.ndarray:
    """Read a request's only input in the most straightforward way."""
    (tensor,) = request.inputs
    if tensor.name == "indices":
        if tensor.raw is None:
            return np.array(tensor.elements).reshape(-1, FIELDS)
        kind = {"INT32": "<i4", "INT64": "<i8"}[tensor.datatype]
        return np.frombuffer(tensor.raw, kind).reshape(-1, FIELDS)
    cells = elements(tensor.raw) if tensor.raw is not None else list(tensor.elements)
    columns = list(VOCABULARY.index.values())
    return np.array(
        [
            columns[i % FIELDS][from_text(cell) if isinstance(cell, str) else cell]
            for i, cell in enumerate(cells)
        ]
    ).reshape(-1, FIELDS)


def _change_message(random_: random.Random, request: pb.ModelInferRequest) -> None:
    tensor = request.inputs[0] if request.inputs else request.inputs.add()
    shape = list(tensor.shape)
    change = random_.randrange(9)
    if change == 0 and shape:
        shape[random_.randrange(len(shape))] = random_.choice(_NUMBERS)
        tensor.shape[:] = shape
    elif change == 1:
        tensor.shape[:] = [*shape, random_.choice(_NUMBERS)][: random_.randrange(4)]
    elif change == 2:
        tensor.datatype = random_.choice(_DATATYPES)
    elif change == 3:
        tensor.name = random_.choice(_NAMES)
    elif change == 4:
        request.outputs.add(name=random_.choice(("probability", "decision", "x", "")))
    elif change == 5:
        request.parameters[random_.choice(("timeout", "x"))].int64_param = random_.choice(_NUMBERS)
    elif change == 6:
        request.raw_input_contents.append(random_.randbytes(random_.randrange(9)))
    elif change == 7:
        request.inputs.append(tensor)
    else:
        tensor.contents.bytes_contents.append(random_.choice(_STRANGE))


def _change_json(random_: random.Random, value: Any) -> None:
    """Change something somewhere in ``value``."""
    places = list(value) if isinstance(value, dict) else list(range(len(value)))
    if not places:
        return
    place = random_.choice(places)
    inner = value[place]
    if isinstance(inner, (dict, list)) and inner and random_.random() < 0.7:
        _change_json(random_, inner)
    elif random_.random() < 0.2:
        del value[place]
    else:
        value[place] = random_.choice(_VALUES)


def _damaged(random_: random.Random, content: bytes) -> bytes:
    """Return ``content`` with some bytes changed, cut off, repeated or put in."""
    found = bytearray(content)
    for _ in range(random_.choice((1, 1, 1, 2, 8))):
        place = random_.randrange(len(found) + 1)
        change = random_.randrange(4)
        if change == 0 and place < len(found):
            found[place] = random_.choice((0, 1, 0x7F, 0x80, 0xFF, random_.randrange(256)))
        elif change == 1:
            del found[place : place + random_.choice((1, 2, 4, 41, 500))]
        elif change == 2:
            found[place:place] = found[place : place + random_.choice((1, 4, 41))]
        else:
            found[place:place] = random_.randbytes(random_.choice((1, 2, 4, 8)))
    return bytes(found)


def _check_detail(error: RequestError, content: bytes) -> None:
    """A refusal is one short line and repeats no part of a token."""
    assert error.detail.isprintable(), "a refusal is not printable"
    assert len(error.detail) < 400, "a refusal is long"
    assert error.field is None or (error.field.isascii() and error.field.isprintable())
    assert error.row is None or error.row >= 0
    shown = f"{error.detail} {error.field}"
    for strange in _STRANGE[:2]:
        if strange in content or to_text(strange).encode() in content:
            assert to_text(strange)[8:20] not in shown
            assert strange.hex()[10:20] not in shown


def main() -> int:
    """Run; return 1 when an input fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--first", type=int, default=0)
    chosen = parser.parse_args()
    fuzzer = Fuzzer()
    started = time.monotonic()
    tried = 0
    for seed in range(chosen.first, chosen.first + chosen.inputs):
        if time.monotonic() - started > chosen.seconds:
            break
        try:
            fuzzer.run(seed)
        except Exception:
            traceback.print_exc()
            print(f"failed: seed {seed}", file=sys.stderr)
            return 1
        tried += 1
    print(f"{tried} inputs in {time.monotonic() - started:.0f} s, none failed")
    for outcome, count in fuzzer.outcomes.most_common():
        print(f"{count:>9} {outcome}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
