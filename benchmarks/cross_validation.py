"""Cross-validated AUC of the classifier against its peers, all on the same folds.

    python -m benchmarks.cross_validation --data FOLDER --out FOLDER

Compared are the default preset on tokens and on plain levels (encryption must cost nothing), the
capstone preset on its own bins, and scikit-learn's logistic regression, histogram gradient boosting
and random forest on the *raw* values, which the host never has.  Every fold is written at once;
a second call goes on where the first stopped.  Results of another recipe are computed again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from benchmarks.folds import Fold, RawData, folds, token_datasets
from cipherscore.client.keys import Keyset
from cipherscore.dataset import TEST
from cipherscore.files import write_bytes, write_json
from cipherscore.schema_file import load_schema
from training.classifier import fit_classifier, predict
from training.evaluation import auc
from training.presets import CAPSTONE, DEFAULT, ClassifierPreset

Scores = Callable[[RawData, Fold], np.ndarray]
"""Scores of a fold's test rows."""

ORDER = ("default-tokens", "default-plain", "capstone", "logistic", "boosting", "forest")
"""Names of the methods in the order of the table."""

FLOOR = 0.785
"""Least mean AUC of the default preset on German Credit."""

MOST_TOKEN_COST = 0.002
"""Largest difference of a fold's AUC between tokens and plain levels."""


@dataclass(frozen=True)
class Contestant:
    """One method: what it is, how it scores, and what its results depend on."""

    name: str
    title: str
    schema: str
    scores: Scores
    identity: Mapping[str, Any]
    slow: bool = False


def network(preset: ClassifierPreset, keyset: Keyset, *, plain: bool) -> Scores:
    """Score with a network of ours, on tokens or on plain levels."""

    def scores(raw: RawData, fold: Fold) -> np.ndarray:
        dataset = token_datasets(raw, fold, keyset)[plain]
        vocabulary = dataset.build_vocabulary()
        fitted = fit_classifier(dataset, vocabulary, preset, seed=_seed(fold))
        return predict(fitted.network, dataset.indices(vocabulary)[dataset.split == TEST])

    return scores


def peer(make: Callable[[int], ClassifierMixin], numeric: Any, categorical: Any) -> Scores:
    """Score with scikit-learn on raw values; numeric columns come first, then categories."""

    def scores(raw: RawData, fold: Fold) -> np.ndarray:
        names = [f.name for f in raw.schema.fields if f.kind == "numeric"]
        codes = [f.name for f in raw.schema.fields if f.kind != "numeric"]
        columns = [raw.numbers(name).astype(object) for name in names]
        columns += [raw.texts(name).astype(object) for name in codes]
        cells = np.stack(columns, axis=1)
        prepare = make_column_transformer(
            (numeric, list(range(len(names)))),
            (categorical, list(range(len(names), len(names) + len(codes)))),
            sparse_threshold=0,
        )
        model = make_pipeline(prepare, make(_seed(fold)))
        model.fit(cells[fold.train], raw.label[fold.train])
        return np.asarray(model.predict_proba(cells[fold.test])[:, 1])

    return scores


def contestants(schema: str, capstone_schema: str) -> list[Contestant]:
    """Return all methods in the order of the table."""
    keyset = Keyset.create()
    one_hot = OneHotEncoder(handle_unknown="ignore")
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    default, capstone = asdict(DEFAULT), asdict(CAPSTONE)
    return [
        Contestant("default-tokens", "default preset, tokens", schema,
                   network(DEFAULT, keyset, plain=False), default),
        Contestant("default-plain", "default preset, plain levels", schema,
                   network(DEFAULT, keyset, plain=True), default),
        Contestant("capstone", "capstone preset, tokens", capstone_schema,
                   network(CAPSTONE, keyset, plain=False), capstone, slow=True),
        Contestant("logistic", "logistic regression, raw values", schema,
                   peer(lambda _: LogisticRegression(max_iter=1000), StandardScaler(), one_hot),
                   {"C": 1.0}),
        Contestant("boosting", "histogram gradient boosting, raw values", schema,
                   peer(_boosting, "passthrough", ordinal),
                   {"learning_rate": 0.05, "max_iter": 100, "max_leaf_nodes": 8}),
        Contestant("forest", "random forest, raw values", schema,
                   peer(lambda seed: RandomForestClassifier(
                       500, min_samples_leaf=2, random_state=seed), "passthrough", one_hot),
                   {"n_estimators": 500, "min_samples_leaf": 2}),
    ]  # fmt: skip


def _boosting(seed: int) -> ClassifierMixin:
    return HistGradientBoostingClassifier(
        learning_rate=0.05, max_iter=100, max_leaf_nodes=8, random_state=seed
    )


def _seed(fold: Fold) -> int:
    return 100 * fold.repeat + fold.number


class Results:
    """Per method and fold the AUC and the seconds, on disk after every fold."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content: dict[str, Any] = {}
        if path.is_file():
            self.content = json.loads(path.read_text(encoding="utf-8"))

    def of(self, contestant: Contestant, schema_digest: str) -> dict[str, dict[str, float]]:
        """Return the method's folds, empty if its recipe or its schema has changed."""
        identity = json.loads(json.dumps({**contestant.identity, "schema": schema_digest}))
        entry = self.content.get(contestant.name)
        if entry is None or entry["identity"] != identity:
            entry = {"title": contestant.title, "identity": identity, "folds": {}}
            self.content[contestant.name] = entry
        done: dict[str, dict[str, float]] = entry["folds"]
        return done

    def save(self) -> None:
        """Write the file atomically."""
        write_json(self.path, self.content)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Return per method: folds, mean and standard deviation of the AUC, mean seconds."""
        result = {}
        for name in ORDER:
            entry = self.content.get(name, {"folds": {}})
            done = list(entry["folds"].values())
            if done:
                aucs = np.array([fold["auc"] for fold in done])
                result[name] = {
                    "title": entry["title"],
                    "folds": len(done),
                    "mean": float(aucs.mean()),
                    "sd": float(aucs.std(ddof=1)) if len(aucs) > 1 else 0.0,
                    "seconds": float(np.mean([fold["seconds"] for fold in done])),
                }
        return result

    def token_cost(self) -> float | None:
        """Return the largest difference of a fold's AUC between tokens and plain levels."""
        tokens, plain = (
            self.content.get(name, {}).get("folds", {})
            for name in ("default-tokens", "default-plain")
        )
        shared = tokens.keys() & plain.keys()
        return max((abs(tokens[k]["auc"] - plain[k]["auc"]) for k in shared), default=None)


def compete(contestant: Contestant, raw: RawData, results: Results, args: Any) -> None:
    """Score the folds of one method that are still missing."""
    done = results.of(contestant, _schema_digest(raw))
    repeats = min(args.repeats, args.slow_repeats) if contestant.slow else args.repeats
    todo = [f for f in folds(raw.label, repeats, args.folds) if f.name not in done]
    for position, fold in enumerate(todo, 1):
        begun = time.perf_counter()
        scores = contestant.scores(raw, fold)
        seconds = time.perf_counter() - begun
        value = auc(raw.label[fold.test], scores.astype(np.float64))
        done[fold.name] = {"auc": value, "seconds": round(seconds, 3)}
        results.save()
        mean = np.mean([entry["auc"] for entry in done.values()])
        print(
            f"{contestant.name}: fold {fold.name}, {position} of {len(todo)}, AUC {value:.4f}, "
            f"mean so far {mean:.4f}, {seconds:.1f} s",
            file=sys.stderr,
        )


def _schema_digest(raw: RawData) -> str:
    """Return a short text of what the bins depend on; the schema itself is not fitted yet."""
    return repr([(f.name, f.kind, f.edges, f.binning) for f in raw.schema.fields])


def markdown(results: Results, *, synthetic: bool) -> str:
    """Return the comparison as a table."""
    lines = [
        "| method | folds | mean AUC | sd | seconds a fold |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row['title']} | {row['folds']} | {row['mean']:.4f} | {row['sd']:.4f} "
        f"| {row['seconds']:.2f} |"
        for row in results.summary().values()
    ]
    cost = results.token_cost()
    if cost is not None:
        lines += ["", f"Largest difference between tokens and plain levels: {cost:.2g}."]
    if synthetic:
        lines += ["", "Measured on the embedded synthetic sample: these figures mean nothing."]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison; return 1 if a floor is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="table, or folder of data sets")
    parser.add_argument("--out", type=Path, default=Path("var/benchmarks"))
    parser.add_argument("--schema", default="german-credit")
    parser.add_argument("--capstone-schema", default="german-credit-capstone")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--slow-repeats", type=int, default=1, help="repeats of the capstone")
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--only", nargs="*", help="names of methods")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results = Results(args.out / "cross_validation.json")
    synthetic = False
    for contestant in contestants(args.schema, args.capstone_schema):
        if not args.only or contestant.name in args.only:
            raw = RawData.load(load_schema(contestant.schema), args.data)
            synthetic |= raw.synthetic
            compete(contestant, raw, results, args)
    table = markdown(results, synthetic=synthetic)
    write_bytes(args.out / "cross_validation.md", table.encode())
    print(table)
    return 1 if _missed(results) and not synthetic else 0


def _missed(results: Results) -> bool:
    summary, cost = results.summary(), results.token_cost()
    means = [summary[name]["mean"] for name in ("default-tokens", "default-plain")
             if name in summary]  # fmt: skip
    return any(mean < FLOOR for mean in means) or (cost is not None and cost > MOST_TOKEN_COST)


if __name__ == "__main__":
    sys.exit(main())
