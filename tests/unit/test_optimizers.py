"""Optimisers by name."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from cipherscore.errors import ConfigurationError
from training.optimizers import OPTIMIZERS, build_optimizer
from training.presets import OptimizerName


def test_presets_and_optimizers_name_the_same():
    assert set(get_args(OptimizerName)) == set(OPTIMIZERS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_goes_downhill(name):
    point = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
    empty = {"params": [], "weight_decay": 0.5}
    rate = 1.0 if name == "adadelta" else 0.05
    optimizer = build_optimizer(name, [{"params": [point], "weight_decay": 0.0}, empty], rate)
    assert len(optimizer.param_groups) == 1
    start = float((point**2).sum().detach())
    for _ in range(50):
        optimizer.zero_grad()
        (point**2).sum().backward()
        optimizer.step()
    assert float((point**2).sum().detach()) < start


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_decay_belongs_to_its_group(name):
    decayed, plain = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    groups = [
        {"params": [decayed], "weight_decay": 0.5},
        {"params": [plain], "weight_decay": 0.0},
    ]
    optimizer = build_optimizer(name, groups, 0.1)
    for parameter in (decayed, plain):
        parameter.grad = torch.zeros(2)
    optimizer.step()
    torch.testing.assert_close(decayed.detach(), torch.full((2,), 0.95))
    torch.testing.assert_close(plain.detach(), torch.ones(2))


def test_an_unknown_optimizer_is_named():
    with pytest.raises(ConfigurationError, match=r"'lion'; there are: sgd, adam, .*adadelta"):
        build_optimizer("lion", [], 0.1)
