"""Clients that ask one question after the other and look at every answer."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import json
import queue
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import grpc

from benchmarks.endurance.questions import Question, Questions
from cipherscore.proto.v1 import cipherscore_pb2 as pb

REQUEST_ID = "x-request-id"
_SERVICE = "/cipherscore.v1.CipherScore/"
GENERATE = f"{_SERVICE}Generate"
_TIMEOUT = 30.0
_RETRY = {
    "maxAttempts": 5,
    "initialBackoff": "0.05s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_CHANNEL = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_receive_message_length", -1),
)


@dataclass(frozen=True)
class Failure:
    """A request without a right answer.

    Attributes:
        client: Kind of the client.
        request_id: What the server's log calls it.
        begun: `time.monotonic` before it was sent.
        ended: The same after it failed.
        status: What the client was told: the gRPC status, ``http-503``, ``refused``, ``closed``,
            or ``wrong`` for an answer that is not the right one.
        code: The server's own word for it, else the client's.
    """

    client: str
    request_id: str
    begun: float
    ended: float
    status: str
    code: str = ""


@dataclass
class Ledger:
    """What came back to all clients."""

    right: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    times: dict[str, list[float]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, client: str, failure: Failure | None, seconds: float) -> None:
        """Take one outcome."""
        with self.lock:
            if failure is not None:
                self.failures.append(failure)
            else:
                self.right[client] += 1
                self.times.setdefault(client, []).append(seconds)

    def take_times(self) -> dict[str, list[float]]:
        """Return the seconds of right answers since this was last called."""
        with self.lock:
            found, self.times = self.times, {}
            return found

    def wrong(self) -> list[Failure]:
        """Return answers that were not the right ones."""
        with self.lock:
            return [failure for failure in self.failures if failure.status == "wrong"]

    def kinds(self) -> dict[str, int]:
        """Return how often which client failed in which way."""
        with self.lock:
            return dict(Counter(f"{f.client}: {f.status} {f.code}".strip() for f in self.failures))


class RefusedError(Exception):
    """A request failed; ``status`` and ``code`` are those of `Failure`."""

    def __init__(self, status: str, code: str = "") -> None:
        super().__init__(f"{status} {code}")
        self.status, self.code = status, code


class Connection(Protocol):
    """Asks over one connection."""

    def ask(self, question: Question, request_id: str) -> bool:
        """Return whether the answer is right.

        Raises:
            RefusedError: There is none.
        """

    def close(self) -> None:
        """End it."""


class Scoring:
    """``Score`` by grpcio.

    Args:
        port: Where the server listens.
        retry: Whether the client asks again where it is told UNAVAILABLE.
    """

    def __init__(self, port: int, *, retry: bool = False) -> None:
        self._channel = channel(port, retry=retry)
        self._call = self._channel.unary_unary(f"{_SERVICE}Score")

    def ask(self, question: Question, request_id: str) -> bool:
        """See `Connection`."""
        try:
            answer = self._call(
                question.columnar, timeout=_TIMEOUT, metadata=((REQUEST_ID, request_id),)
            )
        except grpc.RpcError as error:
            raise refusal(error) from error
        return question.answered_by(pb.ScoreResponse.FromString(answer).probability)

    def close(self) -> None:
        """See `Connection`."""
        self._channel.close()


class Streaming:
    """``ScoreStream`` by grpcio: each request waits for the answer to the one before."""

    def __init__(self, port: int, request_id: str = "") -> None:
        self._channel = channel(port)
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        call = self._channel.stream_stream(f"{_SERVICE}ScoreStream")
        metadata = ((REQUEST_ID, request_id),) if request_id else ()
        self._answers = call(iter(self._requests.get, None), metadata=metadata)

    def ask(self, question: Question, request_id: str) -> bool:
        """See `Connection`; the stream has an id of its own."""
        del request_id
        self._requests.put(question.columnar)
        try:
            answer = next(self._answers)
        except StopIteration:
            raise RefusedError("ended") from None
        except grpc.RpcError as error:
            raise refusal(error) from error
        return question.answered_by(pb.ScoreResponse.FromString(answer).probability)

    def close(self) -> None:
        """See `Connection`; the server sees an orderly end."""
        self._requests.put(None)
        try:
            for _ in self._answers:
                pass
        except grpc.RpcError:
            pass
        self._channel.close()


class Json:
    """``POST /v1/score`` over HTTP/1.1."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)

    def ask(self, question: Question, request_id: str) -> bool:
        """See `Connection`."""
        headers = {"content-type": "application/json", REQUEST_ID: request_id}
        try:
            self._connection.request("POST", "/v1/score", question.json, headers)
            answer = self._connection.getresponse()
            content = answer.read()
        except ConnectionRefusedError:
            raise RefusedError("refused") from None
        except TimeoutError:
            raise RefusedError("timeout") from None
        except (OSError, http.client.HTTPException) as error:
            raise RefusedError("closed", type(error).__name__) from error
        if answer.status != 200:
            raise RefusedError(f"http-{answer.status}", _problem(content))
        results = json.loads(content)["results"]
        return question.answered_by([result["probability"] for result in results])

    def close(self) -> None:
        """See `Connection`."""
        self._connection.close()


class Generating:
    """``Generate`` with a seed by grpcio: every time the same rows must come.

    Args:
        port: Where the server listens.
        questions: Has the request.
        digests: What came so far, shared by all connections.
    """

    def __init__(self, port: int, questions: Questions, digests: set[str]) -> None:
        self._channel = channel(port)
        self._questions = questions
        self._digests = digests
        self._call = self._channel.unary_stream(GENERATE)

    def ask(self, question: Question, request_id: str) -> bool:
        """See `Connection`; the question does not matter."""
        del question
        made, sums = 0, hashlib.sha256()
        try:
            chunks = self._call(
                self._questions.generate, timeout=10 * _TIMEOUT,
                metadata=((REQUEST_ID, request_id),),
            )  # fmt: skip
            for content in chunks:
                chunk = pb.GenerateResponse.FromString(content)
                made += chunk.table.rows
                for column in chunk.table.columns:
                    sums.update(column.indices)
        except grpc.RpcError as error:
            raise refusal(error) from error
        if made != self._questions.generated:
            return False
        self._digests.add(sums.hexdigest())
        return len(self._digests) == 1

    def close(self) -> None:
        """See `Connection`."""
        self._channel.close()


@dataclass(frozen=True)
class Client:
    """One client.

    Attributes:
        kind: Name in the ledger.
        connect: Opens a connection.
        questions: What it asks, in turn.
        pause: Seconds between an answer and the next question.
        fresh: Questions after which it connects anew; 0: never.
    """

    kind: str
    connect: Callable[[], Connection]
    questions: Sequence[Question]
    pause: float = 0.0
    fresh: int = 0

    def run(self, ledger: Ledger, stop: threading.Event) -> None:
        """Ask until ``stop`` is set."""
        connection: Connection | None = None
        asked = 0
        for question in itertools.cycle(self.questions):
            if stop.is_set():
                break
            if connection is None:
                connection, asked = self.connect(), 0
            request_id = uuid.uuid4().hex
            begun = time.monotonic()
            failure: Failure | None = None
            try:
                if not connection.ask(question, request_id):
                    failure = Failure(self.kind, request_id, begun, time.monotonic(), "wrong")
            except RefusedError as error:
                failure = Failure(
                    self.kind, request_id, begun, time.monotonic(), error.status, error.code
                )
            ended = time.monotonic()
            ledger.note(self.kind, failure, ended - begun)
            asked += 1
            if failure is not None or asked == self.fresh:
                connection.close()
                connection = None
            if failure is not None and ended - begun < 0.01:
                stop.wait(0.01)  # nobody listens: do not spin
            if self.pause:
                stop.wait(self.pause)
        if connection is not None:
            connection.close()


@contextmanager
def traffic(clients: Sequence[Client]) -> Iterator[Ledger]:
    """Run clients until the block ends."""
    ledger, stop = Ledger(), threading.Event()
    threads = [
        threading.Thread(target=client.run, args=(ledger, stop), name=client.kind)
        for client in clients
    ]
    for thread in threads:
        thread.start()
    try:
        yield ledger
    finally:
        stop.set()
        for thread in threads:
            thread.join(2 * _TIMEOUT)


def channel(port: int, *, retry: bool = False) -> grpc.Channel:
    """Return a channel with a connection of its own."""
    options = list(_CHANNEL)
    if retry:
        config = {"methodConfig": [{"name": [{}], "retryPolicy": _RETRY}]}
        options.append(("grpc.service_config", json.dumps(config)))
    return grpc.insecure_channel(f"127.0.0.1:{port}", options)


def refusal(error: grpc.RpcError) -> RefusedError:
    """Return what a gRPC client was told."""
    metadata = dict(error.trailing_metadata() or ())
    told = metadata.get("cipherscore-error-code") or error.details() or ""
    return RefusedError(error.code().name, str(told))


def _problem(content: bytes) -> str:
    try:
        return str(json.loads(content)["code"])
    except (ValueError, KeyError, TypeError):
        return ""
