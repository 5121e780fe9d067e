"""How much is computed for a table of some size, and why: the rules are printed in the report."""

from __future__ import annotations

from dataclasses import dataclass, replace

LARGE_ROWS = 20_000
"""From here on folds are not repeated, and slow methods run on two folds."""
HUGE_ROWS = 100_000
"""From here on there are five folds."""

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
        rule: Why, in words.
    """

    repeats: int
    folds: int
    slow_folds: int | None
    shares: tuple[float, ...]
    learning_folds: int
    seeds: int
    seed_folds: int
    samples: int
    rule: str

    @property
    def test_share(self) -> float:
        """Test rows divided by training rows of a fold."""
        return 1 / (self.folds - 1)


def plan(
    rows: int, *, quick: bool = False, repeats: int | None = None, folds: int | None = None
) -> Plan:
    """Return what is computed for a table of ``rows`` rows; ``repeats`` and ``folds`` override."""
    if quick:
        found = Plan(
            1, 5, 2, (0.25, 0.5), 2, 3, 2, 100,
            "quick look: five folds once, slow methods on two of them, fewer seeds and samples",
        )  # fmt: skip
    elif rows < LARGE_ROWS:
        found = Plan(
            *FULL, None, (0.1, 0.2, 0.4, 0.7), 5, 5, 5, 400,
            f"fewer than {LARGE_ROWS:,} rows: ten folds five times, slow methods once",
        )  # fmt: skip
    elif rows < HUGE_ROWS:
        found = Plan(
            1, 10, 2, (0.1, 0.2, 0.4, 0.7), 2, 3, 2, 100,
            f"{LARGE_ROWS:,} to {HUGE_ROWS:,} rows: ten folds once, slow methods and the plain "
            "twin on two of them",
        )  # fmt: skip
    else:
        found = Plan(
            1, 5, 2, (0.1, 0.4), 2, 3, 2, 50,
            f"{HUGE_ROWS:,} rows or more: five folds once, slow methods and the plain twin on two "
            "of them",
        )  # fmt: skip
    if repeats is None and folds is None:
        return found
    changed = replace(found, repeats=repeats or found.repeats, folds=folds or found.folds)
    asked = f"as asked for, {changed.repeats} times {changed.folds} folds"
    return replace(changed, rule=f"{found.rule}; {asked}")
