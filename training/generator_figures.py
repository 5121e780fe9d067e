"""Rows drawn from a generator, and how good they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training import disclosure, fidelity
from training.fidelity import Rows
from training.generator_weights import Sampler
from training.tensorflow_setup import tf

DRAW_CHUNK = 4_096


def draw(sampler: Sampler, count: int, class_prior: float, seed: int) -> Rows:
    """Make ``count`` rows, the class of each drawn with ``class_prior`` as the share of bad."""
    random = np.random.Generator(np.random.PCG64(seed))
    label = (random.random(count) < class_prior).astype(np.int8)
    parts = [np.empty((0, len(sampler.heads.sizes)), np.int32)]
    for start in range(0, count, DRAW_CHUNK):
        classes = label[start : start + DRAW_CHUNK].astype(np.int32)
        shape = (len(classes), sampler.noise_width)
        noise = random.standard_normal(shape, dtype=np.float32)
        parts.append(sampler(tf.constant(noise), tf.constant(classes))[0].numpy())
    return Rows(np.concatenate(parts), label)


def judge(drawn: Rows, tests: Rows, sizes: Sequence[int], learned: int) -> dict[str, float]:
    """Return the figures of drawn rows against rows the generator never saw.

    Args:
        drawn: At least `fidelity.tstr_rows` of ``learned``.
        tests: Such rows.
        sizes: Columns of each field.
        learned: Number of rows the generator learned from.
    """
    columns, pairs = fidelity.fidelity(tests, drawn, sizes)
    return {
        "column_fidelity": columns,
        "pair_fidelity": pairs,
        "tstr_auc": fidelity.tstr_auc(drawn, tests, sizes, fidelity.tstr_rows(learned)),
        "validity": disclosure.validity(drawn, sizes),
        "detection_auc": disclosure.detection_auc(drawn, tests, sizes),
    }


def judge_learning(
    drawn: Rows, learned: Rows, tests: Rows, sizes: Sequence[int]
) -> dict[str, float]:
    """Return the figures that also look at the learned rows, which they therefore tell about."""
    return {
        "real_auc": fidelity.tstr_auc(
            learned, tests, sizes, fidelity.tstr_rows(len(learned.label))
        ),
        "closeness_share": fidelity.closeness_share(drawn, learned, tests, sizes),
        "copy_rate": fidelity.copy_rate(drawn, learned),
        "rare_coverage": disclosure.rare_coverage(drawn, learned, sizes),
        "membership_auc": disclosure.membership_auc(drawn, learned, tests, sizes),
    }
