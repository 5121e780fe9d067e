"""Generators trained on random halves of one pool of rows, and the attacks on their rows.

As for classifiers (`attacks.classifier.shadows`): each generator is attacked in turn, with the
others as the attacker's shadows, and the control is another generator, of which it is asked what
that learned.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from attacks.classifier.answers import Floats
from attacks.classifier.membership import Shadows, by_signal, lira_offline, lira_online
from attacks.classifier.pools import Members, Pool
from attacks.generator.density import best_width, closeness, log_density
from attacks.ranking import membership_figures
from attacks.view import Indices
from evaluation.store import Entry, Task
from training.fidelity import Rows
from training.generator_presets import GeneratorPreset

Content = dict[str, Any]

ATTACKS = {
    "closest": "closest record (GAN-Leaks)",
    "ratio": "density ratio to a reference sample (DOMIAS)",
    "offline": "shadow generators, without the row",
    "online": "shadow generators, with and without the row",
    "control": "control: density ratio, on rows of another generator",
}
DRAWN_ROWS = 5_000
"""Synthetic rows that the attacker gets at least; for large tables as many as were learned."""
DIGITS = 5


@dataclass(frozen=True)
class GeneratorShadows:
    """The trainings of one pool.

    Args:
        pool: The rows that generators learn, and that are asked about.
        reference: int32 [rows, fields + 1], other rows of the population with their label, which
            the attacker has.
        generators: How many are trained.
        preset: Their recipe.
        epsilon: Of differential privacy of one row; None for none.
        seed: Of halves, trainings, synthetic rows and, in the private case, noise.
        kept: Where results are kept.
        share: Of the pool that each generator learns from.
    """

    pool: Pool
    reference: Indices
    generators: int
    preset: GeneratorPreset
    epsilon: float | None
    seed: int
    kept: dict[str, Entry]
    share: float = 0.5

    def tasks(self) -> Iterator[Task]:
        """Yield the trainings."""
        for number in range(self.generators):
            yield Task(self.kept, f"generator/{number}", partial(self._trained, number))

    @property
    def inside(self) -> Members:
        """Which generator learned from which row, bool [generators, rows]."""
        both = [self.pool.members(self.seed, n, self.share) for n in range(self.generators)]
        return np.stack(both)

    def entries(self) -> list[Entry]:
        """Return the finished trainings."""
        return [self.kept[f"generator/{number}"] for number in range(self.generators)]

    def signal(self, name: str) -> Floats:
        """Return ``closest`` or ``density`` of all, float64 [generators, rows]."""
        return np.array([entry[name] for entry in self.entries()])

    def reference_density(self) -> Floats:
        """Return the log-density of the reference sample at each row, float64 [rows]."""
        return reference_density(self.pool, self.reference)

    def _trained(self, number: int) -> Entry:
        learned = self.pool.take(self.pool.members(self.seed, number, self.share))
        rows = Rows(learned.levels, learned.label)
        drawn = synthetic_rows(
            rows, self.pool.sizes, self.preset, self.epsilon, 1_000 * self.seed + number
        )
        return signals(self.pool, self.reference, drawn)


def synthetic_rows(
    learned: Rows,
    sizes: Sequence[int],
    preset: GeneratorPreset,
    epsilon: float | None,
    seed: int,
) -> Indices:
    """Train a generator and draw rows, int32 [rows, fields + 1] with their label.

    With ``epsilon`` the noise is drawn from ``seed``, so that figures repeat; the product draws it
    from the operating system.
    """
    # TensorFlow loads slowly, and only here it is needed.
    from training.generator import fit_generator  # noqa: PLC0415
    from training.generator_figures import draw  # noqa: PLC0415
    from training.privacy import PrivacyBudget  # noqa: PLC0415
    from training.private_generator import fit_private_generator  # noqa: PLC0415
    from training.tensorflow_setup import configure  # noqa: PLC0415

    configure(1)
    count = len(learned.label)
    if epsilon is None:
        fitted = fit_generator(learned, sizes, preset, seed)
    else:
        noise = random.Random(seed)  # noqa: S311 - an experiment, not a release
        budget = PrivacyBudget.for_rows(epsilon, None, count)
        fitted = fit_private_generator(learned, sizes, preset, seed, budget, source=noise)
    drawn = draw(fitted.sampler, max(DRAWN_ROWS, count), fitted.class_prior, seed + 1)
    return np.column_stack([drawn.indices, drawn.label]).astype(np.int32)


def signals(pool: Pool, reference: Indices, drawn: Indices) -> Entry:
    """Return per row of the pool how close and how dense synthetic rows lie around it."""
    sizes = (*pool.sizes, 2)
    width = best_width(reference, sizes)
    density = log_density(pool.with_label, drawn, sizes, width)
    return {
        "closest": [int(value) for value in closeness(pool.with_label, drawn, sizes)],
        "density": [round(float(value), DIGITS) for value in density],
    }


def reference_density(pool: Pool, reference: Indices) -> Floats:
    """Return the log-density of a reference sample at each row of a pool, float64 [rows]."""
    sizes = (*pool.sizes, 2)
    return log_density(pool.with_label, reference, sizes, best_width(reference, sizes))


def generator_membership(found: GeneratorShadows) -> Content:
    """Return per attack how well learned rows are told from others."""
    inside, reference = found.inside, found.reference_density()
    closest, density = found.signal("closest"), found.signal("density")
    scores: dict[str, list[Floats]] = {name: [] for name in ATTACKS}
    control = []
    for target in range(found.generators):
        other = (target + 1) % found.generators
        shadows = Shadows(density, inside).without(target, other)
        one = target_scores(closest[target], density[target], reference, shadows)
        for name, score in one.items():
            scores[name].append(score)
        control.append(inside[other])
    return {
        name: membership_figures(
            np.stack(score), np.stack(control) if name == "control" else inside, found.seed
        )
        for name, score in scores.items()
    }


def target_scores(
    closest: Floats, density: Floats, reference: Floats, shadows: Shadows
) -> Mapping[str, Floats]:
    """Return the scores of each attack on one generator, float64 [rows] each.

    The density ratio is that of DOMIAS (van Breugel et al., AISTATS 2023): a row is likelier a
    member the more synthetic rows lie around it than the population would put there.
    """
    ratio = density - reference
    return {
        "closest": by_signal(closest),
        "ratio": by_signal(ratio),
        "offline": lira_offline(density, shadows),
        "online": lira_online(density, shadows),
        "control": by_signal(ratio),
    }
