"""The same as `cipherscore.client.sdk`, for asyncio."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sized
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from cipherscore.client.attribute_reasons import Wanted
from cipherscore.client.averaging import Draws
from cipherscore.client.disguise import Message
from cipherscore.client.incoming import ModelInfo, RowCollector, Score
from cipherscore.client.outgoing import generate_request
from cipherscore.client.session import IN_FLIGHT, Session
from cipherscore.client.transport import translate
from cipherscore.proto.v1 import cipherscore_pb2 as pb

if TYPE_CHECKING:
    from cipherscore.client.averaging import Read
    from cipherscore.client.session import Row, Rows

INLINE_RECORDS = 256
"""Up to this many records are encrypted on the event loop itself, in a few milliseconds."""


class AsyncClient(Session):
    """Client of one host for one event loop; otherwise as `cipherscore.client.sdk.Client`."""

    async def score(
        self, rows: Rows, *, reasons: int = 0, draws: int = 1, timeout: float | None = None
    ) -> list[Score]:
        """Return one score per row, in order; see `cipherscore.client.sdk.Client.score`."""
        wanted = Wanted(self._codec, rows, reasons)
        drawn = Draws(self._codec, wanted.rows, draws, wanted.asked)
        seconds, stub = self._deadline(timeout), self._connect(grpc.aio)
        if isinstance(wanted.rows, Sized) and len(wanted.rows) * draws <= INLINE_RECORDS:
            messages = drawn.messages(self._messages)
        else:
            messages = await asyncio.to_thread(drawn.messages, self._messages)
        try:
            scores = await self._score_many(stub, messages, seconds, drawn.read)
            return wanted.named(drawn.finish(scores))
        except grpc.RpcError as failure:
            raise translate(failure, self.address, seconds) from None

    async def _score_many(
        self, stub: Any, messages: list[Message], seconds: float, read: Read
    ) -> list[Score]:
        scores: list[Score] = []
        pending: deque[tuple[Message, Any]] = deque()
        try:
            for message in messages:
                call = stub.Score(message.request, timeout=seconds, metadata=self._metadata)
                pending.append((message, call))
                if len(pending) == IN_FLIGHT:
                    sent, call = pending.popleft()
                    scores += read(sent, await call)
            while pending:
                sent, call = pending.popleft()
                scores += read(sent, await call)
        finally:
            for _, call in pending:
                call.cancel()
        return scores

    async def generate(
        self,
        count: int,
        bad_credit: bool | None = None,
        seed: int | None = None,
        *,
        timeout: float | None = None,
    ) -> list[Row]:
        """Return ``count`` readable synthetic rows.

        See `cipherscore.client.sdk.Client.generate`.
        """
        seconds, stub = self._deadline(timeout), self._connect(grpc.aio)
        request = generate_request(self._codec, count, bad_credit, seed)
        rows = RowCollector(self._codec, count)
        call = stub.Generate(request, timeout=seconds, metadata=self._metadata)
        try:
            async for answer in call:
                rows.add(answer)
        except grpc.RpcError as failure:
            raise translate(failure, self.address, seconds) from None
        finally:
            call.cancel()
        return rows.finish()

    async def model(self, kind: str = "classifier", *, timeout: float | None = None) -> ModelInfo:
        """Return what the host says about a model; see `cipherscore.client.sdk.Client.model`."""
        seconds, stub = self._deadline(timeout), self._connect(grpc.aio)
        try:
            request = pb.GetModelRequest(kind=kind)
            answer = await stub.GetModel(request, timeout=seconds, metadata=self._metadata)
        except grpc.RpcError as failure:
            raise translate(failure, self.address, seconds) from None
        return ModelInfo.from_message(answer)

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self) -> AsyncClient:  # noqa: PYI034  (Self is 3.11's)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
