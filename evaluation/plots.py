"""Plots of the classifier, drawn from the report's JSON content; each returns an SVG element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from evaluation.svg import draw

Content = dict[str, Any]

GOOD, BAD, THIRD, GREY = "#0072b2", "#d55e00", "#009e73", "#777777"
"""Colours that most colour-blind people can tell apart (Okabe and Ito 2008)."""

SIZE = (3.5, 3.1)
"""Inches of a plot of which two stand side by side."""


def classifier_plots(content: Content) -> dict[str, str]:
    """Return the plots of the classifier by name."""
    curves, headline = content["curves"], content["headline"]
    return {
        "roc": roc(curves["roc"], headline["auc"]),
        "precision_recall": precision_recall(
            curves["precision_recall"], headline["average_precision"], content["bad_share"]
        ),
        "calibration": calibration(curves["calibration"]),
        "gain": gain(curves["gain"], content["bad_share"]),
        "lift": lift(curves["lift"]),
        "ks": separation(curves["ks"], headline["ks"]),
        "cost": cost(curves["cost"], headline["threshold"]["mean"]),
        "learning_curve": learning_curve(content["learning_curve"]),
        "seeds": seeds(content["seeds"]),
    }  # fmt: skip


def roc(curve: Content, auc: Content) -> str:
    """Draw recall over false alarms."""

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
        _banded(axes, curve)
        axes.set_title(f"AUC {interval(auc)}")
        _labels(axes, "good applicants refused", "bad applicants refused", percent="xy")

    return _single("roc", paint)


def precision_recall(curve: Content, figure: Content, bad_share: float) -> str:
    """Draw precision over recall."""

    def paint(axes: Axes) -> None:
        axes.axhline(bad_share, color=GREY, linestyle=":", linewidth=1)
        _banded(axes, curve)
        axes.set_title(f"average precision {interval(figure)}")
        _labels(axes, "bad applicants refused (recall)", "bad among refused (precision)",
                percent="xy")  # fmt: skip
        axes.set_ylim(0, 1.02)

    return _single("precision-recall", paint)


def calibration(curve: Content) -> str:
    """Draw the observed share of bad over the predicted one."""

    def paint(axes: Axes) -> None:
        predicted = np.asarray(curve["predicted"])
        most = min(1.0, 1.1 * max(predicted.max(), *curve["high"]))
        axes.plot([0, most], [0, most], color=GREY, linestyle=":", linewidth=1)
        reach = [
            np.maximum(0, np.subtract(curve["observed"], curve["low"])),
            np.maximum(0, np.subtract(curve["high"], curve["observed"])),
        ]
        axes.errorbar(predicted, curve["observed"], reach, color=GOOD, marker="o", markersize=4,
                      capsize=2, linewidth=1.2)  # fmt: skip
        axes.set_title(f"calibration error {interval(curve['error'])}")
        _labels(axes, "predicted probability of bad", "observed share of bad", percent="xy")

    return _single("calibration", paint)


def gain(curve: Content, bad_share: float) -> str:
    """Draw the share of the bad applicants found among the riskiest ones."""

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1, label="by chance")
        axes.plot([0, bad_share, 1], [0, 1, 1], color=THIRD, linestyle="--", linewidth=1,
                  label="perfect")  # fmt: skip
        _banded(axes, curve, "model")
        _labels(axes, "riskiest applicants", "share of all bad among them", percent="xy")
        axes.legend(loc="lower right")

    return _single("gain", paint)


def lift(curve: Content) -> str:
    """Draw how many times more bad applicants there are among the riskiest ones."""

    def paint(axes: Axes) -> None:
        shown = {key: value[2:] for key, value in curve.items()}
        axes.axhline(1, color=GREY, linestyle=":", linewidth=1)
        _banded(axes, shown)
        _labels(axes, "riskiest applicants", "times the average share of bad", percent="x")
        axes.set_ylim(bottom=0)

    return _single("lift", paint)


def separation(curve: Content, figure: Content) -> str:
    """Draw the score distributions of both classes and their largest distance, KS."""

    def paint(axes: Axes) -> None:
        grid, bad, good = (np.asarray(curve[name]) for name in ("grid", "bad", "good"))
        axes.plot(grid, bad, color=BAD, label="bad applicants")
        axes.plot(grid, good, color=GOOD, linestyle="--", label="good applicants")
        widest = int(np.argmax(bad - good))
        axes.plot([grid[widest]] * 2, [good[widest], bad[widest]], color="black", linewidth=1,
                  marker="_")  # fmt: skip
        axes.set_title(f"KS of a fold {interval(figure)}")
        _labels(axes, "probability of bad", "share at or above it", percent="xy")
        axes.legend(loc="best")

    return _single("ks", paint)


def cost(curve: Content, threshold: float) -> str:
    """Draw the cost per applicant over the threshold."""

    def paint(axes: Axes) -> None:
        _banded(axes, curve, "model")
        for name, line in (("accept_all", ":"), ("refuse_all", "-.")):
            axes.axhline(curve[name], color=GREY, linestyle=line, linewidth=1.2,
                         label=name.replace("_", " "))  # fmt: skip
        axes.axvline(threshold, color=BAD, linewidth=1.2, linestyle="--",
                     label=f"mean threshold {threshold:.3f}")  # fmt: skip
        axes.axvline(curve["ratio_threshold"], color=THIRD, linewidth=1.2, linestyle="-.",
                     label=f"ratio of costs {curve['ratio_threshold']:.3f}")  # fmt: skip
        _labels(axes, "threshold: refused from this probability on", "cost per applicant",
                percent="x")  # fmt: skip
        axes.set_ylim(bottom=0)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)

    return _single("cost", paint)


def learning_curve(points: list[Content]) -> str:
    """Draw test and training AUC over the number of training rows."""

    def paint(axes: Axes) -> None:
        rows = [point["rows"] for point in points]
        for part, color, marker in (("train", GREY, "s"), ("test", GOOD, "o")):
            mean = np.array([point[part]["mean"] for point in points], float)
            low = np.array([_or_nan(point[part]["low"]) for point in points], float)
            high = np.array([_or_nan(point[part]["high"]) for point in points], float)
            reach = np.nan_to_num([mean - low, high - mean])
            text = {"train": "training rows", "test": "test rows"}[part]
            axes.errorbar(rows, mean, reach, color=color, marker=marker, markersize=4, capsize=2,
                          label=text)  # fmt: skip
        _labels(axes, "training rows", "AUC")
        axes.legend(loc="best")

    return _single("learning-curve", paint)


def seeds(content: Content) -> str:
    """Draw the mean AUC of the same folds for each seed."""

    def paint(axes: Axes) -> None:
        means = content["means"]
        axes.plot(range(len(means)), means, color=GOOD, marker="o", linestyle="none")
        center = float(np.mean(means))
        axes.axhline(center, color=GREY, linestyle=":", linewidth=1)
        reach = max(0.01, 2 * max(abs(value - center) for value in means))
        axes.set_ylim(center - reach, center + reach)
        axes.set_xticks(range(len(means)))
        _labels(axes, "seed", f"mean AUC of the same {content['folds']} folds")

    return _single("seeds", paint)


def interval(figure: Content, digits: int = 3) -> str:
    """Return mean and interval of a figure in words."""
    value = figure["value"] if "value" in figure else figure["mean"]
    if figure["low"] is None:
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"


def _single(name: str, paint: Callable[[Axes], None]) -> str:
    return draw(name, *SIZE, lambda figure: paint(figure.subplots()))


def _banded(axes: Axes, curve: Content, label: str = "") -> None:
    axes.fill_between(
        curve["grid"], curve["low"], curve["high"], color=GOOD, alpha=0.2, linewidth=0
    )
    axes.plot(curve["grid"], curve["value"], color=GOOD, label=label)


def _labels(axes: Axes, x: str, y: str, percent: str = "") -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if "x" in percent:
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    if "y" in percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
