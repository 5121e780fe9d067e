"""Linkage of requests: how well two by one applicant are told from two by different ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from attacks.requests.cuts import RequestCut, smoothed
from attacks.requests.linkage import (
    Floats,
    Requests,
    groups,
    homophones,
    learnt_evidence,
    score_evidence,
    token_evidence,
    undivided,
)
from attacks.requests.naming import Stream, read, with_score
from attacks.view import Indices
from evaluation.folds import RawData
from evaluation.store import Entry
from training.presets import ClassifierPreset

Content = dict[str, Any]

MOST_SHARES = (1.0, 0.2, 0.1, 0.05)
"""Strengths of smoothing; 1 is none."""
CHANGED = (0, 1, 2, 3, 5, 8, 12)
"""Fields given anew in the second request; all fields, too, are tried."""
MOST_REQUESTS = 500
"""Applicants of one cut at most: all pairs of their requests are looked at."""
DECOY_RATIOS = (1, 3)
"""Decoys for each real request among which the other request is looked for."""
CHANGED_AMONG_DECOYS = 3
RETURN = 0.5
"""Share of the applicants who ask again where not all do; the other requests are by strangers."""
RETURN_CHANGED = (0, 3)
NAMED = ("mode", "groups")
RATES = {"tpr_1e-3": 1e-3, "tpr_1e-4": 1e-4}
"""Wrong links for each pair of different applicants at which right ones are counted."""
FIGURES = ("auc", *RATES, "rank_1")

SENT: dict[str, tuple[str, Callable[[Floats], Floats]]] = {
    "exact": ("exact", lambda score: score),
    "2": ("two decimals", lambda score: np.round(score, 2)),
    "1": ("one decimal", lambda score: np.round(score, 1)),
    "0": ("none (0 or 1)", np.round),
}
"""What an observer of the answers sees of a score."""
SCORES_CHANGED = (0, 1, 3)
"""Fields given anew where requests are linked by nothing but their scores."""

ATTACKERS = {
    "tokens": "tokens",
    "score": "tokens, scores",
    "learnt": "tokens, learnt from links",
    "values": "tokens, grouped by value",
}


def linked(raw: RawData, number: int, seed: int, preset: ClassifierPreset) -> Entry:
    """Return all figures of one cut, by strength of smoothing, attacker and changed fields."""
    figures: dict[str, dict[str, float]] = {}
    rank_1: dict[str, float] = {}
    by_score: dict[str, dict[str, float]] = {}
    named: dict[str, dict[str, float]] = {}
    rows = 0
    for most_share in MOST_SHARES:
        cut = RequestCut.of(smoothed(raw, most_share), number, seed, preset)
        truth = cut.truth[:MOST_REQUESTS]
        rows = len(truth)
        for count in _counts(truth.shape[1]):
            # Homophones differ, but which fields change and to what is the same at each strength.
            second = changed(truth, count, cut.generator(4))
            for attacker, found in _evidence(cut, truth, second, most_share).items():
                figures[f"{most_share}/{attacker}/{count}"] = link_figures(found)
        if most_share == 1:
            by_score = _by_score(cut, truth)
        for key, found in _among_others(cut, truth, most_share):
            rank_1[f"{most_share}/{key}"] = link_figures(found)["rank_1"]
        named |= {f"{most_share}/{key}": cells for key, cells in _named(cut, truth, most_share)}
    return {
        "requests": rows, "figures": figures, "rank_1": rank_1, "by_score": by_score,
        "named": named,
    }  # fmt: skip


def _named(
    cut: RequestCut, truth: Indices, most_share: float
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield what is named of applicants' values who ask twice, by changed fields.

    The attacker joins the tokens that `groups` takes for one value, then goes on as without
    smoothing, from tokens and scores; unsmoothed tokens it takes as they are.
    """
    sample = cut.sample(1.0)
    for count in RETURN_CHANGED:
        generator = cut.generator(5)
        every = (truth, changed(truth, count, cut.generator(4)))
        first, again = (cut.service.asked(levels, generator) for levels in every)
        columns = list(np.concatenate([first.tokens, again.tokens]).T)
        if most_share != 1:
            copies = homophones([first, again], sample, most_share)
            joined = groups(first, again, copies, sample)
            columns = [number[column] for number, column in zip(joined, columns, strict=True)]
        stream = Stream(columns, np.concatenate([first.score, again.score]))
        tokens = stream.labelled(np.zeros(len(stream.score), np.int8)).tokens
        mode = np.array([counts.argmax() for counts in sample.counts])
        found = read(tokens, with_score(stream, sample))
        right = np.concatenate(every)
        yield (
            str(count),
            {"mode": float(np.mean(mode == right)), "groups": float(np.mean(found == right))},
        )


def _among_others(
    cut: RequestCut, truth: Indices, most_share: float
) -> Iterator[tuple[str, Floats]]:
    """Yield evidence where some of the second requests are by nobody who asked first.

    The attacker is the strongest one, see `_evidence`.
    """
    strongest = "tokens" if most_share == 1 else "learnt"
    rows = len(truth)
    second = changed(truth, CHANGED_AMONG_DECOYS, cut.generator(4))
    for ratio in DECOY_RATIOS:
        decoys = cut.taught[np.arange(ratio * rows) % len(cut.taught)]
        every = np.concatenate([second, decoys])
        yield f"decoys/{ratio}", _evidence(cut, truth, every, most_share)[strongest]
    again = max(1, round(RETURN * rows))
    strangers = cut.taught[np.arange(rows - again) % len(cut.taught)]
    for count in RETURN_CHANGED:
        returned = changed(truth[:again], count, cut.generator(4))
        every = np.concatenate([returned, strangers])
        yield f"return/{count}", _evidence(cut, truth, every, most_share)[strongest][:again]


def _by_score(cut: RequestCut, truth: Indices) -> dict[str, dict[str, float]]:
    """Return how well someone links requests who sees their scores and no token."""
    generator = cut.generator(5)
    first = cut.service.asked(truth, generator).score
    figures = {}
    for count in SCORES_CHANGED:
        again = cut.service.asked(changed(truth, count, cut.generator(4)), generator).score
        for name, (_, rounded) in SENT.items():
            away = np.abs(rounded(first)[:, None] - rounded(again))
            figures[f"{name}/{count}"] = link_figures(-away)
    return figures


def changed(levels: Indices, count: int, generator: np.random.Generator) -> Indices:
    """Return rows with ``count`` fields of each taken from another row, drawn for each field.

    The value taken may be the same.  With the same generator, a row's fields that change with a
    smaller count change to the same with a larger one.

    Args:
        levels: int32 [rows, fields].
        count: Fields to change; more than there are change all.
        generator: Chooses fields and rows.
    """
    order = np.argsort(generator.random(levels.shape), axis=1)
    donor = generator.integers(len(levels), size=levels.shape)
    other = levels[donor, np.arange(levels.shape[1])]
    # A field's place in its row's order says from how many changed fields on it changes.
    place = np.argsort(order, axis=1)
    return np.where(place < count, other, levels).astype(np.int32)


def link_figures(evidence: Floats) -> dict[str, float]:
    """Return how well pairs are told apart.

    Args:
        evidence: float64 [applicants, requests]; the diagonal has the pairs of one applicant, and
            columns beyond it are requests by nobody of them.

    Returns:
        ``auc``: chance that a right pair has more evidence than a wrong one, ties counting half.
        ``tpr_...``: share of right pairs above the threshold that lets through that share of wrong
        ones.  ``rank_1``: share of applicants whose second request has the most evidence of all
        second requests, ties shared.
    """
    right = np.diag(evidence)
    different = np.eye(*evidence.shape) == 0
    wrong = np.sort(evidence[different])
    below = np.searchsorted(wrong, right, side="left")
    equal = np.searchsorted(wrong, right, side="right") - below
    figures = {"auc": float(np.mean((below + equal / 2) / len(wrong)))}
    for name, rate in RATES.items():
        threshold = wrong[-1 - int(rate * len(wrong))]
        figures[name] = float(np.mean(right > threshold))
    best = evidence.max(axis=1)
    ties = (evidence == best[:, None]).sum(axis=1)
    figures["rank_1"] = float(np.mean((right == best) / ties))
    return figures


def _evidence(
    cut: RequestCut, truth: Indices, second: Indices, most_share: float
) -> dict[str, Floats]:
    """Return per attacker the evidence of all pairs; without smoothing all attackers are one."""
    generator = cut.generator(5)
    first, again = (cut.service.asked(levels, generator) for levels in (truth, second))
    whole = token_evidence(
        Requests(truth, first.score), Requests(second, again.score), undivided(cut.pool.sizes)
    )
    if most_share == 1:
        return {"tokens": whole}
    copies = homophones([first, again], cut.sample(1.0), most_share)
    tokens = token_evidence(first, again, copies)
    return {
        "tokens": tokens,
        "score": tokens + score_evidence(first, again),
        "learnt": learnt_evidence(first, again, copies),
        "values": whole,
    }


def _counts(fields: int) -> list[int]:
    """Return how many fields are changed, each count once."""
    return [*(count for count in CHANGED if count < fields), fields]
