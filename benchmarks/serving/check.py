"""Whether a result of the benchmark meets the goals in ``thresholds.toml``.

    python -m benchmarks.serving.check RESULT.json

Each goal is the ratio of two figures of one run, compared round by round: the median of the rounds'
ratios decides, and the lowest and highest are shown.  Exit code 1 if a goal is missed or a figure
is missing.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tomllib
import typer

THRESHOLDS = Path(__file__).with_name("thresholds.toml")


@dataclass(frozen=True)
class Goal:
    """One goal.

    Attributes:
        name: What it says.
        figure: Key ``server/precision/point``, or ``…#detail`` for another figure of the same run.
        against: Key of what it is divided by.
        at_least: Smallest ratio that meets the goal, or None.
        at_most: Largest one, or None.
    """

    name: str
    figure: str
    against: str
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"goal {self.name!r} needs one of at_least and at_most")

    @property
    def limit(self) -> str:
        """The limit in words."""
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"


@dataclass(frozen=True)
class Verdict:
    """A goal and what was measured.

    Attributes:
        goal: The goal.
        ratio: Median ratio, None where a figure is missing.
        low: Lowest ratio of a round.
        high: Highest.
    """

    goal: Goal
    ratio: float | None
    low: float = 0.0
    high: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether the goal is met."""
        if self.ratio is None:
            return False
        if self.goal.at_least is not None:
            return self.ratio >= self.goal.at_least
        assert self.goal.at_most is not None
        return self.ratio <= self.goal.at_most

    def __str__(self) -> str:
        if self.ratio is None:
            return f"MISSING  {self.goal.name}: not measured"
        word = "pass" if self.passed else "FAIL"
        spread = f"{self.low:.2f} to {self.high:.2f}"
        return f"{word:7}  {self.goal.name}: {self.ratio:.2f} ({spread}), goal {self.goal.limit}"


def load_goals(path: Path = THRESHOLDS) -> list[Goal]:
    """Read the goals; ``{precision}`` in one stands for each of its ``precisions``.

    Raises:
        ValueError: A goal is not complete.
    """
    goals = []
    for entry in tomllib.loads(path.read_text())["goal"]:
        fields = dict(entry)
        for precision in fields.pop("precisions", [""]):
            texts = {k: v for k, v in fields.items() if isinstance(v, str)}
            filled = {k: v.replace("{precision}", precision) for k, v in texts.items()}
            goals.append(Goal(**{**fields, **filled}))
    return goals


def judge(goal: Goal, points: Mapping[str, Mapping[str, Any]]) -> Verdict:
    """Compare a result's points with a goal."""
    figure, against = _rounds(goal.figure, points), _rounds(goal.against, points)
    shared = [r for r in figure if against.get(r)]
    ratios = [figure[r] / against[r] for r in shared]
    if not ratios:
        return Verdict(goal, None)
    return Verdict(goal, statistics.median(ratios), min(ratios), max(ratios))


def _rounds(key: str, points: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return a figure by round."""
    name, _, detail = key.partition("#")
    point = points.get(name)
    if point is None:
        return {}
    if not detail:
        return dict(point["rounds"])
    return {r: found[detail] for r, found in point["details"].items() if detail in found}


def main(
    result: Annotated[Path, typer.Argument(help="result.json of a run.")],
    thresholds: Annotated[Path, typer.Option(help="The goals.")] = THRESHOLDS,
) -> None:
    """Print each goal and whether it is met."""
    points = json.loads(result.read_text())["points"]
    verdicts = [judge(goal, points) for goal in load_goals(thresholds)]
    for verdict in verdicts:
        print(verdict)
    missed = sum(not verdict.passed for verdict in verdicts)
    print(f"{len(verdicts) - missed} of {len(verdicts)} goals met")
    raise typer.Exit(1 if missed else 0)


if __name__ == "__main__":
    typer.run(main)
