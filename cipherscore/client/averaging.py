"""Several draws of each record in one call: a smoothed schema's homophones averaged out.

Each draw of a record has a fresh nonce, so other tokens, and a model that has not fully learnt that
homophones mean the same gives it another probability.  The mean of the draws' log-odds moves less.
The host is sent ``draws`` times as many rows, in an order that only this process knows.  Needs
neither numpy nor pyarrow, except for tables.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cipherscore.client.incoming import Score, read_scores
from cipherscore.client.outgoing import as_arrow
from cipherscore.client.reasons import Reason, check_count
from cipherscore.client.wire import malformed
from cipherscore.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from cipherscore.client.disguise import Message
    from cipherscore.client.records import RecordCodec
    from cipherscore.proto.v1 import cipherscore_pb2 as pb
    from cipherscore.schema import Schema

    Read = Callable[[Message, pb.ScoreResponse], list[Score]]
    """Reads the scores of one message's rows from the host's answer."""

MAX_DRAWS = 64
_TINY = 1e-7
"""Probabilities are this far from 0 and 1 before they become log-odds."""


class Draws:
    """One call's rows, each drawn several times, and what the host answers about them.

    Args:
        codec: Encrypts.
        rows: As in `cipherscore.client.sdk.Client.score`.
        draws: Of each row, 1 to `MAX_DRAWS`; with 1 rows are sent as they are.
        reasons: How many reasons the caller wants for each row.

    Raises:
        ConfigurationError: There cannot be as many draws or reasons, or more than one draw is asked
            for and no level has homophones, so that draws would be equal.
        DataError: ``rows`` is nothing that has rows.
    """

    def __init__(self, codec: RecordCodec, rows: Any, draws: int, reasons: int) -> None:
        check_draws(codec.schema, draws)
        self._codec = codec
        self._draws = draws
        self._wanted = check_count(codec, reasons)
        self._thresholds: set[float] = set()
        self._order: list[int] = []
        self._rows = rows if draws == 1 else _several_times_readable(rows)

    def messages(self, make: Callable[[Any, int], list[Message]]) -> list[Message]:
        """Return the messages of all draws, which ``make`` makes of rows and a number of reasons.

        Raises:
            DataError, EmptyBatch: As ``make`` says; rows count as the caller counts them.
        """
        if self._draws == 1:
            return make(self._rows, self._wanted)
        # Means by field need all fields of every draw.
        reasons = len(self._codec.tokens) if self._wanted else 0
        try:
            return make(self._repeated(), reasons)
        except DataError:
            make(self._rows, 0)
            raise

    def read(self, message: Message, answer: pb.ScoreResponse) -> list[Score]:
        """Return the scores of one message's rows, in their order; see `read_scores`."""
        self._thresholds.add(answer.threshold)
        return message.in_order(read_scores(self._codec, message.request, answer))

    def finish(self, scores: list[Score]) -> list[Score]:
        """Return one score per row, in the caller's order, from those of all requests in theirs.

        Raises:
            ServiceError: The host changed its model in between, or names no threshold.
        """
        if self._draws == 1:
            return scores
        if len({score.model for score in scores}) > 1 or len(self._thresholds) > 1:
            raise malformed("draws of one row were answered by several models; ask again")
        (threshold,) = self._thresholds
        if not math.isfinite(threshold):
            raise malformed("its threshold is no number")
        drawn: list[list[Score]] = [[] for _ in range(len(self._order) // self._draws)]
        for row, score in zip(self._order, scores, strict=True):
            drawn[row].append(score)
        return [_mean(same, threshold, self._wanted) for same in drawn]

    def _repeated(self) -> Any:
        """Return every row ``draws`` times, in a random order, which is kept."""
        rows = self._rows
        self._order = self._shuffled(len(rows))
        if isinstance(rows, Sequence):
            return [rows[row] for row in self._order]
        return rows.take(self._order) if self._order else rows

    def _shuffled(self, rows: int) -> list[int]:
        order = list(range(rows)) * self._draws
        secrets.SystemRandom().shuffle(order)
        return order


def check_draws(schema: Schema, draws: int) -> int:
    """Return how often to draw each row.

    Raises:
        ConfigurationError: As of `Draws`.
    """
    if draws not in range(1, MAX_DRAWS + 1):
        raise ConfigurationError(f"draws must be 1 to {MAX_DRAWS}, not {draws!r}")
    if draws > 1 and not schema.smoothed:
        raise ConfigurationError(
            f"schema {schema.name!r} gives no level several tokens, so that {draws} draws of "
            "a row would be equal; take one draw, or a schema with [smoothing]"
        )
    return draws


def _several_times_readable(rows: Any) -> Any:
    """Return ``rows`` as a sequence of records or an Arrow table or batch."""
    table = as_arrow(rows)
    if table is not None:
        return table
    if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable):
        raise DataError("give a list of records, a DataFrame or an Arrow table")
    return rows if isinstance(rows, Sequence) else list(rows)


def _mean(scores: Sequence[Score], threshold: float, reasons: int) -> Score:
    """Return the score of one row: mean log-odds, and with them probability and decision."""
    odds = math.fsum(_log_odds(score.probability) for score in scores) / len(scores)
    probability = 1 / (1 + math.exp(-odds))
    named: dict[str, list[Reason]] = {}
    for score in scores:
        for reason in score.reasons:
            named.setdefault(reason.field, []).append(reason)
    means = [
        replace(same[0], contribution=math.fsum(one.contribution for one in same) / len(same))
        for same in named.values()
    ]
    means.sort(key=lambda reason: -reason.contribution)
    return replace(
        scores[0],
        probability=probability,
        decision="bad" if probability >= threshold else "good",
        reasons=tuple(means[:reasons]),
    )


def _log_odds(probability: float) -> float:
    held = min(max(probability, _TINY), 1 - _TINY)
    return math.log(held / (1 - held))
