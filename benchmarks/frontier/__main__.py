"""The frontier: cells that the strongest attack names, against the AUC that is left.

    python -m benchmarks.frontier --data FILE --schema SCHEMA --out FOLDER [--only NAME ...]

For each protection of `benchmarks.frontier.protections`, on one table:

- **Recovery**: the table is cut in two halves.  One is protected and encrypted, with all fitted on
  it; the attacker has its tokens and labels, and the other half in plain.  Every attack that fits
  is run, and the one that names most cells on the average over the cuts counts; cells of *all*
  fields count, also of those that the host is not shown.  Beside it stand the attacker who knows
  what each token means, whom no better naming can help, and the guess of each field's most
  frequent level.
- **AUC** of our classifier, default preset, cross-validated; everything is fitted on training rows,
  and each test row is sent once.  Protections that show the same table share the figure: training
  cannot tell tokens from plain levels.
- **Cost**: tokens in the vocabulary, bytes of a request's tokens, one row's time in ONNX Runtime.

Intervals are 95 % bootstrap intervals over cuts, or folds.  Writes ``frontier.json``,
``frontier.md`` and ``frontier.svg``, after each protection anew; what they hold of the same table
and options is not run again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from attacks.recovery import estimates
from benchmarks.frontier.accuracy import costs
from benchmarks.frontier.figure import draw
from benchmarks.frontier.protections import Protection, fields, protections
from benchmarks.frontier.recovery import KNOWING, MODE, attacked
from benchmarks.scorecards import attacked as scored_alone
from benchmarks.scorecards import kept, reach
from cipherscore.client.sources import find_table
from cipherscore.files import write_bytes, write_json
from cipherscore.schema_file import load_schema
from evaluation.folds import RawData
from evaluation.page import clean

RESULTS = "frontier.json"
ASKED = ("folds", "take", "cuts", "seed", "draws")
"""Options that figures depend on."""
BASE = "plain"
"""The protection that losses are losses to."""
SCORES, SCORES_TITLE = "scores", "none, but only scores are seen"
"""What no protection hides from a host that scores."""
SIMPLEST = ("reading", "informed", "rank", "assignment", "joint", "annealed", "shared key")
"""Attacks; of equally strong ones the first is named."""
COLUMNS = (
    "protection", "AUC", "AUC loss", "strongest attack", "cells", "above mode", "meaning known",
    "tokens", "bytes/row", "µs/row",
)  # fmt: skip


def summarise(results: Mapping[str, Mapping[str, Any]], seed: int) -> dict[str, dict[str, Any]]:
    """Return mean and interval of each protection's figures."""
    summary = {}
    for name, found in results.items():
        attacks = {attack: np.array(shares) for attack, shares in found["recovery"].items()}
        mode = attacks.pop(MODE)
        tried = {attack: s for attack, s in attacks.items() if attack != KNOWING} or attacks
        strongest = max(sorted(tried, key=SIMPLEST.index), key=lambda a: float(tried[a].mean()))
        figures = {
            "mode": mode, "cells": tried[strongest], "above_mode": tried[strongest] - mode,
            "knowing": attacks.get(KNOWING, tried[strongest]),
        }  # fmt: skip
        entry: dict[str, Any] = estimates({k: v.tolist() for k, v in figures.items()}, seed)
        area = np.array([one["auc"] for one in found["costs"]])
        lost = np.array([one["auc"] for one in results[BASE]["costs"]]) - area
        entry |= estimates({"auc": area.tolist(), "auc_loss": lost.tolist()}, seed)
        for figure in ("tokens", "row_bytes", "row_seconds", "training_seconds"):
            entry[figure] = float(np.mean([one[figure] for one in found["costs"]]))
        entry["strongest"] = strongest
        entry["attacks"] = {attack: float(shares.mean()) for attack, shares in attacks.items()}
        summary[name] = {"title": found["title"], **entry}
    return summary


def markdown(summary: Mapping[str, Mapping[str, Any]], title: str) -> str:
    """Return the summary as a table, one row per protection."""
    lines = [f"# {title}", "", f"| {' | '.join(COLUMNS)} |"]
    lines.append("| --- | ---: | ---: | --- |" + " ---: |" * (len(COLUMNS) - 4))
    for entry in summary.values():
        shares = [reach(entry[name], 100, 1) for name in ("cells", "above_mode", "knowing")]
        cells = [
            entry["title"], f"{entry['auc']['mean']:.4f}", reach(entry["auc_loss"], 1, 4),
            entry["strongest"], *shares, f"{entry['tokens']:.0f}", f"{entry['row_bytes']:.0f}",
            f"{1e6 * entry['row_seconds']:.1f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def measured(
    raw: RawData,
    protection: Protection,
    options: argparse.Namespace,
    base: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return all figures of a protection, cut by cut and fold by fold.

    ``base`` are those of the plain table, if known, whose costs are those of its encrypted kin.
    """
    cuts = [attacked(raw, protection, number, options.seed) for number in range(options.cuts)]
    if base is not None and protection.view is fields:
        found = base["costs"]
    else:
        take = options.take or options.folds
        found = [asdict(one) for one in costs(raw, protection, options.folds, take, options.seed)]
    return {
        "title": protection.title,
        "recovery": {attack: [cut[attack] for cut in cuts] for attack in cuts[0]},
        "costs": found,
    }


def scores_alone(raw: RawData, options: argparse.Namespace, base: Mapping[str, Any]) -> Any:
    """Return the figures of an attacker who sees each row's score and label, and no token.

    The scores are those of the classifier that has the plain table, whose costs are ``base``'s.
    """
    cuts, _ = scored_alone(raw, options.cuts, options.seed, scores=True)
    recovery = {MODE: cuts["mode"], "informed": cuts["informed"]}
    return {"title": SCORES_TITLE, "recovery": recovery, "costs": base["costs"]}


def write(
    results: Mapping[str, Any], raw: RawData, options: argparse.Namespace, asked: Mapping[str, Any]
) -> None:
    """Write results, table and figure."""
    summary = summarise(results, options.seed)
    title = f"Frontier of {raw.schema.name}: {options.cuts} cuts, seed {options.seed}"
    content = clean({"asked": asked, "summary": summary, "results": results})
    write_json(options.out / RESULTS, content)
    write_bytes(options.out / "frontier.md", markdown(summary, title).encode())
    write_bytes(options.out / "frontier.svg", draw({raw.schema.name: summary}).encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="raw table; see `cipherscore data --help`")
    parser.add_argument("--schema", default="german-credit", help="name or TOML file")
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    parser.add_argument("--only", action="append", help="a protection's name; may be repeated")
    parser.add_argument("--folds", type=int, default=10, help="parts the rows are cut in")
    parser.add_argument("--take", type=int, help="folds to compute; default: all")
    parser.add_argument("--cuts", type=int, default=10, help="times the table is cut in halves")
    parser.add_argument("--draws", type=int, default=20, help="of a row, where fields are smoothed")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    schema = load_schema(options.schema)
    raw = RawData.read(schema, find_table(schema, options.data))
    asked = {"table": raw.digest, **{name: getattr(options, name) for name in ASKED}}
    results: dict[str, Any] = kept(options.out / RESULTS, asked)
    planned = {one.name: one for one in protections(options.draws)}
    names = [BASE, SCORES, *[name for name in planned if name != BASE]]
    for name in names:
        wanted = name == BASE or not options.only or name in options.only
        if name in results or not wanted:
            continue
        if name == SCORES:
            results[name] = scores_alone(raw, options, results[BASE])
        else:
            results[name] = measured(raw, planned[name], options, results.get(BASE))
        results = {one: results[one] for one in names if one in results}
        write(results, raw, options, asked)
        print(f"{name} done", file=sys.stderr, flush=True)
    print((options.out / "frontier.md").read_text())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
