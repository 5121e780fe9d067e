"""What scorecards hide and cost: recovery by an informed attacker, and cross-validated AUC.

    python -m benchmarks.scorecards --data FILE --schema SCHEMA --out FOLDER [--setting 2x8 ...]

For each setting, ``count x levels [x views]`` of docs/scorecards.md, beside the table with every
field encrypted by itself, and beside a host that sees nothing but the scores (in `SCORE_BINS` bins)
which our classifier gives with all fields: it is told those whatever is encrypted.

- **AUC** of our classifier, default preset, on tokens; all settings on the same folds, with bins,
  points and scorecards fitted on a fold's training rows.
- **Recovery**: the table is cut in two halves.  One is encrypted, with all fitted on it; the
  attacker has the other in plain, with labels, knows what each token of the first stands for, and
  names the level of every attribute of every row (`attacks.informed`).  Figures are shares of cells
  named correctly, beside those of naming each attribute's most frequent level, and of the same
  attack on labels alone, which are no secret of any table.
- **Alone**: share of encrypted rows whose tokens, all together, no other row has.

Intervals are 95 % bootstrap intervals over cuts, or folds.  Nothing here sees a key: the attack is
on what tokens stand for, so figures depend on the seed alone.

Writes ``scorecards.json`` and ``scorecards.md`` after each setting; what they hold of the same
table and options is not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from attacks.cuts import halves
from attacks.informed import by_mode, informed
from attacks.recovery import estimates
from cipherscore.client.keys import Keyset
from cipherscore.client.scorecards import attribute_levels
from cipherscore.client.sources import find_table
from cipherscore.client.tables import field_column, level_indices
from cipherscore.files import write_bytes, write_json
from cipherscore.schema import Schema, Scorecards
from cipherscore.schema_file import load_schema
from cipherscore.scorecards import planned_fields
from evaluation.contestants import network
from evaluation.folds import Fold, RawData, Rows, folds
from training.evaluation import auc
from training.presets import DEFAULT

FIELDS = "fields"
"""The setting without scorecards."""
SCORES = "scores"
"""The setting in which scores alone are seen."""
SCORE_BINS = 16
SETTINGS = ("1x4", "1x8", "1x16", "1x4x4", "1x8x2", "2x4", "2x8", "3x8")
COLUMNS = (
    "setting", "AUC", "AUC loss", "mode", "label alone", "informed", "above mode",
    "worst attribute above mode", "alone",
)  # fmt: skip
RESULTS = "scorecards.json"
ASKED = ("repeats", "folds", "take", "cuts", "seed")
"""Options that figures depend on."""
Figures = dict[str, list[float]]
Seen = tuple[np.ndarray, tuple[int, ...]]
"""What is seen of every row, and how many levels each column has."""


def with_setting(schema: Schema, setting: str) -> Schema:
    """Return a schema whose fields are summed up, or as it is for `FIELDS`.

    Raises:
        ValueError: The setting is no such numbers.
    """
    if setting == FIELDS:
        return schema
    fields = planned_fields(*map(int, setting.split("x")))
    return replace(schema, fields=fields, scorecards=Scorecards(schema.inputs))


def attacked(
    raw: RawData, cuts: int, seed: int, *, scores: bool = False
) -> tuple[Figures, list[float]]:
    """Return figures of each cut, and of each attribute what the attack gains over its mode."""
    found: Figures = {name: [] for name in ("mode", "label", "informed", "alone")}
    gains = []
    for number in range(cuts):
        mine, others = halves(raw, np.random.default_rng([seed, number]))
        schema = raw.fitted(mine)
        truth = attribute_levels(raw.table, schema)
        seen, sizes = scored(raw, mine, others) if scores else visible(raw, schema)
        label = raw.label[:, None].astype(np.int32)
        guesses = {
            "mode": by_mode(seen[mine], seen[others], truth[others], sizes, 0),
            "label": informed(label[mine], label[others], truth[others], (2,), number),
            "informed": informed(seen[mine], seen[others], truth[others], sizes, number),
        }
        right = {name: np.mean(guess == truth[mine], axis=0) for name, guess in guesses.items()}
        for name, shares in right.items():
            found[name].append(float(shares.mean()))
        found["alone"].append(alone(seen[mine, :-1]))
        gains.append(right["informed"] - right["mode"])
    return found, np.mean(gains, axis=0).tolist()


def visible(raw: RawData, schema: Schema) -> Seen:
    """Return the level behind each token and the label, int32 [rows, fields + 1], and sizes."""
    table = raw.as_fields(schema).table
    columns = [level_indices(field_column(table, f), f) for f in schema.fields]
    sizes = (*(len(f.levels) for f in schema.fields), 2)
    return np.column_stack([*columns, raw.label]).astype(np.int32), sizes


def scored(raw: RawData, mine: Rows, others: Rows) -> Seen:
    """Return bins of scores and the label, int32 [rows, 2], and sizes.

    The network learns on ``mine``, as the host's does; bins are equally frequent there.
    """
    fold = Fold(0, 0, mine, others)
    found = network(DEFAULT, Keyset.create(), with_train=True)(raw, fold, 0)
    assert found.train is not None  # asked for
    score = np.empty(raw.rows)
    score[mine], score[others] = found.train, found.test
    cuts = np.quantile(found.train, np.arange(1, SCORE_BINS) / SCORE_BINS)
    bins = np.searchsorted(cuts, score, side="right")
    return np.column_stack([bins, raw.label]).astype(np.int32), (SCORE_BINS, 2)


def alone(tokens: np.ndarray) -> float:
    """Return the share of rows of ``tokens`` [rows, fields] that occur once."""
    _, counts = np.unique(tokens, axis=0, return_counts=True)
    return float((counts == 1).sum() / len(tokens))


def areas(raw: RawData, repeats: int, count: int, take: int | None, seed: int) -> list[float]:
    """Return the AUC on tokens of each fold."""
    scores = network(DEFAULT, Keyset.create())
    return [
        auc(raw.label[fold.test], scores(raw, fold, fold.training_seed(seed)).test)
        for fold in islice(folds(raw, repeats, count, seed), take)
    ]


def summarise(results: Mapping[str, Mapping[str, Any]], seed: int) -> dict[str, dict[str, Any]]:
    """Return mean and interval of each setting's figures; AUC also less that of `FIELDS`."""
    summary = {}
    for setting, found in results.items():
        cuts = found["cuts"]
        above = np.subtract(cuts["informed"], cuts["mode"]).tolist()
        entry: dict[str, Any] = estimates({**cuts, "above_mode": above}, seed)
        if found["auc"]:
            lost = np.subtract(results[FIELDS]["auc"], found["auc"]).tolist()
            entry |= estimates({"auc": found["auc"], "auc_loss": lost}, seed)
        names, gains = found["attributes"], found["gains"]
        worst = int(np.argmax(gains))
        entry["worst"] = {"attribute": names[worst], "above_mode": gains[worst]}
        summary[setting] = entry
    return summary


def markdown(summary: Mapping[str, Mapping[str, Any]], title: str) -> str:
    """Return the summary as a table, one row per setting."""
    lines = [f"# {title}", "", f"| {' | '.join(COLUMNS)} |", "| --- |" + " ---: |" * 8]
    for setting, entry in summary.items():
        area = f"{entry['auc']['mean']:.4f}" if "auc" in entry else ""
        loss = reach(entry["auc_loss"], 1, 4) if "auc" in entry else ""
        shares = [f"{100 * entry[name]['mean']:.1f} %" for name in ("mode", "label", "informed")]
        above, worst = reach(entry["above_mode"], 100, 1), 100 * entry["worst"]["above_mode"]
        rest = [f"{worst:.1f}", f"{100 * entry['alone']['mean']:.1f} %"]
        lines.append(f"| {' | '.join([setting, area, loss, *shares, above, *rest])} |")
    return "\n".join(lines) + "\n"


def reach(figure: Mapping[str, float], factor: float, digits: int) -> str:
    """Return mean and interval of a figure, in brackets."""
    mean, low, high = (f"{factor * figure[k]:.{digits}f}" for k in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def kept(file: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results that ``file`` holds of the same table and options, else none."""
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    return dict(found["results"]) if found["asked"] == asked else {}


def measured(raw: RawData, setting: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one setting, cut by cut and fold by fold."""
    only_scores = setting == SCORES
    table = replace(raw, schema=with_setting(raw.schema, FIELDS if only_scores else setting))
    cuts, gains = attacked(table, options.cuts, options.seed, scores=only_scores)
    found: list[float] = []
    if not only_scores:
        found = areas(table, options.repeats, options.folds, options.take, options.seed)
    names = [f.name for f in raw.schema.inputs]
    return {"cuts": cuts, "attributes": names, "gains": gains, "auc": found}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="raw table; see `cipherscore data --help`")
    parser.add_argument("--schema", default="german-credit", help="name or TOML file")
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    parser.add_argument("--setting", action="append", help="count x levels; may be repeated")
    parser.add_argument("--folds", type=int, default=10, help="parts the rows are cut in")
    parser.add_argument("--repeats", type=int, default=1, help="times they are cut anew")
    parser.add_argument("--take", type=int, help="folds to compute; 0: train nothing")
    parser.add_argument("--cuts", type=int, default=10, help="times the table is cut in halves")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    schema = load_schema(options.schema)
    raw = RawData.read(schema, find_table(schema, options.data))
    asked = {"table": raw.digest, **{name: getattr(options, name) for name in ASKED}}
    results: dict[str, Any] = kept(options.out / RESULTS, asked)
    scores = () if options.take == 0 else (SCORES,)
    for setting in (FIELDS, *scores, *(options.setting or SETTINGS)):
        if setting not in results:
            results[setting] = measured(raw, setting, options)
        order = [name for name in (FIELDS, SCORES, *SETTINGS) if name in results]
        results = {name: results[name] for name in dict.fromkeys([*order, *results])}
        summary = summarise(results, options.seed)
        title = f"Scorecards of {schema.name}: {options.cuts} cuts, seed {options.seed}"
        content = {"asked": asked, "summary": summary, "results": results}
        write_json(options.out / RESULTS, content)
        write_bytes(options.out / "scorecards.md", markdown(summary, title).encode())
        print(f"{setting} done", file=sys.stderr, flush=True)
    print(markdown(summary, title))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
