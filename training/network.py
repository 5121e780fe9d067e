"""Classifier networks in PyTorch.

All take per-field column indices (int32 [batch, fields]) and build the multi-hot row in the graph,
so that a caller never makes one.  `UNSEEN` (-1) sets no column and contributes nothing.

The weights of a column (a row of a *token table*) are made in an order that does not depend on the
tokens' bytes and moved to the vocabulary's sorted columns at the end (`move_columns`).  A training
is therefore exactly equivariant to renaming categories: encrypting a table changes no prediction.

While a network trains on a smoothed table, the weights in use are means over tokens that seem to be
homophones (`training.sharing`); `settle` makes them its own, so that a trained network knows
nothing of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.presets import ClassifierPreset


@dataclass(frozen=True)
class TokenRows:
    """Rows as columns and weights; ``rows @ table`` is what multi-hot rows would give.

    It sums one row of ``table`` per field and never makes the multi-hot row, whose width grows with
    the vocabulary; training on it takes a fraction of the time.

    Args:
        columns: int64 [rows, fields], a column each, of any number where the weight is 0.
        weights: float32 [rows, fields], what the multi-hot row would hold there.
    """

    columns: Tensor
    weights: Tensor

    def __matmul__(self, table: Tensor) -> Tensor:
        """Return float32 [rows, outputs] for a float32 [width, outputs] ``table``."""
        sums: Tensor = functional.embedding_bag(
            self.columns, table, mode="sum", per_sample_weights=self.weights
        )
        return sums


class FieldNetwork(nn.Module):
    """Base of the classifier networks: multi-hot input, one or more members, one probability.

    Args:
        sizes: Columns of each field, in vocabulary order.
        members: Networks of the ensemble.

    ``sharing`` holds, per field, how its tokens share weights, see `training.sharing`; empty where
    they do not, and a field whose entry is empty does not.
    """

    offsets: Tensor

    def __init__(self, sizes: Sequence[int], members: int) -> None:
        super().__init__()
        self.width = sum(sizes)
        self.members = members
        self.sizes = list(sizes)
        self.sharing: tuple[Tensor, ...] = ()
        starts = [sum(sizes[:field]) for field in range(len(sizes))]
        self.register_buffer("offsets", torch.tensor(starts), persistent=False)

    def forward(self, indices: Tensor) -> Tensor:
        """Return the probability of bad credit, float32 [batch], for int32 [batch, fields]."""
        logits: Tensor = self.member_logits(self.multi_hot(indices))
        return torch.sigmoid(logits.mean(dim=1))

    def multi_hot(self, indices: Tensor) -> Tensor:
        """Return float32 [batch, width] with a 1 in the column of each field's token.

        Unseen tokens are sent to one more column, which is cut off again.
        """
        columns = indices.to(torch.int64)
        columns = torch.where(columns >= 0, columns + self.offsets, self.width)
        row = torch.zeros(indices.shape[0], self.width + 1, device=indices.device)
        return row.scatter(1, columns, 1.0)[:, : self.width]

    def member_logits(self, row: Tensor | TokenRows) -> Tensor:
        """Return float32 [batch, members] logits for float32 [batch, width] multi-hot rows."""
        raise NotImplementedError

    def start_at(self, prior: float) -> None:
        """Let the untrained network answer about ``prior``, where its recipe does so."""

    def token_tables(self) -> list[nn.Parameter]:
        """Return the parameters whose first dimension is the columns."""
        raise NotImplementedError

    def wide_parameters(self) -> list[nn.Parameter]:
        """Return the weights of the linear part; they have a decay of their own."""
        return []

    def deep_parameters(self) -> list[nn.Parameter]:
        """Return all other weights that decay."""
        raise NotImplementedError

    def plain_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that never decay: the biases."""
        decayed = {id(p) for p in self.wide_parameters() + self.deep_parameters()}
        return [p for p in self.parameters() if id(p) not in decayed]

    def shared(self, table: Tensor) -> Tensor:
        """Return a token table as it is used: with the tokens of each field sharing weights."""
        if not self.sharing:
            return table
        parts = zip(self.sharing, torch.split(table, self.sizes), strict=True)
        return torch.cat([mixing @ part if len(mixing) else part for mixing, part in parts])

    @torch.no_grad()
    def settle(self) -> None:
        """Make the shared weights the network's own; its answers stay as they are."""
        for table in self.token_tables():
            table.copy_(self.shared(table))
        self.sharing = ()

    @torch.no_grad()
    def move_columns(self, order: Sequence[int]) -> None:
        """Move the weights of column ``i`` to column ``order[i]``; ``order`` is a permutation."""
        target = torch.as_tensor(order)
        for table in self.token_tables():
            moved = torch.empty_like(table)
            moved[target] = table
            table.copy_(moved)


class WideDeepEnsemble(FieldNetwork):
    """Members of a linear part plus one small hidden layer, computed together.

    Logit of a member: ``bias + row @ wide + relu(row @ first + first_bias) @ last``.
    """

    def __init__(self, sizes: Sequence[int], members: int, hidden: int, dropout: float) -> None:
        super().__init__(sizes, members)
        self.hidden = hidden
        self.dropout = dropout
        self.wide = nn.Parameter(torch.zeros(self.width, members))
        self.bias = nn.Parameter(torch.zeros(members))
        first = torch.randn(self.width, members * hidden) / math.sqrt(len(sizes))
        self.first = nn.Parameter(first)
        self.first_bias = nn.Parameter(torch.zeros(members * hidden))
        self.last = nn.Parameter(torch.randn(members, hidden) / math.sqrt(hidden))

    def member_logits(self, row: Tensor | TokenRows) -> Tensor:
        """See `FieldNetwork.member_logits`."""
        units = torch.relu(row @ self.shared(self.first) + self.first_bias)
        units = functional.dropout(units, self.dropout, self.training)
        units = units.view(-1, self.members, self.hidden)
        linear = row @ self.shared(self.wide) + self.bias
        logits: Tensor = linear + (units * self.last).sum(dim=2)
        return logits

    def start_at(self, prior: float) -> None:
        """See `FieldNetwork.start_at`."""
        with torch.no_grad():
            self.bias.fill_(math.log(prior / (1 - prior)))

    def token_tables(self) -> list[nn.Parameter]:
        """See `FieldNetwork.token_tables`."""
        return [self.wide, self.first]

    def wide_parameters(self) -> list[nn.Parameter]:
        """See `FieldNetwork.wide_parameters`."""
        return [self.wide]

    def deep_parameters(self) -> list[nn.Parameter]:
        """See `FieldNetwork.deep_parameters`."""
        return [self.first, self.last]


class DenseLayers(FieldNetwork):
    """A chain of dense layers with ReLU and dropout: the capstone's network."""

    def __init__(self, sizes: Sequence[int], hidden: Sequence[int], dropout: float) -> None:
        super().__init__(sizes, members=1)
        bound = 1 / math.sqrt(self.width)
        self.first = nn.Parameter(torch.empty(self.width, hidden[0]).uniform_(-bound, bound))
        self.first_bias = nn.Parameter(torch.empty(hidden[0]).uniform_(-bound, bound))
        rest: list[nn.Module] = [nn.ReLU(), nn.Dropout(dropout)]
        for inputs, outputs in pairwise(hidden):
            rest += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)]
        self.rest = nn.Sequential(*rest, nn.Linear(hidden[-1], 1))

    def member_logits(self, row: Tensor | TokenRows) -> Tensor:
        """See `FieldNetwork.member_logits`."""
        logits: Tensor = self.rest(row @ self.shared(self.first) + self.first_bias)
        return logits

    def token_tables(self) -> list[nn.Parameter]:
        """See `FieldNetwork.token_tables`."""
        return [self.first]

    def deep_parameters(self) -> list[nn.Parameter]:
        """See `FieldNetwork.deep_parameters`."""
        return [p for p in self.parameters() if p.dim() == 2]


def build_network(preset: ClassifierPreset, sizes: Sequence[int]) -> FieldNetwork:
    """Build the untrained network of ``preset`` with torch's current random state."""
    if preset.network == "layers":
        return DenseLayers(sizes, preset.hidden, preset.dropout)
    return WideDeepEnsemble(sizes, preset.members, preset.hidden[0], preset.dropout)
