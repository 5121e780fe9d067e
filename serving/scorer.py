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
    Unsupported,
    WrongKey,
)
from cipherscore.tokens import check_key_id
from serving.batcher import Batcher
from serving.call import Call
from serving.models import LoadedModel
from serving.reasons import ALL, Reasons
from serving.rounding import Rounding
from serving.settings import Settings
from serving.tables import Payload, Table
from serving.telemetry.observer import Observer


@dataclass(slots=True)
class Scores:
    """Answer to one scoring request.

    Attributes:
        probability: Probability of bad credit, float32 [rows], rounded where settings say so.
        bad: Decision per row, bool [rows]: true where the exact probability >= threshold.
        model: "name:version".
        threshold: Decision threshold, a float64 from the model's lineage.
        reasons: Why, if that was asked for.
    """

    probability: np.ndarray
    bad: np.ndarray
    model: str
    threshold: float
    reasons: Reasons | None = None


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
        self._max_reasons = settings.max_reasons
        self._rounding = _rounding(model, settings)
        self._observer = observer
        self._make = partial(_batcher, model, settings, executor, observer)
        self.batcher = self._make(_run, model.seconds_per_row)
        # Of its own: a request without reasons must not pay for those that share its model run.
        # Made for the first one with: where nobody asks, nothing has to look at it.
        self._explaining: Batcher | None = None

    @property
    def waiting_rows(self) -> int:
        """Rows that wait for a model run."""
        explained = 0 if self._explaining is None else self._explaining.waiting_rows
        return self.batcher.waiting_rows + explained

    def check(self, call: Call, rows: int, reasons: int = 0) -> None:
        """Refuse a request by its size or the server's load, before anything is decoded.

        Args:
            call: The request.
            rows: How many rows it has.
            reasons: How many reasons a row it asks for, or `ALL`.

        Raises:
            EmptyBatch, BatchTooLarge, Overloaded, DeadlinePassed: As their names say.
            InvalidRequest: More reasons are asked for than there are.
            Unsupported: The version, or this server, gives no reasons.
        """
        if rows == 0:
            raise EmptyBatch("the request holds no row")
        if rows > self._max_rows:
            raise BatchTooLarge(
                f"{rows} rows in one request; at most {self._max_rows}, send several"
            )
        if reasons:
            self._check_reasons(reasons)
            self._explained().check(rows, call, self.batcher)
        else:
            self.batcher.check(rows, call, self._explaining)

    def _check_reasons(self, reasons: int) -> None:
        """Refuse a request for reasons that there are not.

        Raises:
            InvalidRequest, Unsupported: See `check`.
        """
        if not self._max_reasons:
            raise Unsupported("this server gives no reasons (max_reasons is 0)", field="reasons")
        if self.model.explainer is None:
            raise Unsupported(
                f"{self.model.tag} was registered without reason codes: its network has more than "
                "one hidden layer, or its export is older than they are",
                field="reasons",
            )
        fields = len(self.model.vocabulary.fields)
        wanted, limit = (fields if reasons == ALL else reasons), min(fields, self._max_reasons)
        if not 0 < wanted <= limit:
            raise InvalidRequest(
                f"{wanted} reasons for each row; at most {limit} "
                f"({fields} fields, max_reasons is {self._max_reasons})",
                field="reasons",
            )

    def _explained(self) -> Batcher:
        """Return what answers with reasons."""
        if self._explaining is None:
            seconds = self.model.explained_seconds_per_row
            self._explaining = self._make(_run_explained, seconds)
        return self._explaining

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
                if self._rounding is not None:
                    probability = self._rounding.probability(probability)
                done(Scores(probability, bad, self.model.tag, self.threshold))

        self.batcher.submit(payload, rows, call, answer)

    def submit_explained(
        self,
        payload: Payload,
        rows: int,
        call: Call,
        done: Callable[[Scores | BaseException], None],
    ) -> None:
        """Score rows as `submit` does, and say why.

        The answer holds the contributions of all fields, in model order.  That there are any,
        `check` has found.
        """
        model, explainer = self.model, self.model.explainer
        assert explainer is not None

        def answer(found: np.ndarray | BaseException) -> None:
            if isinstance(found, BaseException):
                done(found)
                return
            self._observer.explained(model.tag, rows)
            probability, contribution = found[:, 0].copy(), found[:, 1:]
            bad = probability >= self._edge
            if self._rounding is not None:
                probability = self._rounding.probability(probability)
                contribution = self._rounding.contribution(contribution, probability)
            reasons = Reasons(explainer.fields, explainer.base, contribution)
            done(Scores(probability, bad, model.tag, self.threshold, reasons))

        self._explained().submit(payload, rows, call, answer)


def _batcher(
    model: LoadedModel,
    settings: Settings,
    executor: Executor,
    observer: Observer,
    run: Callable[[LoadedModel, np.ndarray], np.ndarray],
    seconds_per_row: float,
) -> Batcher:
    """Return a batcher of ``model``; ``run`` answers a batch."""
    return Batcher(
        partial(run, model),  # not a method: a cycle would keep a swapped-out model in memory
        len(model.vocabulary.fields),
        seconds_per_row=seconds_per_row,
        max_batch_rows=settings.max_batch_rows,
        max_queue_rows=settings.max_queue_rows,
        max_queue_seconds=settings.max_queue_seconds,
        executor=executor,
        watcher=partial(observer.batch, model.tag, model.precision),
        traced=observer.traced(model.tag, provider=model.provider.name, precision=model.precision),
    )


def _rounding(model: LoadedModel, settings: Settings) -> Rounding | None:
    """Return what rounds the answers; None where they are exact."""
    if settings.score_decimals is None:
        return None
    return Rounding(settings.score_decimals, model.explainer.base if model.explainer else 0.0)


def _run_explained(model: LoadedModel, indices: np.ndarray) -> np.ndarray:
    found = model.run_explained(indices)
    if not np.isfinite(found).all():
        raise ModelUnavailable(f"{model.tag} gave a probability or a reason that is no number")
    return found


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
