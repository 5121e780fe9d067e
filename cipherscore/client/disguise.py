"""Rows of a request in random order, among decoys: what the host sees is not what was asked.

A host sees with each request how many applicants it is about and in which order they stand.
`Disguise` takes both away: it adds rows of other applicants until the message has a round number of
rows, shuffles all of them, and knows where the real ones went.  docs/defences.md has what that is
worth against which attack: it hides how many rows are real and their order, not what they hold.

Orders and decoys are drawn from the operating system's randomness, so that nobody can foresee them.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from cipherscore.client.incoming import Score
from cipherscore.client.outgoing import rows_per_request, score_requests, token_column, token_rows
from cipherscore.client.records import RecordCodec
from cipherscore.client.wire import unpacked
from cipherscore.errors import ConfigurationError, EmptyBatch
from cipherscore.proto.v1 import cipherscore_pb2 as pb

logger = logging.getLogger(__name__)

_random = secrets.SystemRandom()


@dataclass(frozen=True)
class Message:
    """A request as it is sent.

    Args:
        request: For the host.
        places: Where in it each of the caller's rows stands; None where they stand as given.
    """

    request: pb.ScoreRequest
    places: Sequence[int] | None = None

    def in_order(self, scores: list[Score]) -> list[Score]:
        """Return the scores of the caller's rows, in the caller's order, without decoys."""
        return scores if self.places is None else [scores[place] for place in self.places]


class Disguise:
    """Hides order and number of the rows of a message.

    Args:
        codec: Encrypts; its homophones are drawn anew each time a decoy is sent.
        pad_to: Rows are added until their number is a multiple of this; 0 adds none.
        decoys: Raw rows to add, as for scoring.  A row is not sent again before all others were.

    Without ``pad_to`` the rows of a message are shuffled only.

    Raises:
        ConfigurationError: ``pad_to`` is negative, or came without decoys, or decoys without it.
        DataError: A decoy is wrong; a `RecordError` names the field and the row.
    """

    def __init__(self, codec: RecordCodec, pad_to: int = 0, decoys: Any = None) -> None:
        if pad_to < 0:
            raise ConfigurationError(f"pad_to must be 0 (no decoys) or more, not {pad_to}")
        if bool(pad_to) != (decoys is not None):
            raise ConfigurationError(
                "pad_to and decoys go together: give the rows that requests are to be padded with "
                "and the number of rows that they are padded to"
            )
        self.pad_to = pad_to
        self._codec = codec
        self._decoys = [] if decoys is None else _levels(codec, decoys)
        self._left: list[dict[str, str]] = []
        self._lock = Lock()
        self._begun = False

    def of(self, request: pb.ScoreRequest) -> Message:
        """Return ``request`` among decoys and shuffled."""
        rows = request.table.rows
        missing = -rows % self.pad_to if self.pad_to else 0
        added = [self._codec.encode_levels(self._next()) for _ in range(missing)]
        order = list(range(rows + missing))
        _random.shuffle(order)
        columns = []
        for column in request.table.columns:
            dictionary = column.dictionary
            indices = unpacked(column.indices, len(dictionary), rows)
            tokens = [dictionary[index] for index in indices]
            tokens += [decoy[column.field] for decoy in added]
            columns.append(token_column(column.field, [tokens[row] for row in order]))
        places = [0] * len(order)
        for place, row in enumerate(order):
            places[row] = place
        table = pb.TokenTable(rows=len(order), columns=columns)
        hidden = pb.ScoreRequest(key_id=request.key_id, table=table, reasons=request.reasons)
        return Message(hidden, places[:rows])

    def _next(self) -> dict[str, str]:
        """Return the levels of the next decoy."""
        with self._lock:
            if not self._left:
                if self._begun:
                    logger.warning(
                        "all %d decoys were sent and are sent again: a host that looks for equal "
                        "rows can tell them from real ones; give more",
                        len(self._decoys),
                    )
                self._begun = True
                self._left = _random.sample(self._decoys, len(self._decoys))
            return self._left.pop()


def disguise_of(
    codec: RecordCodec, batch_rows: int, pad_to: int, decoys: Any, *, shuffle: bool
) -> tuple[Disguise | None, int]:
    """Return the disguise that was asked for, if any, and how many rows a message has at most.

    Raises:
        ConfigurationError, DataError: See `Disguise`; also where ``pad_to`` rows are more than a
            message holds.
    """
    if not (pad_to or decoys is not None or shuffle):
        return None, batch_rows
    disguise = Disguise(codec, pad_to, decoys)
    if not pad_to:
        return disguise, batch_rows
    most = rows_per_request(codec, batch_rows)
    if pad_to > most:
        raise ConfigurationError(
            f"pad_to must be at most {most}, the rows that one message holds, not {pad_to}"
        )
    return disguise, most // pad_to * pad_to


def _levels(codec: RecordCodec, decoys: Any) -> list[dict[str, str]]:
    """Return the levels of raw rows, field by field."""
    try:
        requests = score_requests(codec, decoys, 1 << 16)
    except EmptyBatch:
        raise ConfigurationError(
            "there is no decoy; give rows to pad requests with, as many as will be sent"
        ) from None
    return [
        {name: codec.levels[name][token] for name, token in row.items()}
        for request in requests
        for row in token_rows(request.table)
    ]
