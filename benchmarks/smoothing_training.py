"""What does smoothing cost a classifier, and what do several draws of each row buy back?

    python -m benchmarks.smoothing_training --data TABLE --out FOLDER [--share 0.1 --draws 5]

Cross-validated.  In each fold the rows outside its test part are encrypted as `cipherscore encrypt
--draws N` does it, with bins and homophones fitted on them, and the default preset and a logistic
regression learn from the tokens.  Each test row is then drawn `REQUESTS` times, as a client would
send it.  Beside each share of the schema's ``[smoothing] most_share`` stands the same without
smoothing, in the same run on the same folds.

Figures: AUC with one draw a test row and with the mean log-odds of 4 and 16; how far two draws of
one row are apart, and how many decisions differ, at the threshold tuned in training; expected cost
per applicant; columns; CPU seconds of training.

Writes ``smoothing_training.json`` and ``smoothing_training.md``.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from scipy.sparse import csr_matrix  # type: ignore[import-untyped]
from scipy.special import expit, logit  # type: ignore[import-untyped]
from sklearn.linear_model import LogisticRegression

from cipherscore.client.keys import Keyset
from cipherscore.client.sources import find_table
from cipherscore.dataset import TokenDataset
from cipherscore.files import write_bytes, write_json
from cipherscore.schema_file import load_schema
from cipherscore.smoothing import Smoothing
from cipherscore.vocabulary import Vocabulary
from evaluation.drawn import DrawnFold, drawn_fold
from evaluation.folds import RawData, folds
from evaluation.paired import compare
from training.classifier import fit_classifier, predict
from training.evaluation import auc, cost_threshold, figures
from training.expansion import expand
from training.presets import DEFAULT

REQUESTS = 16
TINY = 1e-7
"""Probabilities are this far from 0 and 1 before they become log-odds."""
FIGURES = (
    "auc", "auc_of_4", "auc_of_16", "distance", "changed", "changed_of_4", "cost", "logistic",
    "columns", "seconds",
)  # fmt: skip
Figures = dict[str, float]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """One line of the report: a share of 1 is no smoothing."""

    share: float
    draws: int

    @property
    def name(self) -> str:
        """How the report calls it."""
        return "none" if self.share == 1 else f"{self.share:g}, {self.draws} draws"


def smoothed(raw: RawData, share: float) -> RawData:
    """Return ``raw`` with all its fields smoothed to ``share``; 1 leaves it without smoothing."""
    smoothing = Smoothing(share) if share < 1 else None
    fields = tuple(replace(field, smoothing=smoothing) for field in raw.schema.fields)
    return replace(raw, schema=replace(raw.schema, fields=fields))


def fixed_keyset(seed: int) -> Keyset:
    """Return a keyset that ``seed`` decides: with another key rows get other homophones."""
    key_id = f"{seed:08x}"
    return Keyset(key_id, {key_id: hashlib.sha256(b"benchmark %d" % seed).digest()})


def averaged(chances: Floats, count: int) -> Floats:
    """Return float64 [draws / count, rows]: the means of log-odds, as probabilities.

    Args:
        chances: float64 [draws, rows].
        count: Draws that are averaged.
    """
    odds = logit(np.clip(chances, TINY, 1 - TINY))
    return np.asarray(expit(odds.reshape(-1, count, chances.shape[1]).mean(axis=1)))


def judge(
    chances: Floats, label: np.ndarray, threshold: float, costs: tuple[float, float]
) -> Figures:
    """Return the figures of the test rows' answers.

    Args:
        chances: float64 [draws, rows], probabilities of bad credit; one draw where nothing is
            smoothed, else `REQUESTS`.
        label: int8 [rows].
        threshold: Lowest probability that is decided "bad".
        costs: Of a bad credit given and of a good one refused.
    """
    found = {"auc": _mean_auc(label, chances)}
    each = [figures(label, row, threshold, *costs)["expected_cost"] for row in chances]
    found["cost"] = float(np.mean(each))
    if len(chances) == 1:
        same = {"distance": 0.0, "changed": 0.0, "changed_of_4": 0.0}
        return found | same | dict.fromkeys(("auc_of_4", "auc_of_16"), found["auc"])
    few = averaged(chances, 4)
    found["auc_of_4"] = _mean_auc(label, few)
    found["auc_of_16"] = _mean_auc(label, averaged(chances, 16))
    found["distance"] = float(np.abs(chances[0::2] - chances[1::2]).mean())
    found["changed"] = _changed(chances, threshold)
    found["changed_of_4"] = _changed(few, threshold)
    return found


def measure(fold: DrawnFold, costs: tuple[float, float], seed: int) -> Figures:
    """Train on a fold and return what the report shows."""
    dataset, label = fold.dataset, fold.requests[0].label
    vocabulary = dataset.build_vocabulary()
    begun = time.process_time()
    fitted = fit_classifier(dataset, vocabulary, DEFAULT, seed=seed)
    seconds = time.process_time() - begun
    threshold = cost_threshold(fitted.validation_labels, fitted.validation_probabilities, *costs)
    asked = [request.indices(vocabulary) for request in fold.requests]
    chances = np.stack([predict(fitted.network, indices) for indices in asked])
    found = judge(chances, label, threshold, costs)
    found["logistic"] = logistic(fold)
    return found | {"seconds": seconds, "columns": float(sum(vocabulary.sizes))}


def _mean_auc(label: np.ndarray, chances: Floats) -> float:
    return float(np.mean([auc(label, row) for row in chances]))


def _changed(chances: Floats, threshold: float) -> float:
    return float(((chances[0::2] >= threshold) != (chances[1::2] >= threshold)).mean())


def logistic(fold: DrawnFold) -> float:
    """Return the AUC, one draw a test row, of a logistic regression on tokens; all rows weigh 1."""
    dataset, label = fold.dataset, fold.requests[0].label
    vocabulary = dataset.build_vocabulary()
    model = LogisticRegression(max_iter=1000)
    model.fit(_multi_hot(dataset, vocabulary), dataset.label)
    found = [model.decision_function(_multi_hot(one, vocabulary)) for one in fold.requests]
    return _mean_auc(label, np.stack(found))


def _multi_hot(dataset: TokenDataset, vocabulary: Vocabulary) -> csr_matrix:
    indices, sizes = dataset.indices(vocabulary), vocabulary.sizes
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rows, fields = np.nonzero(indices >= 0)
    columns = (indices + starts)[rows, fields]
    return csr_matrix((np.ones(len(rows)), (rows, columns)), (len(indices), sum(sizes)))


def run_case(
    raw: RawData, case: Case, division: tuple[int, int], take: int | None, seed: int
) -> Iterator[Figures]:
    """Yield the figures of each fold; ``division`` is repeats and folds."""
    keyset, target = fixed_keyset(seed), raw.schema.target
    costs = (target.cost_false_good, target.cost_false_bad)
    table = smoothed(raw, case.share)
    for fold in islice(folds(table, *division, seed), take):
        requests = 1 if case.share == 1 else REQUESTS
        drawn = drawn_fold(table, fold, keyset, draws=case.draws, requests=requests)
        yield measure(drawn, costs, fold.training_seed(seed))


def run_handed_over(
    raw: RawData, share: float, noises: Sequence[float], division: tuple[int, int],
    take: int | None, seed: int,
) -> Iterator[dict[str, Figures]]:  # fmt: skip
    """Yield each fold's figures of networks that learned from levels and take homophones.

    They are named by the noise of their weights, see `training.expansion`.
    """
    keyset, target = fixed_keyset(seed), raw.schema.target
    costs = (target.cost_false_good, target.cost_false_bad)
    for fold in islice(folds(raw, *division, seed), take):
        levels = drawn_fold(smoothed(raw, 1), fold, keyset, draws=1, requests=1)
        drawn = drawn_fold(smoothed(raw, share), fold, keyset, draws=1, requests=REQUESTS)
        vocabulary = levels.dataset.build_vocabulary()
        begun = time.process_time()
        own = fold.training_seed(seed)
        fitted = fit_classifier(levels.dataset, vocabulary, DEFAULT, seed=own)
        seconds = time.process_time() - begun
        chances, labels = fitted.validation_probabilities, fitted.validation_labels
        threshold = cost_threshold(labels, chances, *costs)
        homophones = {
            name: {token: drawn.codec.tokens[name][level] for token, level in known.items()}
            for name, known in levels.codec.levels.items()
        }
        found = {}
        for noise in noises:
            network, grown = expand(fitted.network, vocabulary, homophones, noise=noise, seed=own)
            answers = [predict(network, one.indices(grown)) for one in drawn.requests]
            figured = judge(np.stack(answers), drawn.requests[0].label, threshold, costs)
            figured |= {"logistic": math.nan, "columns": grown.width, "seconds": seconds}
            found[f"{share:g}, handed over, noise {noise:g}"] = figured
        yield found


def summarise(results: Mapping[str, Sequence[Figures]], parts: int) -> dict[str, dict[str, Any]]:
    """Return per case the mean of each figure over folds, and its AUC's distance to none's."""
    summary: dict[str, dict[str, Any]] = {}
    for name, found in results.items():
        means = {key: float(np.mean([one[key] for one in found])) for key in FIGURES}
        pairs = [[one["auc"] for one in which] for which in (found, results["none"])]
        difference = compare(*pairs, 1 / (parts - 1)).estimate
        interval = [difference.mean, difference.low, difference.high]
        summary[name] = {**means, "difference": interval}
    return summary


def markdown(summary: Mapping[str, Mapping[str, Any]], title: str) -> str:
    """Return the summary as a table."""
    lines = [f"# {title}", "", f"| most_share | {' | '.join(FIGURES)} | to none |"]
    lines.append("| --- |" + " ---: |" * (len(FIGURES) + 1))
    for name, found in summary.items():
        cells = [f"{found[key]:.{0 if key == 'columns' else 4}f}" for key in FIGURES]
        mean, low, high = found["difference"]
        lines.append(f"| {name} | {' | '.join(cells)} | {mean:+.4f} ({low:+.4f} to {high:+.4f}) |")
    return "\n".join(lines) + "\n"


def main(
    out: Annotated[Path, typer.Option(help="Folder of the report.")],
    data: Annotated[Path | None, typer.Option(help="Raw table, see `cipherscore data`.")] = None,
    schema: Annotated[str, typer.Option(help="Name or TOML file.")] = "german-credit",
    share: Annotated[list[float] | None, typer.Option(help="most_share; 0.2, 0.1, 0.05.")] = None,
    draws: Annotated[list[int] | None, typer.Option(help="1, 5, 20 without it; 0: none.")] = None,
    repeats: Annotated[int, typer.Option(help="Times the rows are divided.")] = 1,
    parts: Annotated[int, typer.Option(help="Parts of each division.")] = 10,
    take: Annotated[int | None, typer.Option(help="Folds to compute; default: all.")] = None,
    noise: Annotated[
        list[float] | None,
        typer.Option(help="Also networks that learned from levels, with weights of this noise."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same folds and weights.")] = 0,
) -> None:
    """Run the benchmark; see the module's text."""
    torch.set_num_threads(1)
    described = load_schema(schema)
    raw = RawData.read(described, find_table(described, data))
    shares, division = share or [0.2, 0.1, 0.05], (repeats, parts)
    cases = [Case(1.0, 1)]
    cases += [Case(one, count) for one in shares for count in draws or [1, 5, 20] if count]
    results: dict[str, list[Figures]] = {}
    for case in cases:  # the report is written anew after each, so that a long run can be read
        results[case.name] = list(run_case(raw, case, division, take, seed))
        _report(out, described.name, results, parts, seed)
    for one in shares if noise else ():
        for found in run_handed_over(raw, one, noise or [], division, take, seed):
            for name, figured in found.items():
                results.setdefault(name, []).append(figured)
        _report(out, described.name, results, parts, seed)
    print(_report(out, described.name, results, parts, seed))


def _report(
    out: Path, schema: str, results: Mapping[str, Sequence[Figures]], parts: int, seed: int
) -> str:
    summary = summarise(results, parts)
    title = f"Training on homophones: {schema}, {len(results['none'])} folds, seed {seed}"
    content = {"schema": schema, "seed": seed, "summary": summary, "folds": results}
    write_json(out / "smoothing_training.json", content)
    text = markdown(summary, title)
    write_bytes(out / "smoothing_training.md", text.encode())
    return text


if __name__ == "__main__":
    typer.run(main)
