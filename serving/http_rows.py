"""Rows in JSON: the shortest way from tokens as text to indices, and from answers to bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from pydantic_core import to_json

from cipherscore.tokens import to_text
from cipherscore.vocabulary import Vocabulary
from serving.generation import Chunk
from serving.http_parse import check_records
from serving.reasons import Reasons
from serving.scorer import Scores
from serving.tables import Payload, RecordTable

SLICE_ROWS = 512
"""Generated rows that are written at once, so that the event loop is not held for long."""

_DECISIONS = (b',"decision":"good"', b',"decision":"bad"')
_ENDS = tuple(decision + b"}" for decision in _DECISIONS)
_NAMES = (b'"good"', b'"bad"')


class TextTable(RecordTable):
    """Records as JSON gave them, unchecked; their tokens are looked up by their text."""

    def __init__(self, records: list[Any]) -> None:
        super().__init__(records)

    def indices(self, vocabulary: Vocabulary) -> Payload:
        """See `Table`."""
        known = vocabulary.packed_text
        columns = tuple(known.items())
        width = len(columns)
        try:
            packed = [
                tokens[record[field]] for record in self._records for field, tokens in columns
            ]
        except (KeyError, TypeError):
            # Something is missing, unknown or of another form: the slow way tells what.
            return self._decoded(vocabulary)
        for record in self._records:
            if len(record) != width:
                return self._decoded(vocabulary)
        return b"".join(packed)

    def _decoded(self, vocabulary: Vocabulary) -> Payload:
        check_records(self._records)
        return super().indices(vocabulary)


class ScoreWriter:
    """Writes answers to scoring requests.  Lives as long as the server."""

    def __init__(self) -> None:
        self._tails: dict[tuple[str, float], bytes] = {}

    def write(self, scores: Scores) -> bytes:
        """Return the JSON body; each probability is written with all its digits."""
        key = (scores.model, scores.threshold)
        tail = self._tails.get(key)
        if tail is None:
            if len(self._tails) > 1_000:  # versions come and go; this must not grow for ever
                self._tails.clear()
            tail = b'],"model":%s,"threshold":%r}' % (to_json(scores.model), scores.threshold)
            self._tails[key] = tail
        if scores.reasons is not None:
            base = b',"base":%r}' % scores.reasons.base
            explained = b",".join(_explained(scores, scores.reasons))
            return b'{"results":[%s%s%s' % (explained, tail[:-1], base)
        rows = [
            b'{"probability":%r%s' % (probability, _ENDS[bad])
            for probability, bad in zip(
                scores.probability.tolist(), scores.bad.tolist(), strict=True
            )
        ]
        return b'{"results":[%s%s' % (b",".join(rows), tail)


def _explained(scores: Scores, reasons: Reasons) -> Iterator[bytes]:
    """Yield answers with their reasons as JSON objects."""
    assert reasons.indices is not None
    heads = [b'{"field":%s,"contribution":' % to_json(field) for field in reasons.fields]
    # One list of numbers is written several times as fast as many numbers are.
    numbers = to_json(reasons.contribution.ravel().tolist())[1:-1].split(b",")
    places = reasons.indices.ravel().tolist()
    entries = [heads[place] + number for place, number in zip(places, numbers, strict=True)]
    count = reasons.indices.shape[1]
    rows = zip(scores.probability.tolist(), scores.bad.tolist(), strict=True)
    for row, (probability, bad) in enumerate(rows):
        own = b"},".join(entries[row * count : (row + 1) * count])
        yield b'{"probability":%r%s,"reasons":[%s}]}' % (probability, _DECISIONS[bad], own)


class RowWriter:
    """Writes generated rows.

    Args:
        vocabulary: Of the generator.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        last = len(vocabulary.fields) - 1
        self._columns = [
            [
                b'%s%s:"%s"%s'
                % (
                    b"{" if position == 0 else b"",
                    to_json(field),
                    to_text(token).encode(),
                    b"}" if position == last else b"",
                )
                for token in tokens
            ]
            for position, (field, tokens) in enumerate(vocabulary.tokens.items())
        ]

    def records(self, chunk: Chunk) -> Iterator[list[bytes]]:
        """Yield the rows as JSON objects, at most `SLICE_ROWS` at a time."""
        for start in range(0, len(chunk.indices), SLICE_ROWS):
            rows = chunk.indices[start : start + SLICE_ROWS]
            cells = [
                [texts[index] for index in rows[:, position].tolist()]
                for position, texts in enumerate(self._columns)
            ]
            yield [b",".join(row) for row in zip(*cells, strict=True)]


def class_names(classes: np.ndarray) -> list[bytes]:
    """Return JSON texts of credit classes, int [rows]."""
    return [_NAMES[index] for index in classes.tolist()]


def lines(records: list[bytes], classes: list[bytes]) -> bytes:
    """Return newline-delimited JSON, one line per row."""
    return b"".join(
        b'{"credit_class":%s,"record":%s}\n' % pair for pair in zip(classes, records, strict=True)
    )
