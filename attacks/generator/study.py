"""All attacks on the generator: which rows were in its training?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

from attacks.classifier.pools import Pool
from attacks.classifier.shadows import LEAST_MODELS
from attacks.generator.given import GivenGenerator
from attacks.generator.shadows import ATTACKS, GeneratorShadows, generator_membership
from attacks.request import Request
from cipherscore.errors import ConfigurationError
from evaluation.code_digest import code_digest
from evaluation.folds import RawData
from evaluation.store import Entry, Store, Task
from training.generator_presets import DEFAULT

Content = dict[str, Any]

LARGE_ROWS = 5_000
"""From here on fewer generators are trained, on a part of the rows."""
MOST_POOL = 5_000
GENERATORS, LARGE_GENERATORS = 16, 6
APART = 10**6
"""Number of the draw that chooses the reference sample; generators count from 0."""
REFERENCE_SHARE = 0.2
"""Of the rows, what no generator learns: the attacker's sample of the population."""
EPSILON = 1.0
"""Of the private generators that are attacked beside the others."""
MEMBERSHIP = "membership"

VARIANTS: dict[str, tuple[str, float | None]] = {
    "default": ("default preset", None),
    "private": (f"default preset, --epsilon {EPSILON:g}", EPSILON),
}


class GeneratorStudy:
    """The attacks on generators of one table.

    Args:
        raw: The table.
        generators: How many are trained, and half as many with differential privacy; None for as
            many as the table's size asks for.
        seed: Of everything random.
        store: Where results are kept.
        given: A training the owner has, to be attacked too; None for none.

    Raises:
        ConfigurationError: There are too few generators.
    """

    def __init__(
        self,
        raw: RawData,
        generators: int | None,
        seed: int,
        store: Store,
        given: GivenGenerator | None = None,
    ) -> None:
        count = generators or (LARGE_GENERATORS if raw.rows >= LARGE_ROWS else GENERATORS)
        if count < LEAST_MODELS:
            raise ConfigurationError(
                f"generators {count} are too few to attack one with the others; give "
                f"{LEAST_MODELS} or more"
            )
        self.seed, self.given = seed, given
        whole = Pool.of(raw, MOST_POOL, seed)
        apart = whole.members(seed, APART, REFERENCE_SHARE)
        reference = whole.part(apart).with_label
        code = code_digest("attacks.generator.shadows")
        facts = {"data": raw.digest, "seed": seed, "code": code}
        self.variants = {}
        for name, (_, epsilon) in VARIANTS.items():
            some = count if epsilon is None else max(LEAST_MODELS, count // 2)
            recipe = {"preset": asdict(DEFAULT), "epsilon": epsilon}
            kept = store.part(f"generator: {name}", {**facts, **recipe})
            self.variants[name] = GeneratorShadows(
                whole.part(~apart), reference, some, DEFAULT, epsilon, seed, kept
            )
        self._ranked = store.part("generator: membership", {**facts, "generators": count})

    def tasks(self) -> Iterator[Task]:
        """Yield trainings and attacks; a variant is attacked once all its generators are there."""
        for name, found in self.variants.items():
            yield from found.tasks()
            yield Task(self._ranked, name, partial(generator_membership, found))
        if self.given:
            yield from self.given.tasks()

    def membership(self, name: str) -> Entry:
        """Return the finished attacks on a variant."""
        return {attack: self._ranked[name][attack] for attack in ATTACKS}


def generator_study(request: Request, raw: RawData, store: Store) -> GeneratorStudy:
    """Return the study of a request.

    Raises:
        ConfigurationError: There are too few generators, or the given training is of another table.
        DataError: The token table cannot be read.
        TrainingError: The given training cannot be read.
    """
    given = None
    if request.given and request.given.generator:
        given = GivenGenerator.of(
            request.given.generator, request.given.tokens, request.seed, store
        )
    return GeneratorStudy(raw, request.generators, request.seed, store, given)


def generator_figures(study: GeneratorStudy) -> Content:
    """Return what the attacks found, as it goes into the report."""
    one = next(iter(study.variants.values()))
    return {
        "preset": DEFAULT.name,
        "pool_rows": len(one.pool.rows.label),
        "reference_rows": len(one.reference),
        "attacks": [{"name": name, "title": title} for name, title in ATTACKS.items()],
        "variants": [
            {
                "name": name,
                "title": VARIANTS[name][0],
                "generators": found.generators,
                "learned_rows": int(found.inside[0].sum()),
                "membership": study.membership(name),
            }
            for name, found in study.variants.items()
        ],
        **({"given": study.given.figures()} if study.given else {}),
    }
