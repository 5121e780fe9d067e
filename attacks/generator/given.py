"""Membership attacks on a finished training of the generator, with the table it was trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from attacks.classifier.given import GivenTable
from attacks.classifier.membership import by_signal
from attacks.classifier.pools import Members
from attacks.generator.shadows import DRAWN_ROWS, reference_density, signals
from attacks.ranking import membership_figures
from attacks.view import Indices
from evaluation.code_digest import code_digest
from evaluation.store import Entry, Store, Task

Content = dict[str, Any]

ATTACKED = "attacked"


@dataclass(frozen=True)
class GivenGenerator:
    """The attacks on one generator.

    Half of the rows that it never learned are the attacker's reference sample, the others are what
    learned rows are to be told from.

    Args:
        table: The training and its rows.
        seed: Of the reference sample and of the rows drawn.
        kept: Where results are kept.
    """

    table: GivenTable
    seed: int
    kept: dict[str, Entry]

    @classmethod
    def of(cls, folder: Path, tokens: Path, seed: int, store: Store) -> GivenGenerator:
        """Read the training; for errors see `GivenTable.of`."""
        table = GivenTable.of(folder, tokens, "generator")
        facts = {**table.facts, "seed": seed, "code": code_digest("attacks.generator.given")}
        return cls(table, seed, store.part("given generator", facts))

    def tasks(self) -> Iterator[Task]:
        """Yield the attacks."""
        yield Task(self.kept, ATTACKED, partial(self._attacked))

    def figures(self) -> Content:
        """Return what the finished attacks found."""
        run, found = self.table.run, self.kept[ATTACKED]
        return {
            "model": run.model_name, "preset": run.preset, "seed": run.seed,
            "privacy": run.metrics.get("privacy"), **found["rows"],
            "membership": {name: found[name] for name in ("closest", "ratio", "control")},
        }  # fmt: skip

    def _attacked(self) -> Entry:
        table, random = self.table, np.random.default_rng([self.seed, 0])
        outside = random.permutation(np.flatnonzero(~table.members))
        reference = np.zeros(len(table.members), bool)
        reference[outside[: len(outside) // 2]] = True
        pool, members = table.pool.part(~reference), table.members[~reference]
        sample = table.pool.part(reference).with_label
        found = signals(pool, sample, self._drawn(int(members.sum())))
        ratio = np.array(found["density"]) - reference_density(pool, sample)
        closest = np.array(found["closest"], np.float64)
        return {
            "rows": {
                "members": int(members.sum()), "others": int((~members).sum()),
                "reference": len(sample),
            },
            "closest": self._figures(by_signal(closest), members),
            "ratio": self._figures(by_signal(ratio), members),
            # Two halves of the rows that were never learned.
            "control": self._figures(by_signal(ratio[~members]), _half(random, ~members)),
        }  # fmt: skip

    def _drawn(self, learned: int) -> Indices:
        # TensorFlow loads slowly, and only here it is needed.
        from training.generator_figures import draw  # noqa: PLC0415
        from training.generator_weights import load_sampler  # noqa: PLC0415
        from training.tensorflow_setup import configure  # noqa: PLC0415

        configure(1)
        run = self.table.run
        count = max(DRAWN_ROWS, learned)
        drawn = draw(load_sampler(run), count, run.class_prior, self.seed + 1)
        return np.column_stack([drawn.indices, drawn.label]).astype(np.int32)

    def _figures(self, score: np.ndarray, members: Members) -> Content:
        return membership_figures(score[None], members[None], self.seed)


def _half(random: np.random.Generator, rows: Members) -> Members:
    half = np.zeros(int(rows.sum()), bool)
    half[random.permutation(len(half))[: len(half) // 2]] = True
    return half
