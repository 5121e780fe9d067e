"""Fit the default generator with differential privacy of one training row.

The rows are read once, to measure tables with noise (`training.private_tables`).  All after that,
training, drawing rows, sharing the model, is computed from those tables and costs no more privacy.
The tables are measured once per training: they are kept in its checkpoint, and a resumed training
takes them from there.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from cipherscore.errors import TrainingError
from training.arrays import ArrayCheckpoint
from training.class_tables import ClassTables
from training.conditional import TableTrainer
from training.fidelity import Rows
from training.generator_presets import GeneratorPreset
from training.generator_weights import FittedGenerator
from training.privacy import PrivacyBudget
from training.private_noise import SYSTEM
from training.private_tables import PrivateTables, private_tables
from training.progress import Progress, silent

_PAIRS, _MARGINALS = "table-pairs", "table-marginals"


def fit_private_generator(
    learned: Rows,
    sizes: Sequence[int],
    preset: GeneratorPreset,
    seed: int,
    budget: PrivacyBudget,
    *,
    progress: Progress = silent,
    checkpoint: ArrayCheckpoint | None = None,
    source: random.Random = SYSTEM,
) -> FittedGenerator:
    """Train a generator in memory within a privacy budget.

    Args:
        learned: Rows without an unseen token.
        sizes: Columns of each field.
        preset: Network and recipe; the critic's part is not used.
        seed: Of weights and draws.  It does not repeat the tables' noise, so the same seed gives
            other weights, but for a resumed training.
        budget: What the training may spend.
        progress: Told after each ``preset.check_every`` steps.
        checkpoint: Where to keep tables and state of the unfinished training.
        source: Of the noise.  Anything but the operating system's is for tests.

    Raises:
        TrainingError: The rows are too few for the budget, or training diverged.
    """
    preset = preset.for_table(len(learned.label))
    if saved := checkpoint.load() if checkpoint else None:
        arrays, facts = saved
        tables = ClassTables(arrays[_MARGINALS], arrays[_PAIRS])
        target = PrivateTables(tables, facts["class_prior"], facts["measured"])
        trainer = TableTrainer(preset, sizes, tables, seed)
        trainer.restore(arrays)
        start = int(facts["next"])
    else:
        target, start = private_tables(learned, sizes, budget, source), 0
        trainer = TableTrainer(preset, sizes, target.tables, seed)
        _save(checkpoint, trainer, target, start)
    for step in range(start, preset.steps, preset.check_every):
        count = min(preset.check_every, preset.steps - step)
        figures = trainer.advance(step, count)
        if not all(math.isfinite(value) for value in figures.values()):
            raise TrainingError(f"the generator's training diverged before step {step + count}")
        _save(checkpoint, trainer, target, step + count)
        progress(step + count, preset.steps, figures)
    measured = {"measured_pairs": target.measured}
    return FittedGenerator(trainer.sampler(), preset.steps, measured, target.class_prior, preset)


def _save(
    checkpoint: ArrayCheckpoint | None, trainer: TableTrainer, target: PrivateTables, step: int
) -> None:
    if checkpoint:
        tables = {_PAIRS: target.tables.pairs, _MARGINALS: target.tables.marginals}
        facts = {"next": step, "class_prior": target.class_prior, "measured": target.measured}
        checkpoint.save({**trainer.state(), **tables}, facts)
