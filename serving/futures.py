"""From callbacks to futures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

_Answer = TypeVar("_Answer")


def settle(future: asyncio.Future[_Answer]) -> Callable[[_Answer | BaseException], None]:
    """Return a callback that ends ``future`` with its answer or error, if anybody still waits."""

    def settled(answer: _Answer | BaseException) -> None:
        if future.done():
            return
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    return settled
