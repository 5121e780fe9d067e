"""What a sweep found, as files: the best recipe, all figures, and a page for people."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from cipherscore.files import write_bytes, write_json
from training.preset_file import write_preset
from training.sweep import Sweep

PRESET, FIGURES, PAGE = "preset.toml", "sweep.json", "sweep.md"
_SHOWN = 10


def write_report(sweep: Sweep, out: Path, title: str) -> dict[str, Any]:
    """Write ``preset.toml``, ``sweep.json`` and ``sweep.md`` into ``out``; return the figures."""
    content = figures(sweep)
    write_preset(sweep.best, out / PRESET)
    write_json(out / FIGURES, content)
    write_bytes(out / PAGE, markdown(content, title).encode())
    return content


def figures(sweep: Sweep) -> dict[str, Any]:
    """Return all trials, the best first, those given up last, and the best by optimiser."""
    whole = [trial for trial in sweep.trials if trial.state == TrialState.COMPLETE]
    trials = [_trial(one) for one in sorted(whole, key=lambda one: -(one.value or 0.0))]
    by_optimizer: dict[str, dict[str, Any]] = {}
    for one in trials:
        by_optimizer.setdefault(one["choices"]["optimizer"], one)
    numbers = {one["number"]: one for one in trials}
    finalists = [
        {**asdict(one), "searched_auc": numbers[one.number]["auc"]} for one in sweep.finalists
    ]
    return {
        "auc": sweep.finalists[0].auc,
        "finalists": finalists,
        "trials": len(sweep.trials),
        "given_up": len(sweep.trials) - len(whole),
        "best": numbers[sweep.finalists[0].number],
        "by_optimizer": by_optimizer,
        "importance": {name: float(share) for name, share in sweep.importance.items()},
        "whole": trials,
    }


def _trial(one: FrozenTrial) -> dict[str, Any]:
    return {"number": one.number, "auc": one.value, "choices": one.params, **one.user_attrs}


def markdown(content: dict[str, Any], title: str) -> str:
    """Return the page."""
    told = (
        f"{content['trials']} recipes, {content['given_up']} of them given up after their first "
        "folds. The best of that many are a little lucky on the folds that chose them, so they and "
        "the default preset (the first trial) were scored again on rows divided anew; the first "
        "line is the result."
    )
    lines = [
        f"# {title}",
        "",
        told,
        "",
        "| finalist: trial | AUC, new divisions | sd of folds | AUC in the search |",
        "| ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {one['number']} | {one['auc']:.4f} | {one['sd']:.3f} | {one['searched_auc']:.4f} |"
        for one in content["finalists"]
    ]
    lines += [
        "",
        "| optimiser | best AUC | sd of folds | trial |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, one in content["by_optimizer"].items():
        lines.append(f"| {name} | {one['auc']:.4f} | {_sd(one)} | {one['number']} |")
    lines += ["", "| trial | AUC | sd of folds | choices |", "| ---: | ---: | ---: | --- |"]
    for one in content["whole"][:_SHOWN]:
        chosen = ", ".join(f"{name} {_short(value)}" for name, value in one["choices"].items())
        lines.append(f"| {one['number']} | {one['auc']:.4f} | {_sd(one)} | {chosen} |")
    if content["importance"]:
        lines += ["", "| choice | share of the variance explained |", "| --- | ---: |"]
        lines += [f"| {name} | {share:.2f} |" for name, share in content["importance"].items()]
    return "\n".join(lines) + "\n"


def _sd(one: dict[str, Any]) -> str:
    return f"{one['sd']:.3f}" if "sd" in one else "-"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
