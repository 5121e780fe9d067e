"""A trained generator in memory and on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from cipherscore.errors import TrainingError
from training.arrays import Arrays, read_arrays, write_arrays
from training.capstone_gan import CapstoneSampler, build_dense
from training.conditional import ConditionalSampler, build_generator
from training.generator_presets import GeneratorPreset
from training.runs import Run

WEIGHTS_FORMAT = 1

Sampler = ConditionalSampler | CapstoneSampler


@dataclass(frozen=True)
class FittedGenerator:
    """A trained generator.

    Args:
        sampler: With the kept weights.
        chosen_step: Step they are from: the one with the best pair fidelity to the learned rows, or
            the last one, where choosing would give away something about them.
        figures: Figures of the training, by name.
        class_prior: Share of bad rows in what it was taught.
        preset: Its networks and recipe, as they were for this table.
    """

    sampler: Sampler
    chosen_step: int
    figures: Mapping[str, float]
    class_prior: float
    preset: GeneratorPreset


def build_sampler(preset: GeneratorPreset, sizes: Sequence[int]) -> Sampler:
    """Return the untrained generator of ``preset``."""
    if preset.network == "capstone":
        dense = build_dense(sum(sizes) + 1, preset.generator_hidden, 0, "generator")
        return CapstoneSampler(dense, sizes)
    return ConditionalSampler(build_generator(preset, sum(sizes)), sizes, preset.latent)


def save_generator(path: Path, fitted: FittedGenerator) -> None:
    """Write a generator's weights atomically."""
    sizes = list(fitted.sampler.heads.sizes)
    facts = {"format": WEIGHTS_FORMAT, "preset": asdict(fitted.preset), "sizes": sizes}
    write_arrays(path, weights_of(fitted.sampler), facts)


def load_sampler(run: Run) -> Sampler:
    """Read the trained generator of a run.

    Raises:
        TrainingError: The weights are missing, damaged, or do not fit the run's vocabulary.
    """
    arrays, facts = read_arrays(run.weights_path)
    sizes = run.vocabulary().sizes
    try:
        fits = facts["format"] == WEIGHTS_FORMAT and tuple(facts["sizes"]) == sizes
        hidden = {k: tuple(facts["preset"][k]) for k in ("generator_hidden", "critic_hidden")}
        sampler = build_sampler(GeneratorPreset(**{**facts["preset"], **hidden}), sizes)
        set_weights(sampler, arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{run.weights_path}: damaged ({type(error).__name__})") from error
    if not fits:
        raise TrainingError(f"{run.weights_path}: does not fit the run's vocabulary")
    return sampler


def weights_of(sampler: Sampler) -> dict[str, np.ndarray]:
    """Return a copy of the weights by name."""
    return {f"w{i:03}": value.copy() for i, value in enumerate(sampler.network.get_weights())}


def set_weights(sampler: Sampler, weights: Arrays) -> None:
    """Take up what `weights_of` returned.

    Raises:
        ValueError: They are of another network.
    """
    sampler.network.set_weights([weights[name] for name in sorted(weights)])
