"""Columns that may know the outcome: alone they predict it too well, or are named like one.

Nothing is decided here: the owner is told, and may leave such columns out.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from cipherscore.client.headers import words

SUSPICIOUS_AUC = 0.98
"""Cross-validated AUC of one column alone from which on it is called suspicious.  The strongest
columns of public tables stay well below: 0.78 in Adult, 0.87 in Credit Approval, 0.92 in Financial
Distress, 0.94 in the card fraud table."""

LEAST_TELLING_NAME = 4
"""Letters of a target's name from which on a column named after it says something."""
FOLDS = 5
PRIOR_ROWS = 10.0
"""Weight of the overall rate of bad credit in each bin's rate, in rows."""
CUTS = 64
"""Bins of equal count that numbers are cut into."""

_OUTCOMES = """default defaulted outcome chargeoff chargedoff writeoff writtenoff recovery
recoveries recovered settlement settled decision approved rejected declined repaid foreclosure
repossessed target label"""
OUTCOME_WORDS = frozenset(_OUTCOMES.split())
"""Words for what is known after a decision; those of a credit history (arrears, delinquency) are
known before it."""
_PROTECTED = """sex gender race ethnicity ethnic religion nationality citizenship marital disability
pregnant foreign age birth birthdate dob"""
PROTECTED_WORDS = frozenset(_PROTECTED.split())


def single_column_auc(codes: np.ndarray, label: np.ndarray, seed: int = 0) -> float:
    """Return how well one column alone ranks good and bad credit: AUC, 0.5 to 1 where it helps.

    Each row is scored by the rate of bad credit among the rows of its code in the other folds
    (`FOLDS`, stratified, shuffled by ``seed``; smoothed by `PRIOR_ROWS`), so that a column of rare
    codes does not predict itself.  Below 0.5 a column has nothing to tell.

    Args:
        codes: int64 [rows], 0 or more: the category or bin of each row, absent values one of them.
        label: int8 [rows], 0 good and 1 bad.
        seed: Same inputs and seed, same result.
    """
    bads = int(label.sum())
    if not 0 < bads < len(label):
        return 0.5
    fold = np.empty(len(label), np.int64)
    generator = np.random.Generator(np.random.PCG64(seed))
    for value in (0, 1):
        rows = np.flatnonzero(label == value)
        fold[rows] = generator.permutation(len(rows)) % FOLDS
    size = int(codes.max()) + 1
    cell = fold * size + codes
    count = np.bincount(cell, minlength=FOLDS * size).reshape(FOLDS, size)
    bad = np.bincount(cell, weights=label, minlength=FOLDS * size).reshape(FOLDS, size)
    prior = (bads - bad.sum(axis=1)) / np.maximum(1, len(label) - count.sum(axis=1))
    others, other_bads = count.sum(axis=0) - count, bad.sum(axis=0) - bad
    rate = (other_bads + PRIOR_ROWS * prior[:, None]) / (others + PRIOR_ROWS)
    # Ranked fold by fold: each has another prior, which would rank the folds and not the rows.
    return float(
        np.mean(
            [_auc(rate[part][codes[fold == part]], label[fold == part]) for part in range(FOLDS)]
        )
    )


def cut_codes(values: np.ndarray) -> np.ndarray:
    """Return int64 [rows]: each number's bin of about equal count, NaN in one of its own."""
    present = np.isfinite(values)
    if not present.any():
        return np.zeros(len(values), np.int64)
    cuts = np.unique(np.quantile(values[present], np.linspace(0, 1, CUTS + 1)[1:-1]))
    found = 1 + np.searchsorted(cuts, values, side="right")
    return np.where(present, found, 0).astype(np.int64)


def named_like_an_outcome(name: str, target: str) -> bool:
    """Return whether a column's name has a word of outcomes, or the whole name of the target."""
    found, goal = words(name), words(target)
    joined = {first + second for first, second in pairwise(found)}
    inside = any(found[i : i + len(goal)] == goal for i in range(len(found)))
    telling = len("".join(goal)) >= LEAST_TELLING_NAME
    return (inside and telling) or bool(OUTCOME_WORDS.intersection({*found, *joined}))


def named_like_a_protected_group(name: str) -> bool:
    """Return whether a column's name has a word for a group that law commonly protects."""
    return bool(PROTECTED_WORDS.intersection(words(name)))


def _auc(score: np.ndarray, label: np.ndarray) -> float:
    """Return the area under the ROC curve, ties counted half; 0.5 if a class is absent."""
    bads = int(label.sum())
    goods = len(label) - bads
    if not bads or not goods:
        return 0.5
    _, where, ties = np.unique(score, return_inverse=True, return_counts=True)
    rank = np.cumsum(ties) - (ties - 1) / 2
    return float((rank[where][label == 1].sum() - bads * (bads + 1) / 2) / (bads * goods))
