"""What the host reads from the stream of scoring requests: tokens without labels, and scores.

A request has no label, but the host has computed its score, which depends on the same fields.  The
score stands in for the label: the attacker fits a model of its own to its plain rows, and calls the
half with the higher scores bad on both sides, in the stream by the scores it saw, in its sample by
those of its own model, each row judged by a model that has not learnt it.  A half, not the share
that is bad: a score is known to more than one bit, and a half says most about it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder

from attacks.tokens.frequency import by_rank
from attacks.tokens.joint import joint
from attacks.view import Auxiliary, Guess, Indices, TokenTable

PARTS = 5
"""The attacker's model judges a fifth of the sample by what it learnt from the rest."""
RIDGE = 0.3
"""Inverse strength of that model's penalty (scikit-learn's ``C``)."""


@dataclass(frozen=True)
class Stream:
    """Scoring requests as the host saw them, one row for each applicant asked about.

    Args:
        columns: Per field anything that tells its tokens apart, [rows].
        score: float64 [rows], the probabilities of bad credit that were answered.
    """

    columns: list[Indices]
    score: NDArray[np.float64]

    def labelled(self, label: np.ndarray) -> TokenTable:
        """Return the requests as a table with labels that stand for something else."""
        return TokenTable.numbered(self.columns, label)


RequestAttack = Callable[[Stream, Auxiliary], Guess]
"""Names the tokens of ``stream.labelled(...)``, whose numbers do not depend on the labels."""


def rank(stream: Stream, sample: Auxiliary) -> Guess:
    """Match each field's tokens by frequency; needs neither label nor score."""
    return by_rank(stream.labelled(_none(len(stream.score))), sample)


def without_score(stream: Stream, sample: Auxiliary) -> Guess:
    """Name all fields together by which tokens occur together, as if no score had been seen."""
    table = stream.labelled(_none(len(stream.score)))
    return joint(table, replace(sample, label=_none(len(sample.label))))


def with_score(stream: Stream, sample: Auxiliary) -> Guess:
    """Name all fields together, the higher half of the scores in the place of the label."""
    own = own_scores(sample)
    if own is None:
        return without_score(stream, sample)
    table = stream.labelled(upper_half(stream.score))
    return joint(table, replace(sample, label=upper_half(own)))


def among_decoys(decoys: Auxiliary, ratio: float) -> RequestAttack:
    """Return `with_score` for a stream that is padded, by an attacker who knows how.

    Args:
        decoys: Rows drawn as the decoys were, of any number and label.
        ratio: Decoys for each real request.
    """

    def attack(stream: Stream, sample: Auxiliary) -> Guess:
        own = own_scores(sample)
        if own is None:
            return without_score(stream, sample)
        wanted = round(ratio * len(sample.label))
        levels = decoys.levels[np.arange(wanted) % len(decoys.levels)]
        judged = model().fit(sample.levels, sample.label).predict_proba(levels)[:, 1]
        label = upper_half(np.concatenate([own, judged]))
        mixed = np.concatenate([sample.levels, levels])
        table = stream.labelled(upper_half(stream.score))
        return joint(table, Auxiliary(mixed, label, sample.sizes))

    return attack


def sifted(
    stream: Stream, sample: Auxiliary, first: Guess, strange: NDArray[np.float64], ratio: float
) -> Guess:
    """Leave out the requests that look most like decoys, and name the rest again with scores.

    Args:
        stream: Requests among decoys.
        sample: Real rows.
        first: What an attack named in the whole stream; tokens of none but decoys keep it.
        strange: float64 [rows], how much each request looks like a decoy.
        ratio: Decoys for each real request; as many are left out.
    """
    tokens = stream.labelled(_none(len(stream.score))).tokens
    real = max(1, round(len(tokens) / (1 + ratio)))
    kept = np.sort(np.argsort(strange, kind="stable")[:real])
    rest = Stream([column[kept] for column in stream.columns], stream.score[kept])
    second = with_score(rest, sample)
    again = rest.labelled(_none(real)).tokens
    guess = [named.copy() for named in first]
    for field, named in enumerate(second):
        guess[field][tokens[kept, field]] = named[again[:, field]]
    return guess


def read(tokens: Indices, guess: Guess) -> Indices:
    """Return int32 [rows, fields], the levels that a guess reads from numbered tokens."""
    return np.stack([named[column] for named, column in zip(guess, tokens.T, strict=True)], axis=1)


def strangeness(
    named: Indices, sample: Auxiliary, decoys: Auxiliary, seed: int
) -> NDArray[np.float64]:
    """Return float64 [rows], how much each request looks like a decoy, by its guessed levels.

    Args:
        named: int32 [rows, fields], the levels that an attack read from the requests.
        sample: Real rows.
        decoys: Rows drawn as the decoys were.
        seed: Of the classifier that tells them apart.
    """
    rows = np.concatenate([sample.levels, decoys.levels])
    made = np.repeat([0, 1], [len(sample.levels), len(decoys.levels)])
    judge = HistGradientBoostingClassifier(max_iter=100, random_state=seed).fit(rows, made)
    return np.asarray(judge.predict_proba(named)[:, 1], np.float64)


def repetition(tokens: Indices) -> NDArray[np.float64]:
    """Return float64 [rows], how many requests equal each one.

    An owner who has few decoys sends them again and again.
    """
    _, kind, times = np.unique(tokens, axis=0, return_inverse=True, return_counts=True)
    return np.asarray(times[kind.ravel()], np.float64)


def own_scores(sample: Auxiliary) -> NDArray[np.float64] | None:
    """Return the attacker's own score of each plain row; None if a class has fewer than two rows.

    A row is judged by a model that has not learnt it.
    """
    least = int(np.bincount(sample.label, minlength=2).min())
    if least < 2:
        return None
    parts = StratifiedKFold(min(PARTS, least), shuffle=True, random_state=0)
    rows, label = sample.levels, sample.label
    found = cross_val_predict(model(), rows, label, cv=parts, method="predict_proba")
    return np.asarray(found[:, 1], np.float64)


def model() -> Pipeline:
    """Return the attacker's model of credit risk, unfitted: logistic regression on levels."""
    encoder = OneHotEncoder(handle_unknown="ignore")
    return make_pipeline(encoder, LogisticRegression(C=RIDGE, max_iter=1000))


def upper_half(score: np.ndarray) -> NDArray[np.int8]:
    """Return int8 [rows]: 1 for the half of the rows with the higher scores.

    Of equal scores as many as are needed count as higher, the later rows first.
    """
    upper = np.zeros(len(score), np.int8)
    upper[np.argsort(score, kind="stable")[len(score) // 2 :]] = 1
    return upper


def _none(rows: int) -> NDArray[np.int8]:
    return np.zeros(rows, np.int8)
