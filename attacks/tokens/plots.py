"""Plots of the audit, drawn from the report's JSON content; each returns an SVG element."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from evaluation.plots import BAD, GOOD, GREY, THIRD
from evaluation.svg import draw

Content = dict[str, Any]

ANNEALED = "#6a3d9a"
LINES = {
    "mode": (GREY, ":", "o"),
    "rank": (THIRD, "-.", "s"),
    "assignment": (GOOD, "--", "^"),
    "joint": (BAD, "-", "D"),
    "annealed": (ANNEALED, "-", "v"),
}
"""Colour, line and marker of each attack that is drawn."""
MOST_LABEL = 26
"""Longest label on an axis, in characters."""


def token_plots(content: Content) -> dict[str, str]:
    """Return the plots of the attacks on token tables by name."""
    kinds = list(dict.fromkeys(sample["kind"] for sample in content["samples"]))
    drawn = {f"recovery_{kind}": recovery(content, kind) for kind in kinds}
    drawn["fields"] = by_field(content)
    return drawn


def recovery(content: Content, kind: str) -> str:
    """Draw cells recovered over the size of the attacker's sample."""
    samples = [sample for sample in content["samples"] if sample["kind"] == kind]
    titles = {attack["name"]: attack["title"] for attack in content["attacks"]}

    def paint(axes: Axes) -> None:
        for name, (color, line, marker) in LINES.items():
            if name not in titles:
                continue
            found = [sample["attacks"][name]["cells"] for sample in samples]
            mean = np.array([one["mean"] for one in found])
            low, high = (np.array([one[end] for one in found]) for end in ("low", "high"))
            reach = np.maximum(0, [mean - low, high - mean])
            axes.errorbar([sample["share"] for sample in samples], mean, reach, color=color,
                          linestyle=line, marker=marker, markersize=4, capsize=2,
                          label=titles[name])  # fmt: skip
        axes.set_xscale("log")
        axes.set_xticks([sample["share"] for sample in samples])
        axes.minorticks_off()
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("rows of the sample per encrypted row")
        axes.set_ylabel("cells named correctly")
        axes.legend(loc="lower right")

    return draw(f"recovery-{kind}", 3.5, 3.4, lambda figure: paint(figure.subplots()))


def by_field(content: Content) -> str:
    """Draw cells recovered of each field, with the first kind's largest sample."""
    samples = content["samples"]
    chosen = [sample for sample in samples if sample["kind"] == samples[0]["kind"]][-1]
    names = [field["name"] for field in content["fields"]]
    titles = {attack["name"]: attack["title"] for attack in content["attacks"]}

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        places = range(len(names))
        for name, (color, _, marker) in LINES.items():
            if name not in titles:
                continue
            axes.plot(chosen["attacks"][name]["fields"], places, color=color, marker=marker,
                      markersize=5, linestyle="none", label=titles[name])  # fmt: skip
        axes.set_yticks(places, [name[:MOST_LABEL] for name in names], fontsize=7.5)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(0, 1.02)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel("rows named correctly")
        figure.legend(loc="outside upper center", ncols=2)

    return draw("fields", 7.0, 1.2 + 0.19 * len(names), paint)
