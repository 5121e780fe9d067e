"""What every transport calls to have work done: scoring and generation, after admission."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from cipherscore.errors import CipherScoreError, DeadlinePassed
from serving.call import Call
from serving.generation import Chunk, GenerateOrder, Generator
from serving.reasons import Reasons
from serving.scorer import Scorer, Scores
from serving.tables import Payload, Table
from serving.work import INLINE_ROWS, Workshop

if TYPE_CHECKING:
    from serving.lineup import Lineup

Answer = Callable[["Scores | BaseException"], None]


class Comparison(Protocol):
    """Who is told how a shadow version answers beside the one that served."""

    def __call__(self, served: str, shadow: str, largest: float, changed: int, rows: int) -> None:
        """``largest`` difference of a probability and number of ``changed`` decisions in rows."""


class Dataplane:
    """Scores and generates with the versions that are live.

    Args:
        lineup: The live versions.
        workshop: Threads for work that would hold up the event loop.
        compared: Told about every answer of a shadow version.
    """

    def __init__(self, lineup: Lineup, workshop: Workshop, compared: Comparison) -> None:
        self._lineup = lineup
        self._workshop = workshop
        self._compared = compared

    def score(
        self,
        call: Call,
        table: Table,
        key_id: str | None,
        model: str,
        done: Answer,
        reasons: int = 0,
    ) -> None:
        """Score ``table``; ``done`` gets the answer, once, on the loop, perhaps at once.

        Args:
            call: The admitted request.
            table: Its rows.
            key_id: Key it names, None where the protocol has no place for one.
            model: Empty for the version in production, else a name or "name:version".
            done: Takes the answer or the error.
            reasons: How many reasons to give for each row, or `serving.reasons.ALL`.

        Raises:
            RequestError: The request is refused at once; ``done`` is then not called.
        """
        scorer = self._lineup.classifier(model, explained=reasons > 0)
        call.rows = table.rows
        call.model = scorer.model.tag
        shadows = self._lineup.shadows()
        if shadows:
            done = self._beside(shadows, call, table, key_id, done)
        if reasons > 0:
            done = self._ranking(reasons, done)
        self._begin(scorer, call, table, key_id, done, reasons)

    def _begin(
        self,
        scorer: Scorer,
        call: Call,
        table: Table,
        key_id: str | None,
        done: Answer,
        reasons: int = 0,
    ) -> None:
        rows = table.rows
        scorer.check(call, rows, reasons)
        submit = scorer.submit_explained if reasons else scorer.submit
        if rows <= INLINE_ROWS:
            submit(scorer.translate(key_id, table), rows, call, done)
            return
        translation = self._workshop.submit(scorer.translate, key_id, table)
        translation.add_done_callback(partial(_submit_translated, submit, rows, call, done))

    def _ranking(self, count: int, done: Answer) -> Answer:
        """Return ``done`` extended: of all contributions it gets the ``count`` largest of a row."""

        def rank(answer: Scores | BaseException) -> None:
            if isinstance(answer, BaseException) or answer.reasons is None:
                done(answer)
                return
            found = answer.reasons
            if len(found.contribution) <= INLINE_ROWS:
                done(replace(answer, reasons=found.largest(count)))
                return

            def ranked(ended: asyncio.Future[Reasons]) -> None:
                error = ended.exception()
                done(error or replace(answer, reasons=ended.result()))

            self._workshop.submit(found.largest, count).add_done_callback(ranked)

        return rank

    def _beside(
        self,
        shadows: tuple[Scorer, ...],
        call: Call,
        table: Table,
        key_id: str | None,
        done: Answer,
    ) -> Answer:
        """Return ``done`` extended: once the caller has its answer, the shadows are asked, too."""

        def then_ask(answer: Scores | BaseException) -> None:
            done(answer)
            if isinstance(answer, Scores):
                for shadow in shadows:
                    self._ask(shadow, call, table, key_id, answer)

        return then_ask

    def _ask(
        self, shadow: Scorer, call: Call, table: Table, key_id: str | None, served: Scores
    ) -> None:
        def compare(answer: Scores | BaseException) -> None:
            if isinstance(answer, Scores):
                largest = float(np.abs(answer.probability - served.probability).max())
                changed = int((answer.bad != served.bad).sum())
                self._compared(served.model, answer.model, largest, changed, table.rows)
            else:
                self._compared(served.model, shadow.model.tag, float("nan"), 0, table.rows)

        # A call of its own: the caller may be gone by now, and the shadow must not bill it.
        copy = Call(call.transport, call.method, call.client, call.started, call.deadline)
        try:
            self._begin(shadow, copy, table, key_id, compare)
        except CipherScoreError as error:
            compare(error)

    def start_generation(
        self, call: Call, order: GenerateOrder, model: str, limit: int | None = None
    ) -> tuple[int, AsyncIterator[Chunk], Generator]:
        """Check ``order``; return its seed, its rows chunk by chunk, and what makes them.

        Raises:
            RequestError: The order is refused.
        """
        generator = self._lineup.generator(model)
        call.rows = order.count
        call.model = generator.model.tag
        seed, chunks = generator.start(order, limit)

        async def paced() -> AsyncIterator[Chunk]:
            loop = asyncio.get_running_loop()
            async for chunk in self._workshop.iterate(order.count, chunks):
                yield chunk
                if loop.time() > call.deadline:
                    raise DeadlinePassed("the deadline passed while rows were made")

        return seed, paced(), generator


def _submit_translated(
    submit: Callable[[Payload, int, Call, Answer], None],
    rows: int,
    call: Call,
    done: Answer,
    ended: asyncio.Future[object],
) -> None:
    error = ended.exception()
    if error is not None:
        done(error)
    else:
        submit(ended.result(), rows, call, done)  # type: ignore[arg-type]
