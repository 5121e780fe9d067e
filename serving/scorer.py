"""Scoring, for both transports: the one place where a scoring request is checked and answered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cipherscore.errors import (
    BatchTooLarge,
    EmptyBatch,
    InvalidRequest,
    MalformedToken,
    ModelUnavailable,
    TokenFormatError,
    UnknownToken,
    WrongKey,
)
from cipherscore.tokens import check_key_id, key_id_of
from cipherscore.vocabulary import UNSEEN
from serving.models import LoadedModel
from serving.tables import Column, Table


@dataclass(frozen=True)
class Scores:
    """Answer to one scoring request.

    Attributes:
        probability: Probability of bad credit, float32 [rows].
        bad: Decision per row, bool [rows]: true where probability >= threshold.
        model: "name:version".
        threshold: Decision threshold, a float64 from the model's lineage.
    """

    probability: np.ndarray
    bad: np.ndarray
    model: str
    threshold: float


class Scorer:
    """The classifier behind both transports.

    Args:
        model: A loaded classifier.
        max_rows: Most rows of one request.
    """

    def __init__(self, model: LoadedModel, max_rows: int) -> None:
        self.model = model
        self._max_rows = max_rows
        self._threshold = float(model.record.threshold or 0.0)
        self._index = model.vocabulary.index

    def score(self, key_id: str, table: Table) -> Scores:
        """Score one batch.

        Raises:
            RequestError: The request is refused; see `cipherscore.errors` for the kinds.
        """
        check_key(self.model, key_id)
        if table.rows == 0:
            raise EmptyBatch("the request holds no row")
        if table.rows > self._max_rows:
            raise BatchTooLarge(
                f"{table.rows} rows in one request; at most {self._max_rows}, send several"
            )
        columns = table.columns(self.model.vocabulary.fields)
        indices = np.empty((table.rows, len(columns)), dtype=np.int32)
        for position, column in enumerate(columns):
            indices[:, position] = self._translation(column)[column.indices]
        probability = self.model.run({"indices": indices})
        if not np.isfinite(probability).all():
            raise ModelUnavailable(f"{self.model.tag} gave a probability that is no number")
        # In float64: rounding the threshold to float32 could flip a decision at its edge.
        bad = probability.astype(np.float64) >= self._threshold
        return Scores(probability, bad, self.model.tag, self._threshold)

    def _translation(self, column: Column) -> np.ndarray:
        """Return int32 [dictionary]: the model's index of each of the column's tokens."""
        known = self._index[column.field]
        found = [known.get(token, UNSEEN) for token in column.dictionary]
        if UNSEEN in found:
            self._refuse(column, found.index(UNSEEN))
        return np.array(found, dtype=np.int32)

    def _refuse(self, column: Column, position: int) -> None:
        """Say what is wrong with a token that is not in the vocabulary, without showing it."""
        field, token = column.field, column.dictionary[position]
        rows = np.flatnonzero(column.indices == position)
        row = int(rows[0]) if len(rows) else None
        try:
            key_id = key_id_of(token)
        except TokenFormatError as error:
            raise MalformedToken(str(error), field=field, row=row) from error
        if key_id != self.model.record.key_id:
            raise WrongKey(f"field {field!r} holds a token of another key", field=field, row=row)
        raise UnknownToken(
            f"field {field!r} holds a token the model never saw in training", field=field, row=row
        )


def check_key(model: LoadedModel, key_id: str) -> None:
    """Refuse a request made under another key than the model's.

    Raises:
        InvalidRequest: ``key_id`` is no key id.
        WrongKey: It is another one.
    """
    try:
        check_key_id(key_id)
    except TokenFormatError as error:
        raise InvalidRequest(str(error), field="key_id") from error
    if key_id != model.record.key_id:
        raise WrongKey(f"the model was trained under key {model.record.key_id}", field="key_id")
