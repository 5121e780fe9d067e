"""Networks that learned from levels and take homophones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cipherscore.errors import ConfigurationError, TrainingError
from tests.support.token_tables import drawn, table
from training.classifier import fit_classifier, predict
from training.expansion import expand
from training.network import build_network
from training.presets import CAPSTONE, DEFAULT

SMALL = replace(DEFAULT, steps=40, members=4, hidden=(8,))
HOMOPHONES = 5


def copies(vocabulary, but=()):
    """`HOMOPHONES` tokens for each token, those of ``but`` one."""
    return {
        field: {
            token: [b"%s/%d" % (token, n) for n in range(1 if field in but else HOMOPHONES)]
            for token in tokens
        }
        for field, tokens in vocabulary.tokens.items()
    }


@pytest.fixture(scope="module")
def learned():
    dataset = table()
    vocabulary = dataset.build_vocabulary()
    return fit_classifier(dataset, vocabulary, SMALL, seed=0).network, vocabulary


def test_without_noise_every_draw_gets_the_answer_of_its_level(learned):
    network, vocabulary = learned
    before = {name: value.clone() for name, value in network.state_dict().items()}
    grown, wider = expand(network, vocabulary, copies(vocabulary))
    dataset = table(60, seed=3)
    expected = predict(network, dataset.indices(vocabulary))
    order = np.random.default_rng(9).permutation(60)  # the order in which `drawn` lays rows
    asked = drawn(dataset, HOMOPHONES, 1, seed=9)
    assert wider.sizes == tuple(HOMOPHONES * size for size in vocabulary.sizes)
    np.testing.assert_allclose(predict(grown, asked.indices(wider)), expected[order], rtol=1e-6)
    again = network.state_dict()
    assert all(torch.equal(again[name], value) for name, value in before.items())


@pytest.mark.parametrize("preset", [SMALL, CAPSTONE], ids=lambda p: p.name)
def test_noise_keeps_the_mean_weights_of_a_level_and_has_the_size_asked_for(preset):
    vocabulary = table().build_vocabulary()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(preset, vocabulary.sizes)
    flat, wide = expand(network, vocabulary, copies(vocabulary, but=["beta"]))
    noisy, _ = expand(network, vocabulary, copies(vocabulary, but=["beta"]), noise=0.5, seed=1)
    starts = dict(zip(wide.fields, np.cumsum([0, *wide.sizes]), strict=False))
    ratios = []
    for name, table_ in network.named_parameters():
        if not any(table_ is one for one in network.token_tables()):
            continue
        added = (noisy.get_parameter(name) - flat.get_parameter(name)).detach()
        for field, tokens in vocabulary.tokens.items():
            for token in tokens:
                same = copies(vocabulary, but=["beta"])[field][token]
                rows = added[[starts[field] + wide.index[field][one] for one in same]]
                torch.testing.assert_close(
                    rows.mean(dim=0), torch.zeros(rows.shape[1]), atol=1e-6, rtol=0
                )
                assert bool(rows.any()) == (field != "beta" and bool(table_.any()))
        spread = table_.detach().std(dim=0)
        if bool(table_.any()):
            varied = [
                starts[f] + n
                for f in wide.fields
                if f != "beta"
                for n in range(wide.sizes[wide.fields.index(f)])
            ]
            ratios.append(float((added[varied].pow(2).mean(dim=0).sqrt() / spread).mean()))
    # Of n centred values the mean square is (n - 1) / n of the variance, times n / (n - 1) here.
    assert ratios == pytest.approx([0.5] * len(ratios), rel=0.1)


def test_the_seed_decides_the_noise(learned):
    network, vocabulary = learned
    first, second, other = (
        expand(network, vocabulary, copies(vocabulary), noise=1, seed=seed)[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first.first, second.first)
    assert not torch.allclose(first.first, other.first)


@pytest.mark.parametrize("noise", [-0.1, float("nan"), float("inf")])
def test_wrong_noise_is_refused(learned, noise):
    network, vocabulary = learned
    with pytest.raises(ConfigurationError, match="noise must be"):
        expand(network, vocabulary, copies(vocabulary), noise=noise)


def test_a_token_without_homophones_is_refused(learned):
    network, vocabulary = learned
    lacking = copies(vocabulary)
    lacking["beta"].popitem()
    with pytest.raises(TrainingError, match="'beta'"):
        expand(network, vocabulary, lacking)
