"""Plots of the synthetic rows, drawn from the report's JSON content; each is an SVG element."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from evaluation.data_plots import shortened
from evaluation.plots import BAD, GOOD, GREY, THIRD
from evaluation.svg import draw
from evaluation.synthetic import INDEPENDENT, OURS, REAL

Content = dict[str, Any]

MARKS = {OURS: (GOOD, "o"), REAL: (GREY, "s"), INDEPENDENT: (BAD, "^")}
"""Colour and marker of each source that is measured here."""


def synthetic_plots(content: Content) -> dict[str, str]:
    """Return the plots of the synthetic rows by name."""
    return {
        "field_fidelity": field_fidelity(content),
        "pair_fidelity": pair_fidelity(
            content["fields"], content["fidelity"][OURS], content["fidelity"][REAL]
        ),
        "utility_closeness": utility_closeness(content),
    }


def field_fidelity(content: Content) -> str:
    """Draw the column fidelity of each field, of our rows and of real training rows."""
    names = content["fields"]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        columns = {
            source: [content["fidelity"][source][place][place] for place in range(len(names))]
            for source in (REAL, OURS)
        }
        axes.hlines(range(len(names)), columns[REAL], columns[OURS], color="#bbbbbb", linewidth=1)
        for source, values in columns.items():
            color, marker = MARKS[source]
            title = next(row["title"] for row in content["sources"] if row["name"] == source)
            axes.plot(values, range(len(names)), color=color, marker=marker, markersize=5,
                      linestyle="none", label=title)  # fmt: skip
        axes.set_yticks(range(len(names)), [shortened(name) for name in names], fontsize=7.5)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel("column fidelity to held-out rows")
        axes.grid(visible=False, axis="y")
        figure.legend(loc="outside upper right", ncols=2)

    return draw("field-fidelity", 7.0, 0.9 + 0.19 * len(names), paint)


def pair_fidelity(names: list[str], ours: list[list[float]], real: list[list[float]]) -> str:
    """Draw by how much all two-way tables of our rows are met better or worse than by real rows."""
    side = max(4.2, 1.8 + 0.19 * len(names))

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        gain = np.subtract(ours, real)
        most = max(0.01, float(np.abs(gain).max()))
        drawn = axes.imshow(gain, cmap="RdBu", vmin=-most, vmax=most, interpolation="none")
        labels = [shortened(name) for name in names]
        axes.set_xticks(range(len(names)), labels, rotation=90, fontsize=7.5)
        axes.set_yticks(range(len(names)), labels, fontsize=7.5)
        axes.grid(visible=False)
        axes.tick_params(length=0)
        figure.colorbar(drawn, ax=axes, shrink=0.6, pad=0.02)

    return draw("pair-fidelity", side + 0.7, side, paint)


def utility_closeness(content: Content) -> str:
    """Draw use (TSTR AUC) over closeness to training rows, the peers' figures too."""
    peers = content["peers"]["sources"] if content["peers"] else []
    both = ("closeness_share", "tstr_auc")

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvline(0.5, color=GREY, linestyle=":", linewidth=1)
        for row in content["sources"]:
            color, marker = MARKS[row["name"]]
            x, y = (row["figures"][name]["mean"] for name in both)
            axes.plot([x], [y], color=color, marker=marker, markersize=8, linestyle="none",
                      label=row["title"])  # fmt: skip
        for number, row in enumerate(peers, 1):
            x, y = (row["figures"][name]["mean"] for name in both)
            axes.plot([x], [y], color=THIRD, marker=f"${number}$", markersize=8,
                      linestyle="none", label=row["title"])  # fmt: skip
        axes.margins(0.12)
        axes.set_xlabel("closeness share: 0.5 favours nobody, more is nearer to training rows")
        axes.set_ylabel("TSTR AUC, logistic regression")
        figure.legend(loc="outside right upper")

    return draw("utility-closeness", 7.0, 3.4, paint)
