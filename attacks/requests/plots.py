"""Plots of the attacks on requests, drawn from the report's JSON content."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, PercentFormatter

from attacks.requests.link_content import strongest
from evaluation.plots import BAD, GOOD, GREY, THIRD
from evaluation.svg import draw

Content = dict[str, Any]

SAMPLE_LINES = ((THIRD, "-.", "s"), (GOOD, "--", "^"), (BAD, "-", "D"))
"""Colour, line and marker of each size of the attacker's sample."""
STRENGTH_LINES = ((BAD, "-", "D"), (THIRD, "-.", "s"), (GOOD, "--", "^"), (GREY, ":", "o"))
"""Likewise of each strength of smoothing."""


def request_plots(content: Content) -> dict[str, str]:
    """Return the plots of the section on requests by name."""
    return {"request_streams": streams(content), "request_links": links(content["links"])}


def streams(content: Content) -> str:
    """Draw cells named over the length of the stream, a line for each size of the sample."""
    lengths = [stream["requests"] for stream in content["streams"]]

    def paint(axes: Axes) -> None:
        for place, (color, line, marker) in enumerate(SAMPLE_LINES):
            samples = [stream["samples"][place] for stream in content["streams"]]
            found = [sample["cells"]["score"] for sample in samples]
            _bars(axes, lengths, found, color, line, marker, f"{samples[0]['rows']:,} plain rows")
        mode = [stream["samples"][-1]["cells"]["mode"] for stream in content["streams"]]
        _bars(axes, lengths, mode, GREY, ":", "o", "most frequent level")
        axes.set_xscale("log")
        axes.set_xticks(lengths)
        axes.minorticks_off()
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("requests")
        axes.set_ylabel("cells named correctly")
        axes.legend(loc="lower right")

    return draw("request-streams", 3.5, 3.4, lambda figure: paint(figure.subplots()))


def links(content: Content) -> str:
    """Draw how often the applicant's other request is found over the fields that changed."""

    def paint(axes: Axes) -> None:
        both = zip(content["strengths"], STRENGTH_LINES, strict=True)
        for strength, (color, line, marker) in both:
            attacker = strongest(strength)
            fields = [one["fields"] for one in attacker["changed"]]
            found = [one["rank_1"] for one in attacker["changed"]]
            share = strength["most_share"]
            label = "not smoothed" if share == 1 else f"{share:g}"
            _bars(axes, fields, found, color, line, marker, label)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("fields given anew")
        axes.set_ylabel("other request found first")
        axes.legend(loc="upper right", title="most_share", title_fontsize=8.5)

    return draw("request-links", 3.5, 3.4, lambda figure: paint(figure.subplots()))


def _bars(
    axes: Axes,
    places: list[int],
    found: list[Content],
    color: str,
    line: str,
    marker: str,
    label: str,
) -> None:
    """Draw means with their intervals."""
    mean = np.array([one["mean"] for one in found])
    low, high = (np.array([one[end] for one in found]) for end in ("low", "high"))
    reach = np.maximum(0, [mean - low, high - mean])
    axes.errorbar(places, mean, reach, color=color, linestyle=line, marker=marker, markersize=4,
                  capsize=2, label=label)  # fmt: skip
