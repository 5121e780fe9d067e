"""The service ``cipherscore.v1.CipherScore``, for either gRPC engine."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np

from cipherscore.errors import RequestError, UnknownClass
from cipherscore.proto.v1 import cipherscore_pb2 as pb
from serving.call import Call
from serving.dataplane import Dataplane
from serving.futures import settle
from serving.gate import Gate
from serving.generation import BAD, GOOD, Chunk, GenerateOrder
from serving.reasons import Reasons
from serving.rpc import Method, Respond, Stream, Unary, parse
from serving.scorer import Scores
from serving.status import Host
from serving.tables import ProtoTable

SERVICE = pb.DESCRIPTOR.services_by_name["CipherScore"].full_name
_CLASSES = {
    pb.CREDIT_CLASS_UNSPECIFIED: None,
    pb.CREDIT_CLASS_GOOD: GOOD,
    pb.CREDIT_CLASS_BAD: BAD,
}
_WIRE_CLASSES = np.array([pb.CREDIT_CLASS_GOOD, pb.CREDIT_CLASS_BAD], dtype=np.uint8)
_NARROW = 256
_PIPELINED = 64
"""Requests of one stream that are worked on at once; the next is read when one is answered."""
_PROBABILITY, _DECISION, _MODEL, _REASONS = (bytes([n << 3 | 2]) for n in (1, 2, 3, 5))
_FIELD, _INDICES, _CONTRIBUTION = (bytes([number << 3 | 2]) for number in (2, 3, 4))
_DOUBLE = struct.Struct("<Bd")


def methods(dataplane: Dataplane, host: Host, gate: Gate) -> dict[str, Method]:
    """Return the methods by path."""
    service = _Methods(dataplane, host, gate)
    return {
        f"/{SERVICE}/Score": Unary("Score", "score", service.score),
        f"/{SERVICE}/ScoreStream": Stream(
            "ScoreStream", "score", service.score_stream, client_streaming=True
        ),
        f"/{SERVICE}/Generate": Stream(
            "Generate", "generate", service.generate, client_streaming=False
        ),
        f"/{SERVICE}/GetModel": Unary("GetModel", None, service.get_model),
    }


class _Methods:
    def __init__(self, dataplane: Dataplane, host: Host, gate: Gate) -> None:
        self._dataplane = dataplane
        self._host = host
        self._gate = gate

    def score(self, content: bytes, call: Call, respond: Respond) -> None:
        request = parse(pb.ScoreRequest(), content)

        def done(answer: Scores | BaseException) -> None:
            respond(answer if isinstance(answer, BaseException) else score_response(answer))

        table = ProtoTable(request.table)
        self._dataplane.score(call, table, request.key_id, request.model, done, request.reasons)

    async def score_stream(
        self, contents: AsyncIterator[bytes], call: Call
    ) -> AsyncIterator[bytes]:
        """Answer in order; what follows is worked on while an earlier request is."""
        loop = asyncio.get_running_loop()
        pending: deque[asyncio.Future[bytes]] = deque()
        rows = 0
        reading: asyncio.Task[bytes | None] | None = None
        try:
            reading = loop.create_task(_next(contents))
            while reading is not None or pending:
                if reading is not None and len(pending) < _PIPELINED:
                    waited: set[asyncio.Future[Any]] = {reading, *list(pending)[:1]}
                    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                    if reading.done():
                        content = reading.result()
                        reading = None
                        if content is not None:
                            pending.append(self._begin(content, call))
                            rows += call.rows
                            reading = loop.create_task(_next(contents))
                if pending and (pending[0].done() or len(pending) == _PIPELINED or reading is None):
                    yield await pending.popleft()
        finally:
            call.rows = rows
            if reading is not None:
                reading.cancel()
            for future in pending:
                future.cancel()

    def _begin(self, content: bytes, call: Call) -> asyncio.Future[bytes]:
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        try:
            self._gate.charge(call)
            self.score(content, call, settle(future))
        except RequestError as error:
            future.set_exception(error)
        return future

    async def generate(self, contents: AsyncIterator[bytes], call: Call) -> AsyncIterator[bytes]:
        """Answer in chunks, made as fast as the client takes them."""
        request = parse(pb.GenerateRequest(), await _only(contents))
        if request.credit_class not in _CLASSES:
            raise UnknownClass("credit_class is none of those known", field="credit_class")
        generator = self._host.lineup.generator(request.model)
        order = GenerateOrder(
            key_id=request.key_id,
            count=request.count,
            credit_class=_CLASSES[request.credit_class],
            seed=request.seed if request.HasField("seed") else None,
            noise=_noise(request, generator.model.record.noise_width or 1),
        )
        # By its tag: a canary may be picked for one call of the lineup and not for the next.
        tag = generator.model.tag
        seed, chunks, generator = self._dataplane.start_generation(call, order, tag)
        async for chunk in chunks:
            response = pb.GenerateResponse(
                table=_table(chunk, generator.model.vocabulary.tokens),
                credit_class=_WIRE_CLASSES[chunk.credit_class].tolist(),
                model=generator.model.tag,
                seed=seed,
            )
            yield response.SerializeToString()

    def get_model(self, content: bytes, call: Call, respond: Respond) -> None:
        request = parse(pb.GetModelRequest(), content)
        facts = self._host.model_facts(request.kind, request.model)
        call.model = facts["model"]
        respond(pb.Model(**facts).SerializeToString())


def score_response(scores: Scores) -> bytes:
    """Return a serialized ``ScoreResponse``, laid out by hand from the arrays.

    Building the message would make a Python number of each probability; this is as protobuf
    (encoding guide, packed repeated fields) writes it, which a test compares.
    """
    probability = scores.probability.astype("<f4", copy=False).tobytes()
    decision = _WIRE_CLASSES[scores.bad.view(np.uint8)].tobytes()
    model = scores.model.encode()
    parts = [
        _PROBABILITY, _varint(len(probability)), probability,
        _DECISION, _varint(len(decision)), decision,
        _MODEL, _varint(len(model)), model,
    ]  # fmt: skip
    if scores.threshold:
        parts.append(_DOUBLE.pack(4 << 3 | 1, scores.threshold))
    if scores.reasons is not None:
        message = reasons_message(scores.reasons)
        parts += (_REASONS, _varint(len(message)), message)
    return b"".join(parts)


def reasons_message(reasons: Reasons) -> bytes:
    """Return ranked reasons as a serialized ``Reasons``, laid out by hand as `score_response` is.

    Args:
        reasons: Of at least one row.
    """
    assert reasons.indices is not None
    width = np.uint8 if len(reasons.fields) <= _NARROW else np.dtype("<u2")
    indices = reasons.indices.astype(width).tobytes()
    contribution = reasons.contribution.astype("<f4", copy=False).tobytes()
    parts = [
        b"\x08", _varint(reasons.indices.shape[1]), _named(reasons.fields),
        _INDICES, _varint(len(indices)), indices,
        _CONTRIBUTION, _varint(len(contribution)), contribution,
    ]  # fmt: skip
    if reasons.base:
        parts.append(_DOUBLE.pack(5 << 3 | 1, reasons.base))
    return b"".join(parts)


@lru_cache(64)
def _named(fields: tuple[str, ...]) -> bytes:
    """Return the names as a ``Reasons`` holds them."""
    encoded = [field.encode() for field in fields]
    return b"".join(_FIELD + _varint(len(name)) + name for name in encoded)


def _varint(number: int) -> bytes:
    if number < 1 << 7:
        return bytes([number])
    found = bytearray()
    while number >= 1 << 7:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


async def _next(contents: AsyncIterator[bytes]) -> bytes | None:
    with suppress(StopAsyncIteration):
        return await contents.__anext__()
    return None


async def _only(contents: AsyncIterator[bytes]) -> bytes:
    return await _next(contents) or b""


def _noise(request: pb.GenerateRequest, width: int) -> np.ndarray | None:
    """Return float32 [rows, width]; a length that fits no row is left for the check to refuse."""
    if not request.noise:
        return None
    flat = np.array(request.noise, dtype=np.float32)
    return flat.reshape(-1, width) if len(flat) % width == 0 else flat.reshape(1, -1)


def _table(chunk: Chunk, tokens: Any) -> pb.TokenTable:
    """Return a chunk as wire columns; a field's dictionary is its vocabulary, or what is used."""
    table = pb.TokenTable(rows=len(chunk.indices))
    for position, (field, vocabulary) in enumerate(tokens.items()):
        indices = chunk.indices[:, position]
        dictionary = vocabulary
        if len(vocabulary) > _NARROW:
            used, indices = np.unique(indices, return_inverse=True)
            dictionary = [vocabulary[index] for index in used]
        width = np.uint8 if len(dictionary) <= _NARROW else np.dtype("<u2")
        table.columns.add(
            field=field, dictionary=dictionary, indices=indices.astype(width).tobytes()
        )
    return table
