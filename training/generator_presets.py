"""Named parameter sets of the generator, frozen and with their source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from cipherscore.errors import ConfigurationError


@dataclass(frozen=True)
class LargerTable:
    """The size of networks and training from a number of rows on; see `GeneratorPreset`."""

    rows: int
    generator_hidden: tuple[int, ...]
    critic_hidden: tuple[int, ...]
    batch: int
    steps: int
    check_every: int
    pair_weight: float


@dataclass(frozen=True)
class GeneratorPreset:
    """Networks and training recipe of a generator.

    Args:
        name: What ``--preset`` calls it.
        network: ``conditional`` (one categorical head per field, Wasserstein critic with gradient
            penalty, pair tables) or ``capstone`` (two chains of dense layers, sigmoid outputs).
        latent: Gaussian columns that feed the network; 0 takes the width of the vocabulary.
        generator_hidden: Units of the generator's hidden layers.
        critic_hidden: Units of the critic's (discriminator's) hidden layers.
        steps: Generator updates.
        check_every: Updates between two looks at the figures, and between two checkpoints.
        batch: Rows of one update; half of each class.
        critic_updates: Critic updates per generator update.
        penalty: Weight of the gradient penalty (WGAN-GP, Gulrajani et al. 2017).
        pair_weight: Weight of the squared distance between generated and real two-way tables.
        adversarial_weight: Weight of the critic in the generator's loss.
        temperature: Of the Gumbel-softmax gradient.
        averaging: Decay of the moving average of the generator's weights that is kept.
        generator_rate: Adam's learning rate at the start; it falls to a twentieth (cosine).
        critic_rate: Adam's learning rate, constant.
        source: Where the numbers come from.
        larger: What larger tables deserve instead, by rising number of rows; see `for_table`.
    """

    name: str
    network: Literal["conditional", "capstone"]
    latent: int
    generator_hidden: tuple[int, ...]
    critic_hidden: tuple[int, ...]
    steps: int
    check_every: int
    batch: int
    critic_updates: int
    penalty: float
    pair_weight: float
    adversarial_weight: float
    temperature: float
    averaging: float
    generator_rate: float
    critic_rate: float
    source: str
    larger: tuple[LargerTable, ...] = ()

    def for_table(self, rows: int) -> GeneratorPreset:
        """Return the numbers that hold for a table of ``rows`` rows to learn from."""
        found = replace(self, larger=())
        for size in self.larger:
            if rows >= size.rows:
                found = replace(
                    found,
                    generator_hidden=size.generator_hidden,
                    critic_hidden=size.critic_hidden,
                    batch=size.batch,
                    steps=size.steps,
                    check_every=size.check_every,
                    pair_weight=size.pair_weight,
                )
        return found


DEFAULT = GeneratorPreset(
    name="default",
    network="conditional",
    latent=32,
    generator_hidden=(128, 128),
    critic_hidden=(128, 128),
    steps=800,
    check_every=100,
    batch=256,
    critic_updates=1,
    penalty=10.0,
    pair_weight=10.0,
    adversarial_weight=1.0,
    temperature=0.6,
    averaging=0.99,
    generator_rate=1e-3,
    critic_rate=1e-3,
    source="five splits of German Credit: TSTR 0.789, real rows 0.791, closeness share 0.52; see "
    "docs/synthetic-data.md",
    larger=(
        LargerTable(
            5_000, (256, 256), (256, 256), batch=512, steps=2_500, check_every=250, pair_weight=0.5
        ),
        LargerTable(
            20_000, (512, 512), (256, 256), batch=512, steps=4_000, check_every=500, pair_weight=0.5
        ),
    ),
)

CAPSTONE = GeneratorPreset(
    name="capstone",
    network="capstone",
    latent=0,
    generator_hidden=(128, 256, 512, 1024),
    critic_hidden=(1024, 512, 256, 128),
    steps=400,
    check_every=25,
    batch=64,
    critic_updates=1,
    penalty=0.0,
    pair_weight=0.0,
    adversarial_weight=1.0,
    temperature=1.0,
    averaging=0.0,
    generator_rate=2e-4,
    critic_rate=2e-5,
    source="networks: the capstone's Sequential pair, 783,441 parameters each at width 81; rates "
    "and steps are ours: with equal rates the discriminator wins and the generator collapses",
)

GENERATOR_PRESETS: Mapping[str, GeneratorPreset] = MappingProxyType(
    {preset.name: preset for preset in (DEFAULT, CAPSTONE)}
)


def generator_preset(name: str) -> GeneratorPreset:
    """Return the generator's parameter set called ``name``.

    Raises:
        ConfigurationError: There is none; the message names those there are.
    """
    try:
        return GENERATOR_PRESETS[name]
    except KeyError:
        known = ", ".join(GENERATOR_PRESETS)
        raise ConfigurationError(f"no generator preset {name!r}; there are: {known}") from None
