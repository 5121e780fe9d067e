"""Optimisers by name, so that a preset or a sweep can choose one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch

from cipherscore.errors import ConfigurationError

OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = MappingProxyType(
    {
        "sgd": torch.optim.SGD,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "rmsprop": torch.optim.RMSprop,
        "adagrad": torch.optim.Adagrad,
        "adadelta": torch.optim.Adadelta,
    }
)
"""torch's optimisers with their own defaults.  Only AdamW's decay is decoupled from the gradient;
in the others a group's ``weight_decay`` is added to it and acts far more strongly."""


def build_optimizer(
    name: str, groups: Iterable[Mapping[str, Any]], learning_rate: float
) -> torch.optim.Optimizer:
    """Return the optimiser called ``name``.

    Args:
        name: A key of `OPTIMIZERS`.
        groups: Parameter groups, each ``{"params": [...], "weight_decay": float}``; a group without
            parameters is left out.
        learning_rate: Of all groups; in Adadelta it only scales the step, 1.0 is usual.

    Raises:
        ConfigurationError: There is no such optimiser; the message names those there are.
    """
    try:
        build = OPTIMIZERS[name]
    except KeyError:
        known = ", ".join(OPTIMIZERS)
        raise ConfigurationError(f"no optimizer {name!r}; there are: {known}") from None
    return build([dict(group) for group in groups if group["params"]], lr=learning_rate)
