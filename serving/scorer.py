"""Scoring: a request's tokens become vocabulary indices, a batch of indices becomes answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import numpy as np

from cipherscore.errors import (
    BatchTooLarge,
    EmptyBatch,
    InvalidRequest,
    ModelUnavailable,
    TokenFormatError,
    WrongKey,
)
from cipherscore.tokens import check_key_id
from serving.batcher import Batcher
from serving.call import Call
from serving.models import LoadedModel
from serving.settings import Settings
from serving.tables import Payload, Table
from serving.telemetry.observer import Observer


@dataclass(slots=True)
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
    """One loaded classifier that answers requests.

    Args:
        model: A loaded classifier.
        settings: Limits.
        executor: Where long model runs happen.
        observer: Told about every model run.
    """

    def __init__(
        self, model: LoadedModel, settings: Settings, executor: Executor, observer: Observer
    ) -> None:
        self.model = model
        self.threshold = float(model.record.threshold or 0.0)
        self._edge = _edge(model)
        self._max_rows = settings.max_rows
        self.batcher = Batcher(
            partial(_run, model),  # not a method: a cycle would keep a swapped-out model in memory
            len(model.vocabulary.fields),
            seconds_per_row=model.seconds_per_row,
            max_batch_rows=settings.max_batch_rows,
            max_queue_rows=settings.max_queue_rows,
            max_queue_seconds=settings.max_queue_seconds,
            executor=executor,
            watcher=partial(observer.batch, model.tag, model.precision),
            traced=observer.traced(
                model.tag, provider=model.provider.name, precision=model.precision
            ),
        )

    def check(self, call: Call, rows: int) -> None:
        """Refuse a request by its size or the server's load, before anything is decoded.

        Raises:
            EmptyBatch, BatchTooLarge, Overloaded, DeadlinePassed: As their names say.
        """
        if rows == 0:
            raise EmptyBatch("the request holds no row")
        if rows > self._max_rows:
            raise BatchTooLarge(
                f"{rows} rows in one request; at most {self._max_rows}, send several"
            )
        self.batcher.check(rows, call)

    def translate(self, key_id: str | None, table: Table) -> Payload:
        """Return the vocabulary indices of ``table``'s rows.

        Args:
            key_id: Key the request says it was made under; None where the protocol has no place
                for it, and the tokens alone tell.
            table: The rows.

        Raises:
            RequestError: A token or the table is refused; see `cipherscore.errors`.
        """
        if key_id is not None and key_id != self.model.record.key_id:
            check_key(self.model, key_id)
        return table.indices(self.model.vocabulary)

    def submit(
        self,
        payload: Payload,
        rows: int,
        call: Call,
        done: Callable[[Scores | BaseException], None],
    ) -> None:
        """Score rows that `translate` made; ``done`` is called once, on the loop."""

        def answer(probability: np.ndarray | BaseException) -> None:
            if isinstance(probability, BaseException):
                done(probability)
            else:
                bad = probability >= self._edge
                done(Scores(probability, bad, self.model.tag, self.threshold))

        self.batcher.submit(payload, rows, call, answer)


def _run(model: LoadedModel, indices: np.ndarray) -> np.ndarray:
    probability = model.run({"indices": indices})
    if not np.isfinite(probability).all():
        raise ModelUnavailable(f"{model.tag} gave a probability that is no number")
    return probability


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


def decide(model: LoadedModel, probability: np.ndarray) -> np.ndarray:
    """Return the decision per row, bool [rows]: bad where ``probability`` >= the threshold."""
    bad: np.ndarray = probability >= _edge(model)
    return bad


def _edge(model: LoadedModel) -> np.float32:
    """Return the smallest float32 that is not less than the model's threshold.

    Comparing float32 answers with it decides as comparing in float64 with the threshold itself,
    without a conversion of each answer.
    """
    threshold = float(model.record.threshold or 0.0)
    nearest = np.float32(threshold)
    if float(nearest) < threshold:
        nearest = np.nextafter(nearest, np.float32(math.inf))
    return nearest
