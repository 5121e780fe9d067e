"""Whether two requests are by one applicant, from their tokens and scores alone.

The sum over fields of the log-likelihood ratio of what the two requests hold there (Fellegi and
Sunter, JASA 1969), under the simplest model of a second request: each field is kept with
probability `KEPT` and otherwise drawn anew from the population.  With tokens ``a`` and ``b`` of a
field and ``share`` of its tokens that are ``b``:

    agreement     log(1 - KEPT + KEPT / share)
    disagreement  log(1 - KEPT)

so that agreeing in a rare token counts much and in a frequent one little.  With homophones a kept
value has the same token again only by chance; the attacker does not know which tokens stand for
one value, but can tell from shares which tokens stand for a value that has several
(`homophones`).  A kept value of ``k`` homophones gives the same token with probability ``1 / k``
and otherwise another of those that look divided, of which ``divided`` is the joint share:

    agreement     log(1 - KEPT + KEPT / k / share)
    disagreement  log(1 - KEPT + KEPT (1 - 1 / k) / divided)

Many applicants who ask twice give more away: pairs that are likely links say which tokens stand for
one value, and that says which pairs are links.  `learnt_evidence` goes round and round, the EM
algorithm of record linkage (Jaro, JASA 1989) on tables of token pairs instead of agreement.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import average, fcluster  # type: ignore[import-untyped]
from scipy.sparse import csr_array  # type: ignore[import-untyped]
from scipy.special import softmax  # type: ignore[import-untyped]

from attacks.view import Auxiliary, Indices

KEPT = 0.8
"""Probability that a field is the same in a second request, as the attacker supposes it."""
CLOSENESS = 0.5
"""Standard deviation of the log-odds of one applicant's scores, in those of all applicants."""
ROUNDS = 12
"""Times that links are guessed and pairs of tokens are counted in them."""
CAUTION = 0.5
"""How much evidence counts while learning: fields depend on each other, their sum is too sure."""
PSEUDO_PAIRS = 2.0
"""Pairs, for each token of a field, that its table starts with."""
JOINED = 0.5
"""Tokens stand for one value if links hold them together at least this often, chance being 1: those
of one value more often than chance, those of two only where the field has changed."""
EDGE = 1e-6
"""Probabilities are kept this far from 0 and 1 before their log-odds are taken."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Requests:
    """Requests of one row each.

    Args:
        tokens: int32 [requests, fields], each field's tokens by number.
        score: float64 [requests], the probabilities of bad credit that were answered.
    """

    tokens: Indices
    score: Floats


def token_evidence(first: Requests, second: Requests, copies: Sequence[Floats]) -> Floats:
    """Return float64 [first, second], the log-likelihood ratio of each pair's tokens.

    Args:
        first: Requests.
        second: Requests; shares of tokens are counted over both.
        copies: Per field float64 [tokens], how many homophones the value of each token seems to
            have; ones where nothing is smoothed.
    """
    return _summed(first, second, [_ratios(*one) for one in _fields(first, second, copies)])


def learnt_evidence(first: Requests, second: Requests, copies: Sequence[Floats]) -> Floats:
    """Return the same, by which tokens the likely links hold, found by expectation maximisation.

    It supposes that a good part of the applicants are in both; not each has to be.
    """
    return _summed(first, second, _learnt(first, second, copies))


def groups(
    first: Requests, second: Requests, copies: Sequence[Floats], sample: Auxiliary
) -> list[Indices]:
    """Return per field int32 [tokens], which tokens seem to stand for one value, by number.

    Tokens are joined while links hold pairs of them `JOINED` times as often as chance would, on
    average, and until there are no more groups than levels.  That is what is left of smoothing
    when applicants return.
    """
    found = []
    learnt = _learnt(first, second, copies)
    for (tokens, _), ratio, size in zip(
        _fields(first, second, copies), learnt, sample.sizes, strict=True
    ):
        number = np.zeros(len(ratio), np.int32)
        used = np.unique(tokens)
        near = ratio[np.ix_(used, used)]
        away = near.max() - (near + near.T) / 2
        if len(used) > 1:
            tree = average(away[np.triu_indices(len(used), 1)])
            joined = fcluster(tree, near.max() - np.log(JOINED), "distance")
            if joined.max() > size:
                joined = fcluster(tree, size, "maxclust")
            number[used] = joined
        found.append(number)
    return found


def _learnt(first: Requests, second: Requests, copies: Sequence[Floats]) -> list[Floats]:
    """Return per field float64 [tokens, tokens], log of how much likelier links hold a pair."""
    apart, prior, ratios = [], [], []
    for tokens, count in _fields(first, second, copies):
        share = np.maximum(np.bincount(tokens, minlength=len(count)) / len(tokens), EDGE)
        alone = np.outer(share, share)
        together = alone * np.exp(_ratios(tokens, count))
        apart.append(alone)
        prior.append(PSEUDO_PAIRS * len(count) * together / together.sum())
        ratios.append(np.log(together / alone))
    hot = [_one_hot(one.tokens, [len(count) for count in copies]) for one in (first, second)]
    for _ in range(ROUNDS):
        links = _links(CAUTION * _summed(first, second, ratios))
        for field, (one, other) in enumerate(zip(*hot, strict=True)):
            found = one.T @ (other.T @ links.T).T
            seen = prior[field] + (found + found.T) * len(links) / (2 * found.sum())
            ratios[field] = np.log(seen / seen.sum() / apart[field])
    return ratios


def score_evidence(first: Requests, second: Requests) -> Floats:
    """Return float64 [first, second], the log-likelihood ratio of each pair's scores.

    Log-odds of two requests by one applicant differ less than those of two applicants; both
    differences are taken to be normal.  Where nothing is smoothed the score depends on the tokens
    alone and adds nothing to them.
    """
    one, other = _log_odds(first.score), _log_odds(second.score)
    spread = max(float(np.concatenate([one, other]).std()), EDGE)
    away = (one[:, None] - other) / spread
    near, far = CLOSENESS * np.sqrt(2), np.sqrt(2)
    ratio = far / near * np.exp(away**2 * (1 / far**2 - 1 / near**2) / 2)
    return np.asarray(np.log(1 - KEPT + KEPT * ratio))


def undivided(sizes: Sequence[int]) -> list[Floats]:
    """Return ``copies`` of `token_evidence` where each value has one token.

    Args:
        sizes: Tokens of each field.
    """
    return [np.ones(size) for size in sizes]


def homophones(requests: Sequence[Requests], sample: Auxiliary, most_share: float) -> list[Floats]:
    """Return ``copies`` of `token_evidence` for smoothing by method ``proportional``.

    The attacker knows the schema's ``most_share``, so how many homophones each level of the sample
    would have, and takes a token for one of the level whose homophones have the closest share.

    Args:
        requests: All that were seen.
        sample: Plain rows of the population.
        most_share: Of each field.
    """
    seen = np.concatenate([one.tokens for one in requests])
    copies = []
    for tokens, counts in zip(seen.T, sample.counts, strict=True):
        level = (counts + 0.5) / (counts + 0.5).sum()
        parts = np.ceil(level / most_share)
        token = (np.bincount(tokens) + 0.5) / (len(tokens) + 0.5)
        away = np.abs(np.log(token[:, None]) - np.log(level / parts))
        copies.append(parts[away.argmin(axis=1)])
    return copies


def _fields(
    first: Requests, second: Requests, copies: Sequence[Floats]
) -> Iterator[tuple[np.ndarray, Floats]]:
    """Yield the tokens of all requests, and the copies of each token, field by field."""
    for field, count in enumerate(copies):
        yield np.concatenate([first.tokens[:, field], second.tokens[:, field]]), count


def _summed(first: Requests, second: Requests, ratios: Sequence[Floats]) -> Floats:
    """Return float64 [first, second], the sum over fields of what each table says of a pair."""
    total = np.zeros((len(first.tokens), len(second.tokens)))
    for field, pair in enumerate(ratios):
        total += pair[first.tokens[:, field]][:, second.tokens[:, field]]
    return total


def _links(evidence: Floats) -> Floats:
    """Return float64 [first, second], how likely each pair is a link, if each has just one."""
    rows = softmax(evidence, axis=1)
    columns = softmax(evidence, axis=0)
    return np.asarray((rows + columns) / 2)


def _one_hot(tokens: Indices, sizes: Sequence[int]) -> list[csr_array]:
    """Return per field a sparse matrix [requests, tokens] with a one where a request holds it."""
    rows = np.arange(len(tokens) + 1)
    return [
        csr_array((np.ones(len(tokens)), column, rows), shape=(len(tokens), size))
        for column, size in zip(tokens.T, sizes, strict=True)
    ]


def _ratios(tokens: np.ndarray, copies: Floats) -> Floats:
    """Return float64 [tokens, tokens], the log-likelihood ratio of one field's pairs of tokens."""
    share = np.bincount(tokens, minlength=len(copies)) / len(tokens)
    several = copies > 1
    divided = max(float(share[several].sum()), EDGE)
    another = KEPT * (1 - 1 / copies[:, None]) / divided * (several[:, None] & several)
    ratio = 1 - KEPT + another
    token = np.arange(len(copies))
    ratio[token, token] = 1 - KEPT + KEPT / copies / np.maximum(share, EDGE)
    return np.asarray(np.log(ratio))


def _log_odds(probability: Floats) -> Floats:
    kept = np.clip(probability, EDGE, 1 - EDGE)
    return np.asarray(np.log(kept) - np.log1p(-kept))
