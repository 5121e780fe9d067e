"""What each attack names under one protection."""

from __future__ import annotations

import numpy as np

from attacks.cuts import Cut, halves
from attacks.informed import by_mode, informed
from attacks.recovery import ideal
from attacks.tokens.shared_key import by_shared_code
from attacks.tokens.study import matching
from attacks.view import Auxiliary, Guess, TokenTable
from benchmarks.frontier.protections import Protection
from cipherscore.client.scorecards import attribute_levels
from evaluation.folds import RawData

Shares = dict[str, float]
"""Attack to the share of cells named correctly."""
KNOWING = "meaning known"
"""The attacker who knows what each token stands for: no attack on tokens is stronger."""
MODE = "mode"
READING = "reading"


def attacked(raw: RawData, protection: Protection, number: int, seed: int) -> Shares:
    """Return what each attack names in one cut of a table, of all fields of all encrypted rows.

    The attacker has the plain rows of the other half, all fields of them, and labels.  Where the
    host does not see each field, the attacker names what it sees and predicts the fields from that
    (`attacks.informed`).
    """
    mine, _ = halves(raw, np.random.default_rng([seed, number]))
    truth = attribute_levels(raw.table, raw.fitted(mine))
    cut = Cut.of(protection.view(raw, mine), number, seed, protection.draws)
    sample = cut.sample(1.0, shifted=False)
    asked, known = _once(cut), truth[cut.pool_origin[: len(sample.label)]]
    wanted = truth[cut.origin[asked]]
    found = {MODE: _right(_modes(known, len(wanted)), wanted)}
    if not protection.encrypted:
        return {**found, READING: 1.0}
    for name, guess in _guesses(cut, sample, protection).items():
        named = _named(guess, cut.table)[asked]
        if not protection.whole:
            named = _predicted(named, cut, sample, asked, known)
        found[name] = _right(named, wanted)
    return found


def _guesses(cut: Cut, sample: Auxiliary, protection: Protection) -> dict[str, Guess]:
    smoothed = cut.table.most_share < 1
    found = {
        name: attack(cut.table, sample) for name, (_, attack) in matching(smoothed=smoothed).items()
    }
    if protection.shared_key:
        found["shared key"] = _shared(cut, sample)
    found[KNOWING] = ideal(cut.table, cut.truth)
    return found


def _shared(cut: Cut, sample: Auxiliary) -> Guess:
    """Name tokens of a table whose fields share a key: each code has one token everywhere."""
    cipher = np.random.default_rng([cut.seed, cut.number]).permutation(max(sample.sizes))
    tokens = cipher[cut.truth]
    _, numbers = np.unique(tokens, return_inverse=True)
    numbers = numbers.reshape(tokens.shape).astype(np.int32)
    codes = by_shared_code(numbers, cut.table.label, sample)
    guess = []
    for own, shared in zip(cut.table.tokens.T, numbers.T, strict=True):
        named = np.zeros(int(own.max()) + 1, np.int32)
        named[own] = codes[shared]
        guess.append(named)
    return guess


def _named(guess: Guess, table: TokenTable) -> np.ndarray:
    """Return the level named in every cell, int32 [rows, fields]."""
    both = zip(guess, table.tokens.T, strict=True)
    return np.stack([named[tokens] for named, tokens in both], axis=1)


def _predicted(
    named: np.ndarray, cut: Cut, sample: Auxiliary, asked: np.ndarray, known: np.ndarray
) -> np.ndarray:
    """Return the fields' levels predicted from what was named, int32 [rows, fields]."""
    seen = np.column_stack([named, cut.table.label[asked]])
    learned = np.column_stack([sample.levels, sample.label])
    return informed(seen, learned, known, (*sample.sizes, 2), cut.number)


def _modes(known: np.ndarray, rows: int) -> np.ndarray:
    none = np.empty((rows, 0), np.int32)
    return by_mode(none, none, known, (), 0)


def _once(cut: Cut) -> np.ndarray:
    """Return the table's first copy of each row."""
    return np.asarray(np.unique(cut.origin, return_index=True)[1])


def _right(named: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean(named == truth))
