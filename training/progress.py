"""How a running training tells its caller where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Progress(Protocol):
    """Called by a trainer after each part of its work; the caller draws the bar."""

    def __call__(self, done: int, total: int, figures: Mapping[str, float]) -> None:
        """Take one report.

        Args:
            done: Steps finished.
            total: Steps of the whole training; it may stop earlier.
            figures: Named figures of the moment, such as ``loss`` and ``auc``.
        """


def silent(done: int, total: int, figures: Mapping[str, float]) -> None:
    """Report nothing."""
