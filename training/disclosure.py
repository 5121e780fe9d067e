"""What synthetic rows give away: can they be told from real ones, and who was in the training?

As `training.fidelity`, all take rows of column indices; a negative index is a token that the
vocabulary lacks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.evaluation import auc
from training.fidelity import Rows, distances, multi_hot

RARE_SHARE = 0.05
"""A token is rare that fewer of the learned rows hold."""
_MOST_ROWS = 5_000
_PARTS = 3


def detection_auc(synthetic: Rows, real: Rows, sizes: Sequence[int], seed: int = 0) -> float:
    """Return how well gradient-boosted trees tell synthetic rows from real ones.

    AUC on rows of each kind that the trees did not learn, over three folds of equally many rows of
    both; 0.5 is best, 1 is worst.  ``real`` are rows the generator never saw: against rows it
    learned from, copies would look good.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415 - loads slowly

    count = min(len(real.label), len(synthetic.label), _MOST_ROWS)
    both = [_with_label(rows.at_most(count, seed), sizes) for rows in (real, synthetic)]
    inputs = np.concatenate(both)
    kind = np.repeat(np.array([0, 1], np.int8), count)
    part = np.tile(np.random.default_rng(seed).permutation(count) % _PARTS, 2)
    scores = np.empty(2 * count)
    for fold in range(_PARTS):
        model = HistGradientBoostingClassifier(max_iter=100, random_state=0)
        model.fit(inputs[part != fold], kind[part != fold])
        scores[part == fold] = model.predict_proba(inputs[part == fold])[:, 1]
    return float(np.mean([auc(kind[part == f], scores[part == f]) for f in range(_PARTS)]))


def membership_auc(
    synthetic: Rows, learned: Rows, holdout: Rows, sizes: Sequence[int], seed: int = 0
) -> float:
    """Return how well the distance to the closest synthetic row tells learned rows from others.

    The attack of Chen et al. 2020 ("GAN-Leaks", full black box): a row is taken for a training row
    the closer a synthetic row is, in fields that differ.  AUC over equally many learned and holdout
    rows; 0.5 is best.  It grows with the number of synthetic rows the attacker has.
    """
    count = min(len(holdout.label), len(learned.label), _MOST_ROWS)
    members, others = learned.at_most(count, seed), holdout.at_most(count, seed)
    attacker = synthetic.at_most(_MOST_ROWS, seed)
    scores = [-distances(rows, attacker, sizes).min(axis=1) for rows in (others, members)]
    kind = np.repeat(np.array([0, 1], np.int8), count)
    return auc(kind, np.concatenate(scores).astype(np.float64))


def rare_coverage(synthetic: Rows, learned: Rows, sizes: Sequence[int]) -> float:
    """Return the share of the learned rows' rare tokens that some synthetic row holds.

    1 where the table has no rare token.
    """
    shares = multi_hot(learned.indices, sizes).mean(axis=0)
    rare = (shares > 0) & (shares < RARE_SHARE)
    if not rare.any():
        return 1.0
    made = multi_hot(synthetic.indices, sizes).max(axis=0)
    return float(made[rare].mean())


def validity(synthetic: Rows, sizes: Sequence[int]) -> float:
    """Return the share of rows whose every index is a column of its field."""
    inside: np.ndarray = (synthetic.indices >= 0) & (synthetic.indices < np.asarray(sizes))
    return float(inside.all(axis=1).mean())


def _with_label(rows: Rows, sizes: Sequence[int]) -> np.ndarray:
    return np.concatenate([multi_hot(rows.indices, sizes), rows.label[:, None]], axis=1)
