"""How much is computed for a table of some size, and why: the rules are printed in the report."""

from __future__ import annotations

from dataclasses import dataclass, replace

LARGE_ROWS = 20_000
"""From here on folds are not repeated, and slow methods run on two folds."""
HUGE_ROWS = 100_000
"""From here on there are five folds."""

SYNTHETIC_PARTS = 5

FULL = (5, 10)
"""Repeats and folds of a table below `LARGE_ROWS`."""


@dataclass(frozen=True)
class Plan:
    """What a study computes.

    Args:
        repeats: Times the rows are divided anew.
        folds: Parts of each division.
        slow_folds: Folds of the slow methods, of the first repeat; None for all of them.
        shares: Shares of the training rows in the learning curve, besides all of them.
        learning_folds: Folds of the learning curve.
        seeds: Seeds of the seed-to-seed spread, the folds' own included.
        seed_folds: Folds trained with each seed.
        samples: Bootstrap samples of rows for an interval.
        synthetic_folds: Folds on which a generator is trained and its rows measured, of a division
            into `synthetic_parts`.
        imbalance_folds: Folds of the study of class imbalance, of the first repeat.
        rule: Why, in words.
        left_out: Names of methods that only run when they are asked for.
    """

    repeats: int
    folds: int
    slow_folds: int | None
    shares: tuple[float, ...]
    learning_folds: int
    seeds: int
    seed_folds: int
    samples: int
    synthetic_folds: int
    imbalance_folds: int
    rule: str
    left_out: tuple[str, ...] = ()

    @property
    def test_share(self) -> float:
        """Test rows divided by training rows of a fold."""
        return 1 / (self.folds - 1)

    @property
    def synthetic_parts(self) -> int:
        """Parts that the rows are divided into for the synthetic rows: 80 % teach, as for peers."""
        return min(SYNTHETIC_PARTS, self.folds)


def plan(
    rows: int, *, quick: bool = False, repeats: int | None = None, folds: int | None = None
) -> Plan:
    """Return what is computed for a table of ``rows`` rows; ``repeats`` and ``folds`` override."""
    if quick:
        found = Plan(
            1, 5, 2, (0.25, 0.5), 2, 3, 2, 100, 2, 2,
            "quick look: five folds once, slow methods, synthetic rows and class imbalance on two "
            "of them, fewer seeds and samples, the slowest method left out",
            left_out=("capstone",),
        )  # fmt: skip
    elif rows < LARGE_ROWS:
        found = Plan(
            *FULL, None, (0.1, 0.2, 0.4, 0.7), 5, 5, 5, 400, 5, 10,
            f"fewer than {LARGE_ROWS:,} rows: ten folds five times, slow methods and class "
            "imbalance once, synthetic rows on five folds",
        )  # fmt: skip
    elif rows < HUGE_ROWS:
        found = Plan(
            1, 10, 2, (0.1, 0.2, 0.4, 0.7), 2, 3, 2, 100, 1, 3,
            f"{LARGE_ROWS:,} to {HUGE_ROWS:,} rows: ten folds once, slow methods and the plain "
            "twin on two of them, class imbalance on three, synthetic rows on one fold of five",
        )  # fmt: skip
    else:
        found = Plan(
            1, 5, 2, (0.1, 0.4), 2, 3, 2, 50, 1, 3,
            f"{HUGE_ROWS:,} rows or more: five folds once, slow methods and the plain twin on two "
            "of them, class imbalance on three, synthetic rows on one",
        )  # fmt: skip
    if repeats is None and folds is None:
        return found
    changed = replace(found, repeats=repeats or found.repeats, folds=folds or found.folds)
    asked = f"as asked for, {changed.repeats} times {changed.folds} folds"
    return replace(changed, rule=f"{found.rule}; {asked}")
