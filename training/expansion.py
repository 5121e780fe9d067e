"""A network that was trained on levels, made to take homophones: nobody but its owner trains.

The host then has a model and no table: no copies of rows, no labels, no co-occurrence but that of
requests.  It still has the weights.  Homophones with equal weights are found by looking; noise
makes them differ, and the answers with them.  Noise that leaves all answers as they are would hide
nothing: whoever has the model can compare tokens by what it answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy

import numpy as np
import torch

from cipherscore.errors import ConfigurationError, TrainingError
from cipherscore.vocabulary import Vocabulary
from training.network import FieldNetwork

Homophones = Mapping[str, Mapping[bytes, Sequence[bytes]]]
"""Field name to: token of the table that was learned from, to its tokens under smoothing."""


def expand(
    network: FieldNetwork,
    vocabulary: Vocabulary,
    homophones: Homophones,
    *,
    noise: float = 0.0,
    seed: int = 0,
) -> tuple[FieldNetwork, Vocabulary]:
    """Return a network with a column for each homophone, and its vocabulary.

    Each homophone gets the weights of its level's token.  Noise is normal, has mean 0 over the
    homophones of a level, so that a level keeps its mean weights, and leaves levels of one token
    as they are.

    Args:
        network: Trained; it is left as it is.
        vocabulary: Its columns.
        homophones: For every token of the vocabulary.
        noise: Standard deviation of the noise, in those of a token table's weights.
        seed: Of the noise.  It must stay with the owner: with it noise can be taken off.

    Raises:
        ConfigurationError: ``noise`` is negative or no number.
        TrainingError: A token of the vocabulary has no homophone.
    """
    if not 0 <= noise < np.inf:
        raise ConfigurationError(f"noise must be a number, 0 or more, not {noise}")
    starts = np.cumsum([0, *vocabulary.sizes])
    level_of: dict[str, dict[bytes, int]] = {}
    for field, start in zip(vocabulary.fields, starts, strict=False):
        level_of[field] = {}
        for level, token in enumerate(vocabulary.tokens[field], int(start)):
            same = homophones.get(field, {}).get(token, ())
            if not same:
                raise TrainingError(f"field {field!r}: a token of the vocabulary has no homophone")
            level_of[field].update(dict.fromkeys(same, level))
    grown = Vocabulary.build(vocabulary.key_id, level_of)
    order = [level_of[field][token] for field, tokens in grown.tokens.items() for token in tokens]
    expanded = deepcopy(network)
    _resize(expanded, grown.sizes)
    generator = torch.Generator().manual_seed(seed)
    names = {id(table): name for name, table in network.named_parameters()}
    for table in network.token_tables():
        rows = table.detach()[order]
        rows = rows + noise * table.detach().std(dim=0) * _centred(order, rows.shape, generator)
        setattr(expanded, names[id(table)], torch.nn.Parameter(rows))
    return expanded.eval(), grown


def _resize(network: FieldNetwork, sizes: Sequence[int]) -> None:
    network.sizes = list(sizes)
    network.width = sum(sizes)
    starts = [sum(sizes[:field]) for field in range(len(sizes))]
    network.offsets = torch.tensor(starts)


def _centred(
    levels: Sequence[int], shape: Sequence[int], generator: torch.Generator
) -> torch.Tensor:
    """Return normal noise of ``shape``, of mean 0 over the rows of one level and of variance 1.

    A level of one row has none.
    """
    drawn = torch.randn(*shape, generator=generator)
    level = torch.tensor(levels)
    counts = torch.bincount(level).float()[level, None]
    sums = torch.zeros(max(levels) + 1, shape[1]).index_add_(0, level, drawn)
    spread = (drawn - sums[level] / counts) * torch.sqrt(counts / (counts - 1).clamp(min=1))
    return torch.where(counts > 1, spread, 0.0)
