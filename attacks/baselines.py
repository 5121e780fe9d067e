"""What can be said without looking at a token; an attack is worth what it finds beyond this."""

from __future__ import annotations

import numpy as np

from attacks.view import Auxiliary, Guess, TokenTable


def mode_guess(table: TokenTable, auxiliary: Auxiliary) -> Guess:
    """Name for every token of a field the level most frequent in the sample."""
    both = zip(table.counts, auxiliary.counts, strict=True)
    return [np.full(len(tokens), levels.argmax(), np.int32) for tokens, levels in both]


def random_guess(table: TokenTable, auxiliary: Auxiliary, seed: int) -> Guess:
    """Name levels at random; none twice in a field before all are named once."""
    generator = np.random.default_rng(seed)
    both = zip(table.counts, auxiliary.sizes, strict=True)
    return [
        np.resize(generator.permutation(size), len(tokens)).astype(np.int32)
        for tokens, size in both
    ]
