"""What does differential privacy cost the generator?  Cross-validated, for several epsilons.

    python -m benchmarks.private_generator --data FOLDER --out FOLDER [--epsilon 1 --epsilon 3]

In each fold numeric fields are cut on its training rows, and generators learn from those rows: the
default one, one that learns from exact tables, and a private one for each epsilon, several times,
because its noise is part of the result.  Figures: `training.generator_figures`.
Delta is one in ten times the training rows.  Levels stand for their tokens.

The noise is seeded here, so that the table can be made again.  A training's own never is.

Writes ``private_generator.json`` and ``private_generator.md``.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from cipherscore.client.keys import Keyset
from cipherscore.client.sources import find_table
from cipherscore.dataset import TEST, TRAIN, TokenDataset
from cipherscore.files import write_bytes, write_json
from cipherscore.schema_file import load_schema
from evaluation.folds import RawData, folds, in_plain, token_dataset
from training.class_tables import class_tables
from training.conditional import TableTrainer
from training.fidelity import Rows, tstr_rows
from training.generator import fit_generator
from training.generator_figures import draw, judge, judge_learning
from training.generator_presets import DEFAULT
from training.generator_weights import Sampler
from training.privacy import PrivacyBudget
from training.private_generator import fit_private_generator
from training.tensorflow_setup import configure

LEAST_DRAWN = 5_000
FIGURES = (
    "tstr_auc", "column_fidelity", "pair_fidelity", "closeness_share", "membership_auc",
    "detection_auc", "copy_rate",
)  # fmt: skip
Figures = dict[str, float]


def measure(rows: Rows, learned: Rows, tests: Rows, sizes: Sequence[int]) -> Figures:
    """Return the figures of ``rows`` that the table shows."""
    found = judge(rows, tests, sizes, len(learned.label)) | judge_learning(
        rows, learned, tests, sizes
    )
    return {name: found[name] for name in FIGURES}


def sources(
    learned: Rows, sizes: Sequence[int], epsilons: Sequence[float], draws: int, seed: int
) -> Iterator[tuple[str, Sampler, float]]:
    """Yield name, generator and share of bad rows of each training on ``learned``."""
    fitted = fit_generator(learned, sizes, DEFAULT, seed)
    yield "default", fitted.sampler, fitted.class_prior
    tables = class_tables(learned.indices, learned.label, sizes)
    trainer = TableTrainer(fitted.preset, sizes, tables, seed)
    trainer.advance(0, fitted.preset.steps)
    yield "no noise", trainer.sampler(), fitted.class_prior
    for epsilon in sorted(epsilons, reverse=True):
        budget = PrivacyBudget.for_rows(epsilon, None, len(learned.label))
        for number in range(draws):
            noise = random.Random(f"{seed} {epsilon} {number}")  # noqa: S311 - see the module's text
            fitted = fit_private_generator(learned, sizes, DEFAULT, seed, budget, source=noise)
            yield f"epsilon {epsilon:g}", fitted.sampler, fitted.class_prior


def run_fold(
    dataset: TokenDataset, epsilons: Sequence[float], draws: int, seed: int
) -> dict[str, list[Figures]]:
    """Return the figures of every training on one fold, by name of the source."""
    vocabulary = dataset.build_vocabulary()
    rows = Rows(dataset.indices(vocabulary), dataset.label)
    learned, tests = rows.take(dataset.split == TRAIN), rows.take(dataset.split == TEST)
    sizes = vocabulary.sizes
    wanted = max(LEAST_DRAWN, tstr_rows(len(learned.label)))
    found = {"real rows": [measure(learned, learned, tests, sizes)]}
    for name, sampler, prior in sources(learned, sizes, epsilons, draws, seed):
        drawn = draw(sampler, wanted, prior, seed + 1)
        found.setdefault(name, []).append(measure(drawn, learned, tests, sizes))
        print(f"  {name}: TSTR {found[name][-1]['tstr_auc']:.3f}", file=sys.stderr, flush=True)
    return found


def summarise(results: Sequence[Mapping[str, list[Figures]]]) -> dict[str, dict[str, list[float]]]:
    """Return source -> figure -> mean and standard deviation over all trainings."""
    summary = {}
    for source in results[0]:
        found = [figures for fold in results for figures in fold[source]]
        columns = {name: [figures[name] for figures in found] for name in FIGURES}
        summary[source] = {k: [float(np.mean(v)), float(np.std(v))] for k, v in columns.items()}
    return summary


def markdown(summary: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> str:
    """Return the summary as a table, one row per source."""
    lines = [f"# {title}", "", f"| rows from | {' | '.join(FIGURES)} |"]
    lines.append("| --- |" + " ---: |" * len(FIGURES))
    for source, figures in summary.items():
        cells = [f"{figures[name][0]:.3f} ± {figures[name][1]:.3f}" for name in FIGURES]
        lines.append(f"| {source} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="raw table; see `cipherscore data --help`")
    parser.add_argument("--schema", default="german-credit", help="name or TOML file")
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    parser.add_argument("--epsilon", action="append", type=float, help="default: 0.5, 1, 3, 10")
    parser.add_argument("--draws", type=int, default=2, help="private trainings of each epsilon")
    parser.add_argument("--folds", type=int, default=5, help="parts the rows are cut in")
    parser.add_argument("--take", type=int, help="folds to compute, the first ones; default: all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    configure(threads=1)
    schema = load_schema(options.schema)
    raw = RawData.read(schema, find_table(schema, options.data))
    keyset = Keyset.create()
    results = []
    for fold in islice(folds(raw, 1, options.folds, options.seed), options.take):
        dataset = in_plain(*token_dataset(raw, fold, keyset))  # the order of levels is no key's
        epsilons = options.epsilon or [0.5, 1.0, 3.0, 10.0]
        results.append(run_fold(dataset, epsilons, options.draws, options.seed))
        print(f"fold {fold.number + 1} of {options.folds} done", file=sys.stderr, flush=True)
    summary = summarise(results)
    title = f"Private synthetic rows of {schema.name}, {len(results)} folds, seed {options.seed}"
    content = {"schema": schema.name, "seed": options.seed, "summary": summary, "folds": results}
    write_json(options.out / "private_generator.json", content)
    write_bytes(options.out / "private_generator.md", markdown(summary, title).encode())
    print(markdown(summary, title))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
