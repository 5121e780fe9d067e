"""Plots of the attacks on models, drawn from the report's JSON content; each is an SVG element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from evaluation.plots import BAD, GOOD, GREY, THIRD
from evaluation.svg import draw

Content = dict[str, Any]

COLORS = (THIRD, GOOD, BAD, GREY)
MARKERS = ("s", "^", "D", "o")
SHIFT = 0.16
"""Between points of one row, so that their intervals do not hide each other."""


def classifier_plots(content: Content) -> dict[str, str]:
    """Return the plots of the attacks on the classifier by name."""
    return {
        "classifier_membership": _aucs(
            "classifier-membership", content["membership"], content["forms"],
            content["membership_attacks"],
        ),
        "reconstruction": _reconstruction(content),
    }  # fmt: skip


def generator_plots(content: Content) -> dict[str, str]:
    """Return the plots of the attacks on the generator by name."""
    found = {variant["name"]: variant["membership"] for variant in content["variants"]}
    shown = [attack for attack in content["attacks"] if attack["name"] != "closest"]
    return {
        "generator_membership": _aucs("generator-membership", found, content["variants"], shown)
    }


def _aucs(name: str, found: Content, rows: Sequence[Content], attacks: Sequence[Content]) -> str:
    """Draw the AUC of each attack in each row."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvline(0.5, color=GREY, linestyle=":")
        for number, attack in enumerate(attacks):
            values = [found[row["name"]][attack["name"]]["auc"] for row in rows]
            _points(axes, values, number, len(attacks), attack["title"])
        axes.set_yticks(range(len(rows)), [row["title"] for row in rows], fontsize=7.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("AUC of members against others; 0.5 is a guess")
        figure.legend(loc="outside upper center", ncols=2)

    return draw(name, 7.0, 1.6 + 0.5 * len(rows), paint)


def _reconstruction(content: Content) -> str:
    """Draw the share of cells that each attacker names, by what the service tells."""
    rows, attackers = content["settings_told"], content["attackers"]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        mode = content["score_only"]["mode"]["cells"]["mean"]
        axes.axvline(mode, color=GREY, linestyle=":", label="most frequent level")
        for number, attacker in enumerate(attackers):
            values = [
                content["reconstruction"][row["name"]].get(attacker["name"], {}).get("cells")
                for row in rows
            ]
            _points(axes, values, number, len(attackers), attacker["title"])
        axes.set_yticks(range(len(rows)), [row["title"] for row in rows], fontsize=7.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(min(0.5, mode - 0.05), 1.02)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel("cells named correctly")
        figure.legend(loc="outside upper center", ncols=2)

    return draw("reconstruction", 7.0, 1.6 + 0.34 * len(rows), paint)


def _points(
    axes: Axes, values: Sequence[Content | None], number: int, count: int, title: str
) -> None:
    """Draw one attack's means with intervals, a row each where it has one."""
    shift = SHIFT * (number - (count - 1) / 2)
    there = [(place, value) for place, value in enumerate(values) if value is not None]
    mean = np.array([value["mean"] for _, value in there])
    reach = np.maximum(0, [
        mean - [value["low"] for _, value in there], [value["high"] for _, value in there] - mean
    ])  # fmt: skip
    places = [place + shift for place, _ in there]
    axes.errorbar(mean, places, xerr=reach, color=COLORS[number % len(COLORS)],
                  marker=MARKERS[number % len(MARKERS)], markersize=4, capsize=2,
                  linestyle="none", label=title)  # fmt: skip
