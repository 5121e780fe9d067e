"""The figures of all sources as tables, in words, and as a summary for other reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.synthetic.sources import BY_NAME, OURS

Dataset = Mapping[str, Any]
"""What `__main__` measured of one table: ``folds``, ``seed``, ``figures`` by source and fold, …"""

_SUMMARY_FACTS = ("folds", "seed", "rows_learned")


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        name: Its key.
        title: Head of its column.
        more_is_better: Of the three AUCs and shares whose ideal is 0.5, less is better: below it
            is chance.
        digits: Decimal places.
    """

    name: str
    title: str
    more_is_better: bool
    digits: int = 3


FIGURES = (
    Figure("tstr_auc", "TSTR, logistic", more_is_better=True),
    Figure("tstr_boosted_auc", "TSTR, boosted", more_is_better=True),
    Figure("column_fidelity", "columns", more_is_better=True),
    Figure("pair_fidelity", "pairs", more_is_better=True),
    Figure("sdmetrics_columns", "SDMetrics columns", more_is_better=True),
    Figure("sdmetrics_pairs", "SDMetrics pairs", more_is_better=True),
    Figure("sdmetrics_columns_raw", "SDMetrics columns, raw", more_is_better=True),
    Figure("sdmetrics_pairs_raw", "SDMetrics pairs, raw", more_is_better=True),
    Figure("detection_auc", "detection", more_is_better=False),
    Figure("rare_coverage", "rare levels", more_is_better=True),
    Figure("validity", "valid rows", more_is_better=True),
    Figure("closeness_share", "closeness", more_is_better=False),
    Figure("copy_rate", "copies", more_is_better=False, digits=4),
    Figure("membership_auc", "membership", more_is_better=False),
    Figure("train_seconds", "seconds", more_is_better=False, digits=1),
    Figure("peak_mb", "peak MB", more_is_better=False, digits=0),
)


def markdown(result: Mapping[str, Dataset]) -> str:
    """Return a part for each table of ``result``."""
    return "\n".join(line for name in sorted(result) for line in [*_part(name, result[name]), ""])


def summary(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Return source -> title and figures, each with mean and standard deviation over folds.

    The standard deviation is the sample's; of a single fold it is given as 0.  Figures of raw
    values, which not all sources make, are left out.
    """
    found = {}
    for source, entries in dataset["figures"].items():
        figures = {}
        for figure in FIGURES:
            values = _values(entries, figure)
            if values is not None and not figure.name.endswith("_raw"):
                figures[figure.name] = {"mean": float(values.mean()), "sd": _sd(values)}
        found[source] = {"title": _title(source), "figures": figures}
    return found


def merged(known: Mapping[str, Any], name: str, dataset: Dataset) -> dict[str, Any]:
    """Return the summary file ``known`` with one table brought up to date.

    Sources that were not measured now keep their figures if folds, seed and rows are the same.
    """
    facts = {key: dataset[key] for key in _SUMMARY_FACTS}
    before = known.get(name, {})
    same = all(before.get(key) == value for key, value in facts.items())
    sources = {**(before["sources"] if same else {}), **summary(dataset)}
    return {**known, name: {"made": dataset["made"], **facts, "sources": sources}}


def comparison(dataset: Dataset) -> list[str]:
    """Return, for each figure, which peers are better than our generator and by how much."""
    ours = dataset["figures"].get(OURS)
    if ours is None:
        return ["Our generator was not measured, so no peer is compared with it."]
    return [line for figure in FIGURES if (line := _compared(figure, ours, dataset))]


def _compared(figure: Figure, ours: Sequence[Mapping[str, float]], dataset: Dataset) -> str:
    own = _values(ours, figure)
    if own is None:
        return ""
    clear: list[tuple[float, str]] = []
    near: list[tuple[float, str]] = []
    for name, entries in dataset["figures"].items():
        values = _values(entries, figure)
        if not BY_NAME[name].compared or values is None:
            continue
        gain = (values - own) * (1 if figure.more_is_better else -1)
        mean, spread = float(gain.mean()), _sd(gain)
        if round(mean, figure.digits) > 0:
            text = f"{BY_NAME[name].title} by {mean:.{figure.digits}f}"
            known = f" (sd of the differences {spread:.{figure.digits}f})" if len(gain) > 1 else ""
            (clear if mean > spread else near).append((mean, text + known))
    parts = []
    if clear:
        parts.append(f"better {_beyond(len(own))}: {_joined(clear)}")
    if near:
        parts.append(f"better, but within one sd: {_joined(near)}")
    level = f"{own.mean():.{figure.digits}f}"
    return f"- **{figure.title}** (ours {level}): {'; '.join(parts) or 'no peer is better'}."


def _beyond(folds: int) -> str:
    return "by more than one sd" if folds > 1 else "(one split, so no spread is known)"


def _joined(found: list[tuple[float, str]]) -> str:
    return ", ".join(text for _, text in sorted(found, key=lambda entry: -entry[0]))


def _part(name: str, dataset: Dataset) -> list[str]:
    measured = dataset["figures"]
    shown = [f for f in FIGURES if any(_values(e, f) is not None for e in measured.values())]
    lines = [
        f"## {name}",
        "",
        _setting(dataset),
        "",
        f"| source | {' | '.join(figure.title for figure in shown)} | version |",
        "| --- |" + " ---: |" * len(shown) + " --- |",
    ]
    for source, entries in measured.items():
        cells = [_cell(_values(entries, figure), figure.digits) for figure in shown]
        version = BY_NAME[source].version
        lines.append(f"| {BY_NAME[source].title} | {' | '.join(cells)} | {version} |")
    known = 100 * float(np.mean(dataset["known_rows"]))
    lines += ["", f"Of the fold's own rows {known:.1f} % equal a learned one in every level."]
    if epochs := dataset["settings"]["ctgan"].get("epochs"):
        lines += ["", f"CTGAN and TVAE learned for {epochs} epochs (the library's default: 300)."]
    for source, message in dataset["failures"].items():
        lines += ["", f"Not measured: {BY_NAME[source].title}: {message}"]
    return [*lines, "", "What the peers do better:", "", *comparison(dataset)]


def _setting(dataset: Dataset) -> str:
    return (
        f"{dataset['folds']} of 5 folds, seed {dataset['seed']}: {dataset['rows_learned']} rows to "
        f"learn from, {dataset['rows_tested']} to test on; {dataset['made']}."
    )


def _cell(values: np.ndarray | None, digits: int) -> str:
    if values is None:
        return ""
    mean = f"{values.mean():.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {_sd(values):.{digits}f}"


def _title(source: str) -> str:
    title, version = BY_NAME[source].title, BY_NAME[source].version
    return f"{title} ({version})" if version else title


def _values(entries: Sequence[Mapping[str, float]], figure: Figure) -> np.ndarray | None:
    """Return a figure by fold, or nothing where the source has no such figure."""
    if any(figure.name not in entry for entry in entries):
        return None
    return np.asarray([entry[figure.name] for entry in entries], np.float64)


def _sd(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0
