"""The data owner's way to a host: raw records in, scores out; readable synthetic rows out.

::

    with Client("keyset.json", "schema.toml", "127.0.0.1:50051", passphrase=secret) as client:
        scores = client.score([{"duration": 6, ...}])
        rows = client.generate(10, bad_credit=False)

Values are encrypted before they leave and decrypted after they come back, in this process.  Needs
neither numpy nor pyarrow, except to score tables.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import grpc

from cipherscore.client.async_sdk import AsyncClient
from cipherscore.client.attribute_reasons import Wanted
from cipherscore.client.averaging import Draws
from cipherscore.client.disguise import Message
from cipherscore.client.incoming import ModelInfo, RowCollector, Score
from cipherscore.client.outgoing import generate_request
from cipherscore.client.reasons import Reason
from cipherscore.client.session import IN_FLIGHT, Session
from cipherscore.client.transport import Tls, translate
from cipherscore.proto.v1 import cipherscore_pb2 as pb

if TYPE_CHECKING:
    from cipherscore.client.averaging import Read
    from cipherscore.client.session import Row, Rows

__all__ = ["AsyncClient", "Client", "ModelInfo", "Reason", "Score", "Tls"]


class Client(Session):
    """Blocking client of one host.  Safe to share between threads, not across a fork."""

    def score(
        self, rows: Rows, *, reasons: int = 0, draws: int = 1, timeout: float | None = None
    ) -> list[Score]:
        """Return one score per row, in order.

        All rows are checked and encrypted before the first is sent.  Fields are those of the
        schema; the target may be present and is ignored.

        Args:
            rows: Raw records, or a pandas DataFrame or Arrow table (needs cipherscore[tables]).
            reasons: How many reasons to have for each row: the fields that contribute most towards
                bad credit, with what the applicant has there.  At most the number of fields.  Of a
                schema with scorecards: the attributes, at most their number.
            draws: With a smoothed schema, how often to draw the homophones of each row anew, 1 to
                64: as many rows are sent, in a random order.  The answer's probability is of the
                mean log-odds, the decision by the model's threshold, and reasons are means by
                field.
            timeout: Deadline of each message in seconds, instead of the client's.

        Raises:
            ConfigurationError: There cannot be as many reasons, or as many draws.
            DataError: A row is wrong; a `RecordError` names the field and the row.
            RequestError: The host refuses the request; `EmptyBatch` also if there is no row, and
                `Unsupported` where the model has no reason codes.
            ServiceError: The host is away, too slow, or answers nonsense.
        """
        seconds, stub = self._deadline(timeout), self._connect(grpc)
        wanted = Wanted(self._codec, rows, reasons)
        drawn = Draws(self._codec, wanted.rows, draws, wanted.asked)
        messages = drawn.messages(self._messages)
        try:
            if len(messages) == 1:  # a future would cost a thread hand-off
                message = messages[0]
                answer = stub.Score(message.request, timeout=seconds, metadata=self._metadata)
                return wanted.named(drawn.finish(drawn.read(message, answer)))
            scores = self._score_many(stub, messages, seconds, drawn.read)
            return wanted.named(drawn.finish(scores))
        except grpc.RpcError as failure:
            raise translate(failure, self.address, seconds) from None

    def _score_many(
        self, stub: Any, messages: list[Message], seconds: float, read: Read
    ) -> list[Score]:
        scores: list[Score] = []
        pending: deque[tuple[Message, Any]] = deque()
        try:
            for message in messages:
                call = stub.Score.future(message.request, timeout=seconds, metadata=self._metadata)
                pending.append((message, call))
                if len(pending) == IN_FLIGHT:
                    sent, call = pending.popleft()
                    scores += read(sent, call.result())
            while pending:
                sent, call = pending.popleft()
                scores += read(sent, call.result())
        finally:
            for _, call in pending:
                call.cancel()
        return scores

    def generate(
        self,
        count: int,
        bad_credit: bool | None = None,
        seed: int | None = None,
        *,
        timeout: float | None = None,
    ) -> list[Row]:
        """Return ``count`` synthetic rows, decrypted: field -> level, None where absent.

        A level is a category code or a bin such as ``"[21, 38)"``.  The class stands under the
        target's name, as the schema writes it.

        Args:
            count: Number of rows.
            bad_credit: Class of all rows; None draws each row's at the training prevalence.
            seed: 0 to 2**64 - 1; the same seed, count and model give the same rows.
            timeout: Deadline of the whole answer in seconds, instead of the client's.

        Raises:
            DecryptionError: The host sent a token that is not authentic.
            RequestError: The host refuses the request.
            ServiceError: The host is away, too slow, or answers nonsense.
        """
        seconds, stub = self._deadline(timeout), self._connect(grpc)
        request = generate_request(self._codec, count, bad_credit, seed)
        rows = RowCollector(self._codec, count)
        call = stub.Generate(request, timeout=seconds, metadata=self._metadata)
        try:
            for answer in call:
                rows.add(answer)
        except grpc.RpcError as failure:
            raise translate(failure, self.address, seconds) from None
        finally:
            call.cancel()
        return rows.finish()

    def model(self, kind: str = "classifier", *, timeout: float | None = None) -> ModelInfo:
        """Return what the host says about its ``classifier`` or ``generator``.

        Raises:
            RequestError: The host serves no such model.
            ServiceError: The host is away or too slow.
        """
        seconds, stub = self._deadline(timeout), self._connect(grpc)
        try:
            request = pb.GetModelRequest(kind=kind)
            answer = stub.GetModel(request, timeout=seconds, metadata=self._metadata)
        except grpc.RpcError as failure:
            raise translate(failure, self.address, seconds) from None
        return ModelInfo.from_message(answer)

    def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        self._closed = True
        if self._channel is not None:
            self._channel.close()

    def __enter__(self) -> Client:  # noqa: PYI034  (Self is 3.11's)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
