"""Work that would hold up the event loop: two threads beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_Item = TypeVar("_Item")

INLINE_ROWS = 2048
"""Rows up to which a request is decoded on the event loop itself (well below a millisecond)."""

_INLINE_GENERATED = 64
_THREADS = 2


class Workshop:
    """Two threads: one runs the model while another prepares or sends.

    A model run already uses the session's threads; more of these would only compete with it.
    """

    def __init__(self) -> None:
        self.executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="scoring")

    def submit(
        self,
        task: Callable[_Arguments, _Result],
        *arguments: _Arguments.args,
        **named: _Arguments.kwargs,
    ) -> asyncio.Future[_Result]:
        """Return the future of ``task(*arguments)``, done in a thread."""
        future = self.executor.submit(task, *arguments, **named)
        return asyncio.wrap_future(future)

    async def iterate(self, rows: int, items: Iterator[_Item]) -> AsyncIterator[_Item]:
        """Yield ``items``, each made when it is asked for, in a thread unless ``rows`` are few."""
        while True:
            # StopIteration cannot cross a thread's future; an empty list stands for it.
            if rows <= _INLINE_GENERATED:
                found = list(islice(items, 1))
            else:
                found = await self.submit(lambda: list(islice(items, 1)))
            if not found:
                return
            yield found[0]

    def close(self) -> None:
        """Let running work end and take no more."""
        self.executor.shutdown(wait=False)
