"""The report: one dictionary of aggregates, written as JSON and rendered as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from evaluation import data_plots, plots, synthetic_plots
from evaluation.page import ABSENT, page_environment, write_both
from evaluation.paired import LEAST_FOLDS

Content = dict[str, Any]

HTML_FILE, JSON_FILE = "report.html", "report.json"
LEAK_AUC = {"german-credit": 0.82}
"""Above this AUC a table's result is a leak until proven otherwise."""
PERFECT_AUC = 0.99
SIGNIFICANT = 0.05

FIGURE_NAMES = {
    "auc": "AUC",
    "gini": "Gini (2 AUC - 1)",
    "ks": "KS",
    "average_precision": "average precision",
    "accuracy": "accuracy at probability 0.5",
    "log_loss": "log loss (nats)",
    "brier": "Brier score",
    "threshold": "cost threshold",
    "accuracy_at_threshold": "accuracy at the cost threshold",
    "expected_cost_at_threshold": "cost per applicant at the cost threshold",
    "train_auc": "AUC on training rows",
}

SYNTHETIC_NAMES = {
    "tstr_auc": "TSTR AUC, logistic regression",
    "tstr_boosted_auc": "TSTR AUC, boosted trees",
    "column_fidelity": "column fidelity",
    "pair_fidelity": "pair fidelity",
    "sdmetrics_columns": "SDMetrics column shapes",
    "sdmetrics_pairs": "SDMetrics column pair trends",
    "detection_auc": "detection AUC",
    "rare_coverage": "rare coverage",
    "validity": "validity",
    "closeness_share": "closeness share",
    "copy_rate": "copy rate",
    "membership_auc": "membership AUC",
    "train_seconds": "training, seconds",
    "peak_mb": "peak memory, MB",
}
BALANCE_NAMES = {
    "auc": "AUC",
    "average_precision": "average precision",
    "ks": "KS",
    "brier": "Brier score",
    "calibration_error": "calibration error",
    "cost_at_threshold": "cost, tuned threshold",
    "cost_at_ratio": "cost, ratio of the costs",
}


def warnings(content: Content) -> list[str]:
    """Return what a reader must know before any figure."""
    found = []
    bound = LEAK_AUC.get(content["settings"]["schema"], PERFECT_AUC)
    if content["source"]["synthetic"]:
        found.append(
            "SYNTHETIC DATA. No real table was found: these rows are the embedded sample, made by "
            "this project's own generator. Nothing here says anything about real credit."
        )
    auc = content["classifier"] and content["classifier"]["headline"]["auc"]["mean"]
    if auc and auc > bound:
        found.append(
            f"SUSPECTED LEAK. The AUC of {auc:.3f} is above {bound}, which no honest model of this "
            "table is known to reach. Look for a field that holds the outcome, and for rows that "
            "are in training and test at once, before believing any figure."
        )
    if content["settings"]["quick"]:
        found.append(
            "QUICK LOOK. Few folds and seeds: the figures are unbiased but uncertain. Run again "
            "without --quick before deciding anything."
        )
    elif content["settings"]["plan"]["repeats"] * content["settings"]["plan"]["folds"] < 10:
        found.append("Fewer than ten folds: intervals are wide, tests find little.")
    return found


def verdict(row: Content) -> str:
    """Return in words how a method stands to the one evaluated in depth, by AUC."""
    test = row.get("difference", {}).get("auc")
    if test is None:
        return ""
    if test["mean"] == 0 and test["sd"] == 0:
        return "equal on every fold"
    if test["p_holm"] is None:
        return f"too few folds to tell (fewer than {LEAST_FOLDS})"
    better = "worse" if test["mean"] > 0 else "better"
    if test["p_holm"] >= SIGNIFICANT:
        return f"{better} by {abs(test['mean']):.4f}, within chance"
    return f"{better} by {abs(test['mean']):.4f}, beyond chance"


def utility(synthetic: Content) -> str:
    """Return in words what share of a really trained model's AUC the synthetic rows give."""
    floor, found = synthetic["floor"], synthetic["utility"]
    parts = [
        f"{words} {found[name]['mean']:.1%} of the AUC that real rows give"
        f"{'' if found[name]['mean'] >= floor else ', below the floor'}"
        for name, words in (
            ("tstr_auc", "a logistic regression trained on them reaches"),
            ("tstr_boosted_auc", "boosted trees reach"),
        )
    ]
    text = f"{'; '.join(parts)} (the floor is {floor:.0%})."
    return text[0].upper() + text[1:]


def standing_words(found: Content) -> str:
    """Return in words what a peer of the generator does better and worse than ours."""
    parts = []
    for kind in ("better", "worse"):
        each = [
            f"{SYNTHETIC_NAMES[one['figure']]} ({_amount(one['peer'], one['figure'])}, ours "
            f"{_amount(one['ours'], one['figure'])})"
            for one in found[kind]
        ]
        parts.append(f"{kind} in {', '.join(each)}" if each else f"{kind} in nothing")
    return "; ".join(parts) + ("; within one sd of folds in the rest." if found["near"] else ".")


def finding_words(found: Content) -> str:
    """Return in words what a way to balance the classes changes beyond chance."""
    if not found["tested"]:
        return f"too few folds to tell (fewer than {LEAST_FOLDS})."
    parts = []
    for kind in ("better", "worse"):
        each = [f"{BALANCE_NAMES[one['figure']]} ({one['difference']:+.4f})" for one in found[kind]]
        parts += [f"{kind} {', '.join(each)}"] if each else []
    return f"beyond chance, {'; '.join(parts)}." if parts else "nothing changes beyond chance."


def balance_verdict(findings: Sequence[Content]) -> str:
    """Return in words whether any way to balance the classes helps."""
    if not all(found["tested"] for found in findings):
        return "Too few folds to tell whether balancing the classes helps."
    helpful = [found["title"] for found in findings if found["better"]]
    if not helpful:
        return "Balancing the classes does not help: no figure gets better beyond chance."
    harmful = [found["title"] for found in findings if found["better"] and found["worse"]]
    text = f"Some figure gets better beyond chance with: {', '.join(helpful)}"
    return text + (f"; another gets worse with: {', '.join(harmful)}." if harmful else ".")


def write(content: Content, out: Path) -> tuple[Path, Path]:
    """Write both files, readable by their owner only; return their paths, HTML first."""
    return write_both(render(content), content, out / HTML_FILE, out / JSON_FILE)


def render(content: Content) -> str:
    """Return the HTML page of cleaned ``content``."""
    environment = page_environment(
        "evaluation",
        signed=_signed,
        p_value=_p_value,
        verdict=verdict,
        amount=_amount,
        utility=utility,
        standing=standing_words,
        finding=finding_words,
        balance_verdict=balance_verdict,
    )
    svg = {name: Markup(text) for name, text in _drawn(content).items()}  # noqa: S704 - our own
    return environment.get_template("report.html").render(
        **content, svg=svg, figure_names=FIGURE_NAMES, synthetic_names=SYNTHETIC_NAMES,
        balance_names=BALANCE_NAMES,
    )  # fmt: skip


def _drawn(content: Content) -> dict[str, str]:
    data = content["data"]
    correlation = data["correlation"]
    drawn = {"class_balance": data_plots.class_balance(data["classes"])}
    if data["numeric"]:
        drawn["boxes"] = data_plots.boxes(data["numeric"])
    drawn["cramers_v"] = data_plots.correlation(
        correlation["names"], correlation["cramers_v"], "cramers-v", signed=False
    )
    drawn["pearson"] = data_plots.correlation(
        correlation["names"], correlation["pearson"], "pearson", signed=True
    )
    if content["classifier"]:
        drawn |= _drawn_classifier(content)
    if content["synthetic"]:
        drawn |= synthetic_plots.synthetic_plots(content["synthetic"])
    if content["imbalance"]:
        rows = content["imbalance"]["methods"][1:]
        drawn["balance"] = data_plots.balance(rows, BALANCE_NAMES)
    return drawn


def _drawn_classifier(content: Content) -> dict[str, str]:
    comparison = content["comparison"]
    drawn = plots.classifier_plots(content["classifier"])
    drawn["methods_auc"] = data_plots.methods(comparison["methods"], "auc", "AUC", [])
    drawn["methods_accuracy"] = data_plots.methods(
        comparison["methods"], "accuracy", "accuracy at probability 0.5", comparison["published"]
    )
    for number, entry in enumerate(content["groups"]):
        if entry["groups"]:
            drawn[f"groups_{number}"] = data_plots.groups(entry, number)
    return drawn


def _signed(found: Content, digits: int = 4) -> str:
    return ABSENT if found["mean"] is None else f"{found['mean']:+.{digits}f}"


def _p_value(p: float | None) -> str:
    if p is None:
        return ABSENT
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _amount(value: float, figure: str) -> str:
    """Return a figure of synthetic rows: seconds and megabytes need no decimals."""
    return f"{value:,.0f}" if figure in ("train_seconds", "peak_mb") else f"{value:.3f}"
