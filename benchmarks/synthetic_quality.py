"""How good are generated rows?  Cross-validated, beside real rows and independent columns.

    python -m benchmarks.synthetic_quality --data FOLDER --out FOLDER [--preset default]

In each fold numeric fields are cut on its training rows, and a generator learns from those rows;
its rows are measured against the fold's test rows.  Levels stand for their tokens, which the
trainer cannot tell apart, so that no key's random order of columns enters the figures.

Measured per fold, and given as mean and standard deviation over folds:

* ``tstr_auc``: logistic regression trained on 1,000 synthetic rows, tested on the fold;
* ``tstr_boosted_auc``: the same with gradient-boosted trees;
* ``column_fidelity``, ``pair_fidelity``: 1 less the mean total variation distance of the one-way
  and two-way tables, to the learned rows and to the fold;
* ``closeness_share``: see `training.fidelity.closeness_share`; 0.50 favours nobody;
* ``copy_rate``: synthetic rows equal to a learned row;
* ``detection_auc``, ``membership_auc``, ``rare_coverage``: see `training.disclosure`.

Writes ``synthetic_quality.json`` and ``synthetic_quality.md``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from cipherscore.client.keys import Keyset
from cipherscore.client.sources import find_table
from cipherscore.dataset import TEST, TRAIN, TokenDataset
from cipherscore.files import write_bytes, write_json
from cipherscore.schema_file import load_schema
from evaluation.folds import RawData, folds, in_plain, token_dataset
from training import disclosure, fidelity, generator
from training.evaluation import auc
from training.fidelity import TSTR_ROWS, Rows, multi_hot
from training.generator_presets import GENERATOR_PRESETS, generator_preset
from training.tensorflow_setup import configure

DRAWN_ROWS = 5_000
BOOSTED_DRAWS = 2
Figures = dict[str, float]


def independent_columns(learned: Rows, count: int, seed: int) -> Rows:
    """Draw every column by itself: perfect columns, no structure."""
    random = np.random.default_rng(seed)
    columns = [random.choice(column, count) for column in learned.indices.T]
    return Rows(np.stack(columns, axis=1), random.choice(learned.label, count))


def boosted_auc(synthetic: Rows, tests: Rows, sizes: Sequence[int]) -> float:
    """Return the AUC of boosted trees trained on synthetic rows, the mean of a few draws."""
    tested = multi_hot(tests.indices, sizes)
    figures = []
    for start in range(0, BOOSTED_DRAWS * TSTR_ROWS, TSTR_ROWS):
        part = synthetic.take(slice(start, start + TSTR_ROWS))
        if not len(part.label):
            break
        model = HistGradientBoostingClassifier(
            max_iter=60, max_depth=3, learning_rate=0.08, random_state=0
        )
        model.fit(multi_hot(part.indices, sizes), part.label)
        figures.append(auc(tests.label, model.predict_proba(tested)[:, 1]))
    return float(np.mean(figures))


def measure(rows: Rows, learned: Rows, tests: Rows, sizes: Sequence[int]) -> Figures:
    """Return all figures of ``rows``."""
    to_fold = fidelity.fidelity(tests, rows, sizes)
    to_learned = fidelity.fidelity(learned, rows, sizes)
    return {
        "tstr_auc": fidelity.tstr_auc(rows, tests, sizes),
        "tstr_boosted_auc": boosted_auc(rows, tests, sizes),
        "column_fidelity_to_learned": to_learned[0],
        "pair_fidelity_to_learned": to_learned[1],
        "column_fidelity_to_fold": to_fold[0],
        "pair_fidelity_to_fold": to_fold[1],
        "closeness_share": fidelity.closeness_share(rows, learned, tests, sizes),
        "copy_rate": fidelity.copy_rate(rows, learned),
        "detection_auc": disclosure.detection_auc(rows, tests, sizes),
        "membership_auc": disclosure.membership_auc(rows, learned, tests, sizes),
        "rare_coverage": disclosure.rare_coverage(rows, learned, sizes),
    }


def run_fold(dataset: TokenDataset, presets: Sequence[str], seed: int) -> dict[str, Figures]:
    """Return the figures of every source of rows on one fold."""
    vocabulary = dataset.build_vocabulary()
    rows = Rows(dataset.indices(vocabulary), dataset.label)
    learned = rows.take(dataset.split == TRAIN)
    tests = rows.take(dataset.split == TEST)
    sizes, prior = vocabulary.sizes, float(learned.label.mean())
    result = {
        "real rows": measure(learned, learned, tests, sizes),
        "independent columns": measure(
            independent_columns(learned, DRAWN_ROWS, seed), learned, tests, sizes
        ),
    }
    for name in presets:
        begun, cpu = time.perf_counter(), time.process_time()
        fitted = generator.fit_generator(learned, sizes, generator_preset(name), seed)
        seconds = {
            "train_seconds": time.perf_counter() - begun,
            "train_cpu_seconds": time.process_time() - cpu,
        }
        drawn = generator.draw(fitted.sampler, DRAWN_ROWS, prior, seed + 1)
        result[name] = {**measure(drawn, learned, tests, sizes), **seconds}
    return result


def summarise(results: Sequence[Mapping[str, Figures]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return source -> figure -> mean and standard deviation over folds."""
    return {
        source: {
            name: {
                "mean": float(np.mean([fold[source][name] for fold in results])),
                "sd": float(np.std([fold[source][name] for fold in results])),
            }
            for name in results[0][source]
        }
        for source in results[0]
    }


def markdown(summary: Mapping[str, Mapping[str, Mapping[str, float]]], title: str) -> str:
    """Return the summary as a table, one row per figure."""
    sources = list(summary)
    names = list(dict.fromkeys(name for source in sources for name in summary[source]))
    lines = [f"# {title}", "", f"| figure | {' | '.join(sources)} |"]
    lines.append("| --- |" + " ---: |" * len(sources))
    for name in names:
        cells = []
        for source in sources:
            figure = summary[source].get(name)
            cells.append(f"{figure['mean']:.3f} ± {figure['sd']:.3f}" if figure else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="raw table; see `cipherscore data --help`")
    parser.add_argument("--schema", default="german-credit", help="name or TOML file")
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    parser.add_argument("--preset", action="append", choices=sorted(GENERATOR_PRESETS))
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    configure(threads=1)
    schema = load_schema(options.schema)
    source = find_table(schema, options.data)
    raw = RawData.read(schema, source)
    keyset = Keyset.create()
    results = []
    for fold in folds(raw, 1, options.folds, options.seed):
        dataset = in_plain(*token_dataset(raw, fold, keyset))  # the order of levels is no key's
        results.append(run_fold(dataset, options.preset or ["default"], options.seed))
        print(f"fold {fold.number + 1} of {options.folds} done", file=sys.stderr)
    summary = summarise(results)
    title = f"Synthetic rows of {raw.schema.name}, {options.folds} folds, seed {options.seed}"
    text = markdown(summary, title)
    content = {
        "schema": raw.schema.name,
        "embedded_sample": source.synthetic,
        "seed": options.seed,
        "summary": summary,
        "folds": results,
    }
    write_json(options.out / "synthetic_quality.json", content)
    write_bytes(options.out / "synthetic_quality.md", text.encode())
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
