"""One micro-batcher per loaded classifier, shared by all transports.

What waits while a batch runs becomes the next batch; an idle server adds no wait, there is no
timer.  Requests that arrive in one turn of the event loop share a model run, or a few short ones;
a request larger than a batch takes several, and in between the small ones get their turn.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np

from cipherscore.errors import DeadlinePassed, Overloaded
from serving.call import Call
from serving.tables import Payload

INLINE_SECONDS = 0.001
"""Model runs expected to be shorter than this happen on the event loop itself: handing one to a
thread and back would cost a good part of it, and new requests wait for the batch anyway.  Small
requests are taken together only up to this: in a thread their run would compete with the reading of
requests that can only be refused, and more rows in a run make none of them cheaper by then."""

_TURN_SECONDS = 0.05
"""How long short runs may follow each other before the loop sees to its sockets."""

_SMOOTHING = 0.1
_TELLING_ROWS = 32
"""Rows of a run from which on its duration tells what a row costs; a smaller one's is mostly what
any run costs, and a big request judged by it would be refused on a server with time to spare."""


Done: TypeAlias = Callable[["np.ndarray | BaseException"], None]
"""Takes a request's answer, float32 [rows, ...] as the model gives it, or the error."""


class Watcher(Protocol):
    """Who is told about each model run."""

    def __call__(self, requests: int, rows: int, queue_seconds: float, run_seconds: float) -> None:
        """``queue_seconds`` is the mean wait of the requests whose first row is in this run."""


class Traced(Protocol):
    """Who is told about each model run before its requests are answered, where some are traced."""

    def __call__(
        self, calls: Sequence[Call], rows: int, queue_seconds: float, run_seconds: float
    ) -> None:
        """Take the calls that have rows in the run."""


@dataclass(slots=True, eq=False)
class _Entry:
    payload: Payload
    rows: int
    call: Call
    done: Done
    queued: float
    taken: int = 0
    answer: np.ndarray | None = None
    failed: bool = False


@dataclass(slots=True)
class _Batch:
    """Slices of entries that one model run answers; ``begun`` entries have their first row here."""

    rows: int = 0
    begun: int = 0
    waited: float = 0.0
    parts: list[tuple[_Entry, int, int]] = field(default_factory=list)


class Batcher:
    """Collects rows and runs the model on them.  Lives on one event loop.

    Args:
        run: The model: int32 [rows, fields] to float32 [rows] or [rows, ...].
        fields: Number of fields.
        seconds_per_row: First guess of the model's speed, as measured at warm-up.
        max_batch_rows: Rows of one run.
        max_queue_rows: Rows that may wait.
        max_queue_seconds: Expected wait from which on new work is refused.
        executor: Where long runs happen.
        watcher: Told about every run.
        traced: Told, too, if anything is traced.
    """

    def __init__(
        self,
        run: Callable[[np.ndarray], np.ndarray],
        fields: int,
        *,
        seconds_per_row: float,
        max_batch_rows: int,
        max_queue_rows: int,
        max_queue_seconds: float,
        executor: Executor,
        watcher: Watcher,
        traced: Traced | None = None,
    ) -> None:
        self._run = run
        self._fields = fields
        self._seconds_per_row = seconds_per_row
        self._max_batch_rows = max_batch_rows
        self._max_queue_rows = max_queue_rows
        self._max_queue_seconds = max_queue_seconds
        self._executor = executor
        self._watcher = watcher
        self._traced = traced
        self._waiting: deque[_Entry] = deque()
        self._waiting_rows = 0
        self._ahead = 0
        """Rows that are run before those of a request that comes now: of one larger than a batch
        only the next batch, for the rest of it goes behind."""
        self._running_rows = 0
        self._scheduled = False
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def waiting_rows(self) -> int:
        """Rows that wait for a model run."""
        return self._waiting_rows

    @property
    def busy(self) -> bool:
        """Whether anything runs or waits."""
        return self._waiting_rows > 0 or self._running_rows > 0

    @property
    def backlog(self) -> float:
        """Seconds until a request that came now would have its turn."""
        return (self._ahead + self._running_rows) * self._seconds_per_row

    def check(self, rows: int, call: Call, beside: Batcher | None = None) -> None:
        """Refuse work that would wait too long; cheap, so that it can come first.

        Args:
            rows: Rows of the request.
            call: The request.
            beside: Another batcher that takes turns with this one; what it has to do counts, too.

        Raises:
            Overloaded: Too many rows wait already, or they would take too long.
            DeadlinePassed: The call's deadline is over.
        """
        if beside is not None and not beside.busy:
            beside = None
        if not self._waiting_rows and not self._running_rows and beside is None:
            return
        wait, waiting = self.backlog, self._waiting_rows
        if beside is not None:
            wait += beside.backlog
            waiting += beside.waiting_rows
        if waiting and waiting + rows > self._max_queue_rows:
            raise Overloaded(
                f"{waiting} rows wait already, at most {self._max_queue_rows} may",
                retry_after=wait,
            )
        if wait > self._max_queue_seconds:
            raise Overloaded(
                f"this request would wait {wait:.2f} s, longer than {self._max_queue_seconds:g} s",
                retry_after=wait,
            )
        if time.monotonic() + wait > call.deadline:
            raise DeadlinePassed("the deadline would pass while the request waits")

    def submit(self, payload: Payload, rows: int, call: Call, done: Done) -> None:
        """Queue ``rows`` rows; ``done`` is called once, on the loop, unless the caller has gone."""
        self._waiting.append(_Entry(payload, rows, call, done, time.monotonic()))
        self._waiting_rows += rows
        self._ahead += min(rows, self._max_batch_rows)
        if not self._scheduled:
            self._scheduled = True
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
            # After all sockets of this turn were read: what they brought shares the batch.
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        """Run what waits: short runs one after the other for a while, or a long one in a thread."""
        now = time.monotonic()
        end = now + _TURN_SECONDS
        while True:
            batch = self._take(now)
            if not batch.parts:
                self._scheduled = False
                return
            self._running_rows = batch.rows
            indices = self._assemble(batch)
            if batch.rows * self._seconds_per_row > INLINE_SECONDS:
                self._run_beside(batch, indices)
                return
            self._finish(batch, *self._answer(indices))
            now = time.monotonic()
            if now > end:
                break
        self._go_on()

    def _go_on(self) -> None:
        """Run the next batch in the loop's next turn, if anything waits."""
        if self._waiting and self._loop is not None:
            self._loop.call_soon(self._next)
        else:
            self._scheduled = False

    def _answer(self, indices: np.ndarray) -> tuple[np.ndarray | BaseException, float]:
        """Return the model's answer, and how long it took."""
        started = time.monotonic()
        try:
            answer: np.ndarray | BaseException = self._run(indices)
        except Exception as error:  # noqa: BLE001 - handed to every caller
            answer = error
        return answer, time.monotonic() - started

    def _run_beside(self, batch: _Batch, indices: np.ndarray) -> None:
        """Run the model in a thread, which hands its answer to the loop."""
        loop = self._loop
        assert loop is not None

        def run() -> None:
            # Timed here: until the loop comes round may take long, and is not the model's cost.
            answer, took = self._answer(indices)
            with suppress(RuntimeError):  # the loop may be gone
                loop.call_soon_threadsafe(ended, answer, took)

        def ended(answer: np.ndarray | BaseException, took: float) -> None:
            self._finish(batch, answer, took)
            self._go_on()

        try:
            self._executor.submit(run)
        except RuntimeError as error:  # it was shut down
            ended(error, 0.0)

    def _take(self, now: float) -> _Batch:
        batch = _Batch()
        waiting, limit = self._waiting, self._max_batch_rows
        short = min(limit, int(INLINE_SECONDS / max(self._seconds_per_row, 1e-9)))
        while waiting:
            entry = waiting[0]
            left = entry.rows - entry.taken
            if entry.failed or entry.call.cancelled or now > entry.call.deadline:
                waiting.popleft()
                self._waiting_rows -= left
                self._ahead -= min(left, self._max_batch_rows)
                self._drop(entry)
                continue
            if not batch.rows and left <= short:
                limit = short
            if batch.rows and batch.rows + min(left, limit) > limit:
                break
            waiting.popleft()
            take = min(left, limit)
            self._waiting_rows -= take
            self._ahead -= min(left, self._max_batch_rows)
            if entry.taken == 0:
                batch.begun += 1
                batch.waited += now - entry.queued
            batch.parts.append((entry, entry.taken, entry.taken + take))
            batch.rows += take
            entry.taken += take
            if entry.taken < entry.rows:
                # The rest goes to the back, so that a huge request does not starve small ones.
                waiting.append(entry)
                self._ahead += min(left - take, self._max_batch_rows)
                break
        return batch

    @staticmethod
    def _drop(entry: _Entry) -> None:
        """Answer a request that is not to be computed any more."""
        if not entry.failed:
            entry.failed = True
            entry.done(DeadlinePassed("the deadline passed while the request waited"))

    def _assemble(self, batch: _Batch) -> np.ndarray:
        """Return int32 [rows, fields] of a batch's parts, without a copy where there is one."""
        if len(batch.parts) == 1:
            entry, start, stop = batch.parts[0]
            return self._matrix(entry.payload)[start:stop]
        payloads: list[Any] = [  # the arrays are bytes-like, which their stubs do not say
            entry.payload if stop - start == entry.rows else self._matrix(entry.payload)[start:stop]
            for entry, start, stop in batch.parts
        ]
        return self._matrix(b"".join(payloads))

    def _matrix(self, payload: Payload) -> np.ndarray:
        if isinstance(payload, np.ndarray):
            return payload
        return np.frombuffer(payload, dtype="<i4").reshape(-1, self._fields)

    def _finish(self, batch: _Batch, answer: np.ndarray | BaseException, took: float) -> None:
        self._running_rows = 0
        wait = batch.waited / batch.begun if batch.begun else 0.0
        if self._traced is not None:
            self._traced([entry.call for entry, _, _ in batch.parts], batch.rows, wait, took)
        if isinstance(answer, BaseException):
            for entry, _, _ in batch.parts:
                if not entry.failed:
                    entry.failed = True
                    entry.done(answer)
        else:
            if batch.rows >= _TELLING_ROWS:
                speed = took / batch.rows
                self._seconds_per_row += _SMOOTHING * (speed - self._seconds_per_row)
            self._deliver(batch, answer)
        self._watcher(len(batch.parts), batch.rows, wait, took)

    @staticmethod
    def _deliver(batch: _Batch, answer: np.ndarray) -> None:
        position = 0
        for entry, start, stop in batch.parts:
            following = position + stop - start
            part = answer[position:following]
            position = following
            if stop - start == entry.rows:
                entry.done(part)
                continue
            if entry.answer is None:
                entry.answer = np.empty((entry.rows, *answer.shape[1:]), dtype=np.float32)
            entry.answer[start:stop] = part
            if stop == entry.rows and not entry.failed:
                entry.done(entry.answer)
