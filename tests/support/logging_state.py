"""Logging belongs to the whole process: put it back after a test that sets it up."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_NAMES = (
    "",
    "bentoml",
    "cipherscore",
    "uvicorn",
    "uvicorn.error",
    "uvicorn.access",
    "circus",
    "asyncio",
)


@contextmanager
def restored_logging() -> Iterator[None]:
    """Restore handlers, levels and propagation when the block ends."""
    loggers = [logging.getLogger(name) for name in _NAMES]
    before = [(each, list(each.handlers), each.level, each.propagate) for each in loggers]
    try:
        yield
    finally:
        for logger, handlers, level, propagate in before:
            logger.handlers[:] = handlers
            logger.setLevel(level)
            logger.propagate = propagate
