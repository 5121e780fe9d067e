"""Thirds of a raw table: one teaches the host's model, one asks for scores, one is the attacker's.

Bins, categories and homophones are fitted on the first third, as `cipherscore encrypt` does, and
the attacker is taken to know the bins.  No row is in two thirds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from attacks.requests.linkage import Requests
from attacks.requests.naming import Stream
from attacks.view import Auxiliary, Indices
from cipherscore.client.encryption import FieldCipher
from cipherscore.client.fitting import without_unused
from cipherscore.client.homophones import DRAW_MASK
from cipherscore.client.keys import Keyset
from cipherscore.client.records import RecordCodec
from cipherscore.client.tables import field_column, level_indices
from cipherscore.dataset import TokenColumn
from cipherscore.errors import DataError
from cipherscore.smoothing import Smoothing
from cipherscore.vocabulary import UNSEEN, Vocabulary
from evaluation.folds import Fold, RawData, Rows, token_dataset
from training.classifier import fit_classifier, predict
from training.network import FieldNetwork
from training.presets import ClassifierPreset

LEAST_OF_CLASS = 5
"""Rows of each class that a third must have, or no model can be trained on it."""


@dataclass(frozen=True)
class Service:
    """A host's model, asked in levels: draws homophones as a client does, and scores the tokens.

    Args:
        codec: The owner's, of the schema that was fitted on the taught rows.
        vocabulary: Of the model.
        network: The model.
    """

    codec: RecordCodec
    vocabulary: Vocabulary
    network: FieldNetwork

    def scores(self, tokens: Indices) -> NDArray[np.float64]:
        """Return the model's probability of bad credit, float64 [rows].

        A token that no taught row has contributes nothing; a running host would refuse it.
        """
        indices = np.full(tokens.shape, UNSEEN, np.int32)
        names = [field.name for field in self.codec.schema.fields]
        for place, name in enumerate(self.vocabulary.fields):
            known = self.vocabulary.encode(name, self.codec.choices[name].tokens)
            indices[:, place] = np.asarray(known, np.int32)[tokens[:, names.index(name)]]
        return np.asarray(predict(self.network, indices), np.float64)

    def asked(self, levels: Indices, generator: np.random.Generator) -> Requests:
        """Return requests about applicants of these levels, as the host sees them."""
        tokens = draw_tokens(self.codec, levels, generator)
        return Requests(tokens, self.scores(tokens))


@dataclass(frozen=True)
class RequestCut:
    """One division of a table.

    Args:
        number: Of the cut; with the seed it decides all that is drawn.
        seed: Of the audit.
        service: The host's model, taught on the first third.
        taught: int32 [rows, fields], the levels of that third.
        truth: int32 [requests, fields], the levels of the second third, which asks for scores.
        pool: The last third, in random order.
    """

    number: int
    seed: int
    service: Service
    taught: Indices
    truth: Indices
    pool: Auxiliary

    @classmethod
    def of(cls, raw: RawData, number: int, seed: int, preset: ClassifierPreset) -> RequestCut:
        """Divide a table, encrypt it under a fresh key and train a model on the first third.

        Rows of one group stay together where the schema names a group column.

        Raises:
            DataError: The table is too small to divide, or a third lacks a class.
        """
        taught, asking, others = _thirds(raw, np.random.default_rng([seed, number]))
        fold = Fold(0, number, taught, np.concatenate([asking, others]))
        keyset = Keyset.create()
        dataset, codec = token_dataset(raw, fold, keyset)
        levels = np.stack(
            [level_indices(field_column(raw.table, f), f) for f in codec.schema.fields], axis=1
        ).astype(np.int32)
        sizes = tuple(len(field.levels) for field in codec.schema.fields)
        # Drawn by the seed and not by the key, so that another key gives the same figures.
        tokens = draw_tokens(codec, levels, np.random.default_rng([seed, number, 0]))
        dataset = replace(dataset, columns=_columns(codec, tokens))
        vocabulary = dataset.build_vocabulary()
        fitted = fit_classifier(dataset, vocabulary, preset, seed=seed + number)
        used = {f.name: set(vocabulary.tokens[f.name]) for f in codec.schema.fields if f.smoothed}
        schema = without_unused(codec.schema, codec, used)
        codec = RecordCodec(FieldCipher(keyset, schema))
        return cls(
            number,
            seed,
            Service(codec, vocabulary, fitted.network),
            levels[taught],
            levels[asking],
            Auxiliary(levels[others], raw.label[others], sizes),
        )

    def generator(self, purpose: int) -> np.random.Generator:
        """Return the randomness of one purpose; same cut, seed and purpose, same draws."""
        return np.random.default_rng([self.seed, self.number, purpose])

    def sample(self, share: float) -> Auxiliary:
        """Return the attacker's sample, ``share`` times as many rows as there are requests."""
        rows = max(1, min(len(self.pool.label), round(share * len(self.truth))))
        return Auxiliary(self.pool.levels[:rows], self.pool.label[:rows], self.pool.sizes)

    def stream(self, levels: Indices) -> Stream:
        """Return requests about applicants of these levels, in this order, as a stream."""
        requests = self.service.asked(levels, self.generator(1))
        return Stream(list(requests.tokens.T), requests.score)


def draw_tokens(codec: RecordCodec, levels: Indices, generator: np.random.Generator) -> Indices:
    """Return int32 [rows, fields], the number of the token that each cell is sent as.

    Tokens of a field are numbered in the order of levels and homophones.  Where a level has
    several, each row draws one, as often as the fitted schema says.
    """
    columns = []
    for place, field in enumerate(codec.schema.fields):
        starts = np.array(codec.choices[field.name].starts, np.uint64)
        draws = generator.integers(DRAW_MASK + 1, size=len(levels), dtype=np.uint64)
        keys = levels[:, place].astype(np.uint64) * np.uint64(DRAW_MASK + 1) + draws
        columns.append(np.searchsorted(starts, keys, side="right") - 1)
    return np.stack(columns, axis=1).astype(np.int32)


def smoothed(raw: RawData, most_share: float) -> RawData:
    """Return the table with a schema that smooths all fields; 1 leaves it as it is."""
    if most_share == 1:
        return raw
    fields = tuple(
        replace(field, smoothing=Smoothing(most_share), homophones={})
        for field in raw.schema.fields
    )
    return replace(raw, schema=replace(raw.schema, fields=fields))


def _columns(codec: RecordCodec, tokens: Indices) -> dict[str, TokenColumn]:
    """Return drawn tokens as the columns of an encrypted table."""
    both = zip(codec.schema.fields, tokens.T, strict=True)
    return {f.name: TokenColumn(codec.choices[f.name].tokens, column) for f, column in both}


def _thirds(raw: RawData, generator: np.random.Generator) -> tuple[Rows, Rows, Rows]:
    """Return the rows of each third in random order, classes in their proportion if ungrouped."""
    order = generator.permutation(raw.rows)
    if raw.group is None:
        place = np.empty(raw.rows, np.int64)
        for value in (0, 1):
            members = np.flatnonzero(raw.label[order] == value)
            place[members] = np.arange(len(members)) * 3 // max(1, len(members))
    else:
        _, member = np.unique(raw.group, return_inverse=True)
        groups = int(member.max()) + 1
        place = (generator.permutation(groups) * 3 // groups)[member[order]]
    thirds = (order[place == 0], order[place == 1], order[place == 2])
    least = min(int(np.bincount(raw.label[third], minlength=2).min()) for third in thirds)
    if least < LEAST_OF_CLASS:
        raise DataError(
            f"a third of the table has {least} rows of its rarer class, too few to audit requests, "
            f"which needs {LEAST_OF_CLASS}; give more rows, or audit the tokens only"
        )
    return thirds
