"""Where a request's computing happens: small work at once, big work beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

_Result = TypeVar("_Result")
_Item = TypeVar("_Item")

INLINE_ROWS = 64
"""Rows up to which scoring (well below a millisecond) is done on the event loop itself; handing
it to a thread and back would cost more than it."""

_THREADS = 2


class Workshop:
    """Two threads for big batches: one runs the model while another prepares or sends.

    A model run already uses the session's threads; more of these would only compete with it.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="scoring")

    async def run(self, rows: int, task: Callable[[], _Result]) -> _Result:
        """Return ``task()``; in a thread when the batch of ``rows`` rows is big."""
        if rows <= INLINE_ROWS:
            return task()
        return await asyncio.get_running_loop().run_in_executor(self._threads, task)

    async def iterate(self, rows: int, items: Iterator[_Item]) -> AsyncIterator[_Item]:
        """Yield ``items``, each made when it is asked for, as `run` would."""
        while True:
            # StopIteration cannot cross a thread's future; an empty list stands for it.
            found = await self.run(rows, lambda: list(islice(items, 1)))
            if not found:
                return
            yield found[0]

    def close(self) -> None:
        """Let running work end and take no more."""
        self._threads.shutdown(wait=False)
