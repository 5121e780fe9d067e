"""Plots of the data, of methods side by side, and of the groups; each returns an SVG element."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from evaluation.overview import BOX
from evaluation.plots import BAD, GOOD, GREY, THIRD
from evaluation.svg import draw

Content = dict[str, Any]

BOX_COLUMNS = 3
BALANCE_COLUMNS = 3
MOST_LABEL = 26
"""Longest label on an axis, in characters."""
MOST_TITLE = 36
"""Longest title of a small plot."""
SEES = {"tokens": GOOD, "plain levels": GREY, "raw values": BAD}


def class_balance(classes: Content) -> str:
    """Draw the rows of each class."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        names, counts = ["good", "bad"], [classes["good"], classes["bad"]]
        bars = axes.barh(names, counts, color=[GOOD, BAD], height=0.6)
        texts = [f"{count:,} ({count / sum(counts):.1%})" for count in counts]
        axes.bar_label(bars, texts, padding=4)
        axes.set_xlim(0, 1.35 * max(counts))
        axes.invert_yaxis()
        axes.set_xlabel("rows")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(visible=False, axis="y")

    return draw("class-balance", 5, 1.3, paint)


def boxes(numeric: list[Content]) -> str:
    """Draw box plots of all numeric fields, good and bad apart; whiskers at 5 % and 95 %."""
    lines = -(-len(numeric) // BOX_COLUMNS)

    def paint(figure: Figure) -> None:
        grid = figure.subplots(lines, BOX_COLUMNS, squeeze=False).ravel()
        for axes, entry in zip(grid, numeric, strict=False):
            _box(axes, entry)
        for axes in grid[len(numeric) :]:
            axes.set_visible(False)

    return draw("boxes", 7.2, 0.4 + 1.15 * lines, paint)


def correlation(names: list[str], table: list[list[float]], name: str, *, signed: bool) -> str:
    """Draw a matrix of values from 0 (or -1) to 1; the target is the last field."""
    side = max(4.2, 1.8 + 0.19 * len(names))
    limits: Any = {"vmin": -1.0 if signed else 0.0, "vmax": 1.0}

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        # A picture of one dot a cell: a shape for each would make the file many times as large.
        drawn = axes.imshow(table, cmap="RdBu_r" if signed else "Blues", **limits,
                            interpolation="none")  # fmt: skip
        labels = [shortened(text) for text in names]
        axes.set_xticks(range(len(names)), labels, rotation=90, fontsize=7.5)
        axes.set_yticks(range(len(names)), labels, fontsize=7.5)
        axes.grid(visible=False)
        axes.tick_params(length=0)
        figure.colorbar(drawn, ax=axes, shrink=0.6, pad=0.02)

    return draw(name, side + 0.7, side, paint)


def methods(rows: list[Content], figure_name: str, text: str, published: list[Content]) -> str:
    """Draw one figure of all methods with its interval, published values beside them as crosses."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        lines = [(row["title"], row["figures"][figure_name], row["sees"]) for row in rows]
        for place, (_, found, sees) in enumerate(lines):
            _point(axes, place, found["mean"], found["low"], found["high"], SEES[sees])
        labels = [f"{title}\n{sees}" for title, _, sees in lines]
        for place, entry in enumerate(published, len(lines)):
            axes.plot([entry[figure_name]], [place], color="black", marker="x", linestyle="none")
            labels.append(f"capstone's {entry['method']}\nas published, one split")
        axes.axvline(lines[0][1]["mean"], color=GOOD, linestyle=":", linewidth=1)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_xlabel(text)
        axes.grid(visible=False, axis="y")

    return draw(f"methods-{figure_name}", 7.0, 0.7 + 0.42 * (len(rows) + len(published)), paint)


def groups(entry: Content, number: int) -> str:
    """Draw approval rates of one field's groups: of all applicants and of the good ones."""
    found = entry["groups"]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for shift, name, color, text, marker in (
            (-0.14, "approval_rate", GOOD, "all applicants approved", "o"),
            (0.14, "good_approved", THIRD, "good applicants approved", "s"),
        ):
            for place, group in enumerate(found):
                part = group[name]
                _point(axes, place + shift, part["value"], part["low"], part["high"], color,
                       text if not place else "", marker)  # fmt: skip
        labels = [
            shortened(f"{group['value']} {group['meaning']}".strip(), MOST_TITLE)
            + f"\n{group['rows']:,} rows"
            for group in found
        ]
        axes.set_yticks(range(len(found)), labels)
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.set_xlim(-0.02, 1.02)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(visible=False, axis="y")
        figure.legend(loc="outside upper right", ncols=2)

    return draw(f"groups-{number}", 7.0, 0.9 + 0.42 * len(found), paint)


def balance(rows: list[Content], names: Mapping[str, str]) -> str:
    """Draw the difference that each way to balance the classes makes, a plot per figure."""
    lines = -(-len(names) // BALANCE_COLUMNS)

    def paint(figure: Figure) -> None:
        grid = figure.subplots(lines, BALANCE_COLUMNS, squeeze=False, sharey=True).ravel()
        for axes, (name, text) in zip(grid, names.items(), strict=False):
            axes.axvline(0, color=GREY, linestyle=":", linewidth=1)
            for place, row in enumerate(rows):
                found = row["difference"][name]
                _point(axes, place, found["mean"], found["low"], found["high"], GOOD)
            axes.set_yticks(range(len(rows)), [row["title"] for row in rows])
            axes.set_ylim(len(rows) - 0.5, -0.5)
            axes.set_title(text, fontsize=8.5, loc="left")
            axes.tick_params(labelsize=7.5)
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.grid(visible=False, axis="y")
        for axes in grid[len(names) :]:
            axes.set_visible(False)

    return draw("balance", 7.2, 0.3 + 1.25 * lines, paint)


def _point(
    axes: Axes, place: float, value: float | None, low: float | None, high: float | None,
    color: str, label: str = "", marker: str = "o",
) -> None:  # fmt: skip
    if value is None:
        return
    reach = None if low is None or high is None else [[max(0, value - low)], [max(0, high - value)]]
    axes.errorbar([value], [place], xerr=reach, color=color, marker=marker, markersize=5, capsize=3,
                  linestyle="none", label=label)  # fmt: skip


def _box(axes: Axes, entry: Content) -> None:
    names = [name for name in ("bad", "good") if entry[name] is not None]
    stats: list[dict[str, Any]] = [
        dict(zip(("whislo", "q1", "med", "q3", "whishi"), entry[name], strict=True))
        for name in names
    ]
    assert len(BOX) == 5
    drawn = axes.bxp(stats, orientation="horizontal", showfliers=False, patch_artist=True,
                     widths=0.55, medianprops={"color": "black"})  # fmt: skip
    for patch, name in zip(drawn["boxes"], names, strict=True):
        patch.set_facecolor({"good": GOOD, "bad": BAD}[name])
        patch.set_alpha(0.55)
    axes.set_yticks(range(1, len(names) + 1), names)
    unit = f" [{entry['unit']}]" if entry["unit"] else ""
    axes.set_title(shortened(entry["field"] + unit, MOST_TITLE), fontsize=8.5, loc="left")
    axes.tick_params(labelsize=7.5)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=_whole(stats)))
    axes.grid(visible=False, axis="y")


def _whole(stats: list[dict[str, Any]]) -> bool:
    return all(float(value).is_integer() for box in stats for value in box.values())


def shortened(text: str, most: int = MOST_LABEL) -> str:
    """Return a text for an axis, cut where it is too long."""
    return text if len(text) <= most else text[: most - 1] + "…"
