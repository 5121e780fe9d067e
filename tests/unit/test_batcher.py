"""The micro-batcher: every row gets its own answer, whatever shares its run."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cipherscore.errors import DeadlinePassed, Overloaded
from serving.batcher import _TURN_SECONDS, INLINE_SECONDS, Batcher
from serving.call import Call

FIELDS = 3


class Model:
    """Answers with the first index of each row; counts its runs."""

    def __init__(self, wait: float = 0.0) -> None:
        self.sizes: list[int] = []
        self.threads: set[int] = set()
        self.wait = wait
        self.failure: Exception | None = None

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        self.threads.add(threading.get_ident())
        if self.wait:
            time.sleep(self.wait)
        if self.failure is not None:
            raise self.failure
        assert indices.dtype == np.int32
        assert indices.shape[1] == FIELDS
        self.sizes.append(len(indices))
        return indices[:, 0].astype(np.float32)


class Harness:
    """A batcher on a running loop."""

    def __init__(self, model: Model, executor: ThreadPoolExecutor, **limits: Any) -> None:
        chosen = {
            "seconds_per_row": 1e-6,
            "max_batch_rows": 64,
            "max_queue_rows": 10_000,
            "max_queue_seconds": 10.0,
            **limits,
        }
        self.runs: list[tuple[int, int]] = []
        self.seconds: list[float] = []

        def watch(requests: int, rows: int, _queue: float, seconds: float) -> None:
            self.runs.append((requests, rows))
            self.seconds.append(seconds)

        self.batcher = Batcher(
            model,
            FIELDS,
            executor=executor,
            watcher=watch,
            **chosen,
        )

    def ask(self, first: int, rows: int, *, packed: bool, call: Call | None = None):
        matrix = np.zeros((rows, FIELDS), dtype=np.int32)
        matrix[:, 0] = np.arange(first, first + rows)
        future = asyncio.get_running_loop().create_future()
        answers: list[object] = []

        def done(answer: np.ndarray | BaseException) -> None:
            answers.append(answer)
            assert len(answers) == 1, "answered twice"
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(np.array(answer))

        payload = matrix.tobytes() if packed else matrix
        self.batcher.submit(payload, rows, call or a_call(), done)
        return future


def a_call(deadline: float = math.inf) -> Call:
    return Call("grpc", "Score", "anonymous", time.monotonic(), deadline)


def run(main: Callable[[ThreadPoolExecutor], Coroutine[Any, Any, None]]) -> None:
    with ThreadPoolExecutor(2) as executor:
        asyncio.run(main(executor))


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 300), min_size=1, max_size=40),
    limit=st.sampled_from([1, 7, 64, 1024]),
    slow=st.booleans(),
    packed=st.booleans(),
)
def test_every_row_gets_its_own_answer(
    sizes: list[int], limit: int, slow: bool, packed: bool
) -> None:
    model = Model()

    async def main(executor: ThreadPoolExecutor) -> None:
        speed = 1.0 if slow else 1e-9
        harness = Harness(
            model, executor, max_batch_rows=limit, seconds_per_row=speed, max_queue_seconds=1e9
        )
        starts = np.cumsum([0, *sizes]).tolist()
        futures = [
            harness.ask(start, rows, packed=packed)
            for start, rows in zip(starts, sizes, strict=False)
        ]
        for start, rows, answer in zip(starts, sizes, await asyncio.gather(*futures), strict=False):
            assert answer.tolist() == list(range(start, start + rows))
        assert harness.batcher.waiting_rows == 0
        assert sum(rows for _, rows in harness.runs) == sum(sizes)

    run(main)
    assert max(model.sizes) <= limit


def test_what_arrives_in_one_turn_shares_a_run() -> None:
    model = Model()

    async def main(executor: ThreadPoolExecutor) -> None:
        harness = Harness(model, executor)
        await asyncio.gather(*[harness.ask(i, 1, packed=True) for i in range(10)])
        assert harness.runs == [(10, 10)]

    run(main)


def test_what_waits_while_a_batch_runs_is_the_next_batch() -> None:
    model = Model(wait=0.05)

    async def main(executor: ThreadPoolExecutor) -> None:
        harness = Harness(model, executor, seconds_per_row=2 * INLINE_SECONDS)
        first = harness.ask(0, 1, packed=True)
        await asyncio.sleep(0.01)
        rest = [harness.ask(i, 1, packed=True) for i in range(1, 6)]
        await asyncio.gather(first, *rest)
        assert harness.runs == [(1, 1), (5, 5)]

    run(main)
    assert threading.get_ident() not in model.threads


def test_a_short_run_happens_on_the_loop_itself() -> None:
    model = Model()

    async def main(executor: ThreadPoolExecutor) -> None:
        await Harness(model, executor).ask(0, 3, packed=False)

    run(main)
    assert model.threads == {threading.get_ident()}


def test_short_runs_follow_each_other_in_one_turn_of_the_loop() -> None:
    model = Model()

    async def main(executor: ThreadPoolExecutor) -> None:
        harness = Harness(model, executor, seconds_per_row=INLINE_SECONDS / 10)
        answers = [harness.ask(first, 4, packed=True) for first in range(6)]
        await asyncio.sleep(0)  # the turn in which the first run was scheduled
        await asyncio.sleep(0)
        assert all(answer.done() for answer in answers)

    run(main)
    # As many requests share a run as still make a short one, which needs no thread.
    assert model.sizes == [8, 8, 8]
    assert model.threads == {threading.get_ident()}


def test_the_time_until_the_loop_comes_round_is_not_the_models() -> None:
    model = Model()

    async def main(executor: ThreadPoolExecutor) -> None:
        harness = Harness(model, executor, seconds_per_row=1.0)
        answer = harness.ask(0, 64, packed=True)
        await asyncio.sleep(0)
        time.sleep(0.5)  # noqa: ASYNC251 - meanwhile the run in the thread has ended
        await answer
        assert harness.seconds[0] < 0.25

    run(main)


def test_a_huge_request_does_not_starve_a_small_one() -> None:
    model = Model(wait=1.1 * _TURN_SECONDS)  # so that each run is a turn of the loop

    async def main(executor: ThreadPoolExecutor) -> None:
        harness = Harness(model, executor, max_batch_rows=10)
        huge = harness.ask(0, 1000, packed=False)
        small = harness.ask(5000, 1, packed=True)
        assert (await small).tolist() == [5000.0]
        assert not huge.done()
        assert len(model.sizes) <= 3
        assert (await huge).tolist() == list(range(1000))

    run(main)


def test_work_nobody_waits_for_is_not_computed() -> None:
    model = Model()

    async def main(executor: ThreadPoolExecutor) -> None:
        harness = Harness(model, executor)
        gone, late = a_call(), a_call(deadline=time.monotonic() - 1)
        gone.cancelled = True
        first = harness.ask(0, 1, packed=True, call=gone)
        second = harness.ask(1, 1, packed=True, call=late)
        third = harness.ask(2, 1, packed=True)
        assert (await third).tolist() == [2.0]
        for future in (first, second):
            with pytest.raises(DeadlinePassed):
                await future

    run(main)
    assert model.sizes == [1]


def test_a_failing_model_fails_all_of_its_batch_and_only_that() -> None:
    model = Model()

    async def main(executor: ThreadPoolExecutor) -> None:
        harness = Harness(model, executor, max_batch_rows=4)
        model.failure = ValueError("broken")
        futures = [harness.ask(i, 1, packed=True) for i in range(3)]
        huge = harness.ask(0, 50, packed=False)
        for future in (*futures, huge):
            with pytest.raises(ValueError, match="broken"):
                await future
        model.failure = None
        assert (await harness.ask(9, 1, packed=True)).tolist() == [9.0]
        assert harness.batcher.waiting_rows == 0

    run(main)


def test_too_much_waiting_work_is_refused_with_a_time_to_come_back() -> None:
    model = Model(wait=0.02)

    async def main(executor: ThreadPoolExecutor) -> None:
        harness = Harness(model, executor, seconds_per_row=0.01, max_queue_rows=30)
        futures = [harness.ask(i, 10, packed=False) for i in range(0, 30, 10)]
        with pytest.raises(Overloaded) as caught:
            harness.batcher.check(1, a_call())
        assert caught.value.retry_after == pytest.approx(0.3)
        await asyncio.gather(*futures)
        harness.batcher.check(1, a_call())

    run(main)


def test_a_huge_request_does_not_have_small_ones_refused() -> None:
    """Between its batches they get their turn, so they do not wait for all of it."""
    model = Model(wait=0.001)

    async def main(executor: ThreadPoolExecutor) -> None:
        harness = Harness(
            model, executor, seconds_per_row=0.01, max_batch_rows=10, max_queue_seconds=0.25
        )
        huge = harness.ask(0, 1000, packed=False)
        harness.batcher.check(1, a_call())
        other = harness.ask(0, 1000, packed=False)
        harness.batcher.check(1, a_call())
        small = [harness.ask(i, 3, packed=False) for i in range(2)]
        with pytest.raises(Overloaded) as caught:
            harness.batcher.check(1, a_call())
        assert caught.value.retry_after == pytest.approx(0.26)
        await asyncio.gather(*small)
        assert not huge.done()
        await asyncio.gather(huge, other)
        harness.batcher.check(1, a_call())
        assert harness.batcher._ahead == 0

    run(main)


def test_an_expected_wait_beyond_the_limit_or_the_deadline_is_refused() -> None:
    model = Model(wait=0.02)

    async def main(executor: ThreadPoolExecutor) -> None:
        harness = Harness(model, executor, seconds_per_row=0.01, max_queue_seconds=0.2)
        future = harness.ask(0, 15, packed=False)
        harness.batcher.check(1, a_call())
        with pytest.raises(DeadlinePassed):
            harness.batcher.check(1, a_call(deadline=time.monotonic() + 0.1))
        more = harness.ask(0, 15, packed=False)
        with pytest.raises(Overloaded):
            harness.batcher.check(1, a_call())
        await asyncio.gather(future, more)

    run(main)


def test_an_idle_server_takes_a_request_larger_than_the_queue() -> None:
    model = Model()

    async def main(executor: ThreadPoolExecutor) -> None:
        harness = Harness(model, executor, max_queue_rows=5)
        harness.batcher.check(100, a_call())
        assert len(await harness.ask(0, 100, packed=False)) == 100

    run(main)
