"""Draw frontiers: cells that the strongest attack names, over the AUC that is lost.

    python -m benchmarks.frontier.figure FRONTIER.JSON [...] --out FIGURE.SVG

One panel for each table.
"""

from __future__ import annotations

import argparse
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from cipherscore.files import write_bytes
from evaluation.plots import BAD, GOOD, GREY, THIRD
from evaluation.svg import STYLE

Summary = Mapping[str, Mapping[str, Any]]
KINDS = {
    "plain": ("no cipher", GREY, "X"),
    "ecb": ("one key for all fields", BAD, "v"),
    "siv": ("a key per field", BAD, "D"),
    "smooth": ("smoothed", THIRD, "s"),
    "kept": ("fields dropped", GREY, "^"),
    "coarse": ("fields coarsened", GREY, "o"),
    "cards": ("scorecards", GOOD, "*"),
    "scores": ("only scores seen", GOOD, "P"),
}
"""First part of a protection's name to legend, colour and marker."""
TARGET_LOSS, TARGET_GAIN = 0.01, 0.05
_METADATA = re.compile(r"<metadata>.*?</metadata>\s*", re.DOTALL)


def draw(tables: Mapping[str, Summary]) -> str:
    """Return an SVG file with a panel for each table, by title."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": "frontier"}):
        figure = Figure(figsize=(0.6 + 3.1 * len(tables), 3.9))
        for axes, (title, summary) in zip(
            figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True
        ):
            _paint(axes, title, summary)
        handles = {
            label: handle
            for axes in figure.axes
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return _METADATA.sub("", stream.getvalue())


def _paint(axes: Axes, title: str, summary: Summary) -> None:
    for kind, (label, color, marker) in KINDS.items():
        chosen = [entry for name, entry in summary.items() if name.split("-")[0] == kind]
        if chosen:
            loss = [entry["auc_loss"]["mean"] for entry in chosen]
            cells = [entry["cells"]["mean"] for entry in chosen]
            size = 70 if marker == "*" else 30
            axes.scatter(
                loss, cells, size, color, marker=marker, label=label, zorder=3, linewidths=0
            )
    mode = float(next(iter(summary.values()))["mode"]["mean"])
    axes.axhline(mode, color=GREY, linestyle=":", linewidth=1.2, label="most frequent level")
    axes.axhspan(mode, mode + TARGET_GAIN, color=GOOD, alpha=0.12, linewidth=0)
    axes.axvline(TARGET_LOSS, color=GREY, linestyle="--", linewidth=0.8)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylim(min(0.5, mode - 0.03), 1.02)
    axes.set_xlabel("AUC lost")
    axes.set_ylabel("cells named by the strongest attack")
    axes.set_title(title)


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the frontiers of some results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+", help="frontier.json of a table")
    parser.add_argument("--title", action="append", help="of each panel")
    parser.add_argument("--out", type=Path, required=True, help="SVG file")
    options = parser.parse_args(arguments)
    titles = options.title or [path.parent.name for path in options.results]
    found = [json.loads(path.read_text())["summary"] for path in options.results]
    write_bytes(options.out, draw(dict(zip(titles, found, strict=True))).encode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
