"""What each field of a row contributes to a classifier's logit: exact, in closed form, in float64.

The contributions are Aumann-Shapley values (Aumann & Shapley, Values of Non-Atomic Games, 1974;
as integrated gradients: Sundararajan, Taly & Yan, 2017, arXiv:1703.01365, equation 1) along the
straight line from the mean training row ``x0`` to the row ``x``::

    phi[f] = sum over the columns c of field f of
             (x - x0)[c] * integral over t from 0 to 1 of d logit / d x[c] at x0 + t (x - x0)

On that line the input ``z`` of a hidden unit is linear in t, from ``z0`` to ``z1``, so that the
integral of its ReLU's slope is the secant ``(relu(z1) - relu(z0)) / (z1 - z0)``, and nothing has to
be approximated::

    phi[f] = sum_c (x - x0)[c] * (wide[c] + sum_u first[c, u] * secant[u] * last[u])

with ``wide`` and ``last`` as means over the members.  The values of a row add up to
``logit(x) - logit(x0)``.  With a second hidden layer the input of a unit is no longer linear in t,
and there is no such form.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cipherscore.dataset import TRAIN, TokenDataset
from cipherscore.errors import TrainingError
from cipherscore.vocabulary import UNSEEN, Vocabulary
from training.evaluation import Floats
from training.network import FieldNetwork, WideDeepEnsemble

ROWS = 4096
"""Rows explained at a time; it bounds memory."""


@dataclass(frozen=True)
class OneHiddenLayer:
    """An ensemble of networks with one hidden layer as one network, and what it is compared with.

    ``logit(x) = bias + x @ wide + relu(x @ first + first_bias) @ last`` for a multi-hot row ``x``.

    Attributes:
        sizes: Columns of each field.
        wide: float64 [width], mean over the members.
        bias: Mean over the members.
        first: float64 [width, units], the units of all members.
        first_bias: float64 [units].
        last: float64 [units], divided by the number of members.
        mean: float64 [width], the mean training row ``x0``.
    """

    sizes: tuple[int, ...]
    wide: Floats
    bias: float
    first: Floats
    first_bias: Floats
    last: Floats
    mean: Floats

    @classmethod
    def of(cls, network: FieldNetwork, sizes: tuple[int, ...], mean: Floats) -> OneHiddenLayer:
        """Take the weights out of a trained network.

        Args:
            network: A `WideDeepEnsemble`; see `has_closed_form`.
            sizes: Columns of each field, in vocabulary order.
            mean: float64 [width], as `mean_row` gives it.

        Raises:
            TrainingError: The network has another form, or ``mean`` another width.
        """
        if not isinstance(network, WideDeepEnsemble):
            raise TrainingError(
                f"{type(network).__name__} has no reason codes: only networks with one hidden "
                "layer have them; train the default preset"
            )
        if mean.shape != (network.width,) or sum(sizes) != network.width:
            raise TrainingError(
                f"the mean row has {mean.shape} columns, the fields {sum(sizes)}, the network "
                f"{network.width}"
            )
        state = {name: value.double().numpy() for name, value in network.state_dict().items()}
        return cls(
            sizes=tuple(sizes),
            wide=state["wide"].mean(axis=1),
            bias=float(state["bias"].mean()),
            first=state["first"],
            first_bias=state["first_bias"],
            last=state["last"].reshape(-1) / network.members,
            mean=mean.astype(np.float64),
        )

    @property
    def starts(self) -> np.ndarray:
        """First column of each field, int64 [fields]."""
        return np.concatenate([[0], np.cumsum(self.sizes)[:-1]]).astype(np.int64)

    @property
    def base(self) -> float:
        """Logit of the mean row."""
        return float(self.logit(self.mean[None])[0])

    def logit(self, rows: Floats) -> Floats:
        """Return float64 [rows] for rows given as columns, float64 [rows, width]."""
        units = np.maximum(rows @ self.first + self.first_bias, 0.0)
        logit: Floats = self.bias + rows @ self.wide + units @ self.last
        return logit

    def contributions(self, indices: np.ndarray) -> Floats:
        """Return what each field contributes, in log-odds towards bad credit.

        A token that was not seen in training counts as a row of zeros in its field's columns.

        Args:
            indices: int32 [rows, fields] in vocabulary order, -1 for an unseen token.

        Returns:
            float64 [rows, fields]; a row's sum is its logit less `base`.
        """
        parts = [
            self._contributions(indices[start : start + ROWS])
            for start in range(0, len(indices), ROWS)
        ]
        return np.concatenate(parts) if parts else np.empty((0, len(self.sizes)))

    def _contributions(self, indices: np.ndarray) -> Floats:
        moved = np.zeros((len(indices), len(self.mean)))
        rows, fields = np.nonzero(indices != UNSEEN)
        moved[rows, indices[rows, fields] + self.starts[fields]] = 1.0
        moved -= self.mean
        before = self.mean @ self.first + self.first_bias
        after = before + moved @ self.first
        slopes = (secant(before, after) * self.last) @ self.first.T
        each: Floats = np.add.reduceat(moved * (self.wide + slopes), self.starts, axis=1)
        return each


def secant(before: Floats, after: Floats) -> Floats:
    """Return the mean slope of ReLU between two inputs, 0 to 1, float64 in their common shape.

    Written without a difference of close numbers: it is the share of the way that lies above zero.
    Where both inputs are the same it is the slope there, with 0 at zero.
    """
    top, way = np.maximum(before, after), np.abs(after - before)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        share = np.where(way > 0, top / way, np.where(top > 0, 1.0, 0.0))
    found: Floats = np.clip(share, 0.0, 1.0)
    return found


def has_closed_form(network: FieldNetwork) -> bool:
    """Return whether exact contributions exist for the network: it has one hidden layer."""
    return isinstance(network, WideDeepEnsemble)


def mean_row(dataset: TokenDataset, vocabulary: Vocabulary) -> Floats:
    """Return the mean multi-hot training row: per field the frequencies of its tokens.

    Args:
        dataset: The table that was trained on.
        vocabulary: Of the model.

    Returns:
        float64 [width], columns in vocabulary order.

    Raises:
        TrainingError: The table has no training row.
    """
    training = dataset.indices(vocabulary)[dataset.split == TRAIN]
    if not len(training):
        raise TrainingError("the table has no training row to compare with")
    counts = [
        np.bincount(column[column != UNSEEN], minlength=size)
        for column, size in zip(training.T, vocabulary.sizes, strict=True)
    ]
    mean: Floats = np.concatenate(counts) / len(training)
    return mean
