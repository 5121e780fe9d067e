"""The model card of a version: what it is for, what it was measured to do, and what it leaks.

After Mitchell et al. 2019, "Model Cards for Model Reporting".  Made of what the host knows; an
owner's evaluation (``cipherscore evaluate``) adds the comparison and the groups, which the host
cannot read itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2

from cipherscore.errors import ExportError, shorten
from training.runs import Run

_HEADLINE = {
    "auc": "AUC",
    "accuracy": "accuracy",
    "expected_cost": "cost per applicant",
    "brier": "Brier score",
    "log_loss": "log loss",
    "recall_bad": "share of the bad credits that are refused",
    "precision_bad": "share of the refused that are bad credits",
    "recall_good": "share of the good credits that are accepted",
}
"""Figures of a classifier that the card shows, and their names for people."""
_PARTS = {"classifier": "comparison", "generator": "synthetic"}
"""Part of an evaluation's report that a kind of model needs."""


def model_card(run: Run, export: Mapping[str, Any], evaluation: Mapping[str, Any] | None) -> str:
    """Return the card as Markdown.

    Args:
        run: The training.
        export: Figures of the export: parity, and variants by name.
        evaluation: What `read_evaluation` returned; None without one.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("export"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - Markdown for a terminal
    )
    figures = list(_figures(run))
    return environment.get_template("card.md.j2").render(
        run=run,
        schema=run.schema,
        export={"int8": None, **export},
        privacy=run.metrics.get("privacy"),
        figures=figures,
        intervals=any(one["interval"] for one in figures),
        evaluation=evaluation,
    )


def read_evaluation(path: Path, run: Run) -> Mapping[str, Any]:
    """Return what the card takes from an owner's ``report.json``.

    It names groups and their shares: the owner decides whether the host may have it.

    Raises:
        ExportError: The file is no report, one of another table or preset, or one without the
            part about this kind of model; or the run has a privacy guarantee of its own.
    """
    if "privacy" in run.metrics:
        raise ExportError(
            f"{path}: this generator was trained with an epsilon; the report is of others, and its "
            "figures of learned rows would be outside the guarantee; leave --evaluation out"
        )
    try:
        content = json.loads(path.read_text("utf-8"))
        schema, part = content["settings"]["schema"], content[_PARTS[run.kind]]
        summary = f"Made {content['made']} on {content['source']['name']!r}"
        summary += ", SYNTHETIC rows." if content["source"]["synthetic"] else "."
        read = _of_classifier if run.kind == "classifier" else _of_generator
        preset, found = read(content) if part else ("", {})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(
            f"{path} is no report.json of `cipherscore evaluate`: {type(error).__name__}"
        ) from error
    if not part:
        raise ExportError(
            f"{path} has nothing about a {run.kind}: it was made with --only; evaluate without it"
        )
    if (schema, preset) != (run.schema.name, run.preset):
        raise ExportError(
            f"{path} is of a {run.kind} of {shorten(str(schema))}, preset {shorten(str(preset))}; "
            f"this is a {run.kind} of {run.schema.name!r}, preset {run.preset!r}"
        )
    return {"summary": summary, **found}


def _of_classifier(content: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the preset, and what the card shows of the comparison and the groups."""
    groups = [_group(field["field"], one) for field in content["groups"] for one in field["groups"]]
    methods = [_method(one) for one in content["comparison"]["methods"]]
    return content["settings"]["preset"], {"methods": methods, "groups": groups}


def _of_generator(content: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the preset, and the figures of all sources of rows: mean and sd over folds."""
    part = content["synthetic"]
    sources = part["sources"]
    names = [name for name in sources[0]["figures"] if name != "train_seconds"]
    figures = [
        {
            "name": name.replace("_", " "),
            "values": [_spread(source["figures"].get(name)) for source in sources],
        }
        for name in names
    ]
    found = {
        "folds": part["folds"],
        "sources": [source["title"] for source in sources],
        "figures": figures,
    }
    return part["preset"], found


def _spread(figure: Mapping[str, Any] | None) -> str:
    return f"{figure['mean']:.4f} ± {figure['sd']:.4f}" if figure else ""


def _method(one: Mapping[str, Any]) -> dict[str, Any]:
    area = one["figures"]["auc"]
    return {
        "title": f"{one['title']} (on {one['sees']})",
        "folds": one["folds"],
        "auc": float(area["mean"]),
        "sd": float(area["sd"]),
    }


def _group(field: str, one: Mapping[str, Any]) -> dict[str, Any]:
    area = one["auc"]
    return {
        "field": field,
        "group": one["value"],
        "rows": int(one["rows"]),
        "bad_rate": float(one["base_rate"]["value"]),
        "approval_rate": float(one["approval_rate"]["value"]),
        "auc": None if not area else float(area["value"]),
    }


def _figures(run: Run) -> Iterator[dict[str, str]]:
    for name, entry in run.metrics.get("test", {}).items():
        if run.kind == "classifier":
            if name in _HEADLINE:
                yield _figure(_HEADLINE[name], entry)
        elif isinstance(entry, (int, float)) or "value" in entry:
            yield _figure(name.replace("_", " "), entry)
        else:
            for part, value in entry.items():
                yield _figure(f"{name}: {part}".replace("_", " "), value)


def _figure(name: str, entry: Any) -> dict[str, str]:
    value = entry["value"] if isinstance(entry, Mapping) else entry
    interval = ""
    if isinstance(entry, Mapping) and "low" in entry:
        interval = f"{entry['low']:.4f} to {entry['high']:.4f}"
    return {
        "name": name,
        "value": f"{value:.4f}" if isinstance(value, float) else str(value),
        "interval": interval,
    }
