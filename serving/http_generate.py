"""``POST /v1/generate``: synthetic rows as one JSON document, or streamed line by line."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from pydantic_core import to_json

from cipherscore.errors import DeadlinePassed, RequestError
from serving.call import Call
from serving.dataplane import Dataplane
from serving.generation import Chunk, Generator
from serving.http_message import Disconnected, Exchange, problem_bytes, problem_of
from serving.http_parse import parse_generate
from serving.http_rows import RowWriter, class_names, lines
from serving.settings import Settings

LINES = "application/x-ndjson"
MODEL_HEADER, SEED_HEADER = "cipherscore-model", "cipherscore-seed"
_MAX_WRITERS = 8


class GenerateRoute:
    """Answers generate requests.

    Args:
        dataplane: Makes the rows.
        settings: Limits.
    """

    def __init__(self, dataplane: Dataplane, settings: Settings) -> None:
        self._dataplane = dataplane
        self._max_bytes = settings.max_message_bytes
        self._max_rows = settings.max_rows
        self._max_json_rows = settings.max_generated_json_rows
        self._writers: dict[str, RowWriter] = {}

    async def run(self, call: Call, exchange: Exchange) -> None:
        """Answer one request."""
        exchange.check_json()
        order, model = parse_generate(await exchange.body(self._max_bytes), self._max_rows)
        streamed = _wants_lines(exchange.headers.get("accept", ""))
        limit = None if streamed else self._max_json_rows
        seed, chunks, generator = self._dataplane.start_generation(call, order, model, limit)
        answer = _stream if streamed else _document
        exchange.watch(call)
        try:
            await answer(call, exchange, _slices(call, chunks, self._writer(generator)), seed)
        finally:
            exchange.unwatch()

    def _writer(self, generator: Generator) -> RowWriter:
        tag = generator.model.tag
        writer = self._writers.get(tag)
        if writer is None:
            if len(self._writers) >= _MAX_WRITERS:
                self._writers.clear()
            writer = self._writers[tag] = RowWriter(generator.model.vocabulary)
        return writer


_Slices = AsyncIterator[tuple[list[bytes], list[bytes]]]


async def _slices(call: Call, chunks: AsyncIterator[Chunk], writer: RowWriter) -> _Slices:
    """Yield records and credit classes as JSON texts, few at a time.

    Raises:
        Disconnected: The client has gone.
        DeadlinePassed: It takes the rows too slowly.
    """
    async for chunk in chunks:
        classes = class_names(chunk.credit_class)
        start = 0
        for records in writer.records(chunk):
            yield records, classes[start : start + len(records)]
            start += len(records)
            await asyncio.sleep(0)  # others have their turn
            if call.cancelled:
                raise Disconnected
            if time.monotonic() > call.deadline:
                raise DeadlinePassed("the deadline passed while rows were sent")


async def _document(call: Call, exchange: Exchange, slices: _Slices, seed: int) -> None:
    """Answer with all rows at once."""
    records, classes = [], []
    async for some, their_classes in slices:
        records += some
        classes += their_classes
    content = b'{"records":[%s],"credit_classes":[%s],"model":%s,"seed":%d}' % (
        b",".join(records), b",".join(classes), to_json(call.model), seed,
    )  # fmt: skip
    await exchange.answer(200, content)


async def _stream(call: Call, exchange: Exchange, slices: _Slices, seed: int) -> None:
    """Answer line by line, as fast as the client reads.

    A failure in the middle shows as a last line that is a problem, and as an answer without end.
    """
    started = False
    try:
        async for records, classes in slices:
            if not started:
                started = True
                headers = {MODEL_HEADER: call.model, SEED_HEADER: str(seed)}
                await exchange.begin(LINES, headers)
            await exchange.part(lines(records, classes))
    except RequestError as error:
        if started:
            await exchange.part(problem_bytes(problem_of(error)) + b"\n")
        raise
    await exchange.part(b"", last=True)


def _wants_lines(accept: str) -> bool:
    """Return whether an ``accept`` header asks for newline-delimited JSON."""
    for part in accept.split(","):
        kind, *parameters = part.replace(" ", "").lower().split(";")
        if kind == LINES:
            return not any(p in {"q=0", "q=0.0", "q=0.00", "q=0.000"} for p in parameters)
    return False
