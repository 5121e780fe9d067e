"""The methods compared: ours on tokens and in plain, the capstone's two, and three peers.

All learn from a fold's training rows and score its test rows.  The peers and the Keras network see
raw values, which a host never has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from cipherscore.client.keys import Keyset
from cipherscore.dataset import TokenDataset
from evaluation import keras_baseline
from evaluation.folds import Fold, RawData, in_plain, token_dataset
from training.classifier import fit_classifier, predict
from training.evaluation import cost_threshold
from training.presets import CAPSTONE, ClassifierPreset

MAIN = "tokens"
"""Name of the method that is evaluated in depth; the others are compared with it."""

MOST_CATEGORIES = 100
"""Columns of one field for methods that need a column a category; rarer ones share the last."""


@dataclass(frozen=True)
class Scores:
    """Probabilities of bad credit of a fold's test rows (float64), and what else came of it.

    ``threshold`` is the one of least cost on rows held out inside the training rows; only our own
    networks have it.  ``train`` are probabilities of the training rows, where asked for.
    """

    test: NDArray[np.float64]
    threshold: float | None = None
    train: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Contestant:
    """One method.

    Args:
        name: Key in results.
        title: What the report calls it.
        sees: What it learns from: ``tokens``, ``plain levels`` or ``raw values``.
        scores: Learns from a fold and scores it; the number is the seed.
        recipe: What its results depend on.
        capstone_bins: Whether it uses the capstone's own schema where there is one.
        most_repeats: Repeats of the folds at most; None for all.
        most_folds: Folds at most, counted over all repeats; None for all.
        most_rows: Training rows at most, drawn in the classes' proportion; None for all.
    """

    name: str
    title: str
    sees: str
    scores: Callable[[RawData, Fold, int], Scores]
    recipe: Mapping[str, Any] = field(default_factory=dict)
    capstone_bins: bool = False
    most_repeats: int | None = None
    most_folds: int | None = None
    most_rows: int | None = None


def network(
    preset: ClassifierPreset, keyset: Keyset, *, plain: bool = False, with_train: bool = False
) -> Callable[[RawData, Fold, int], Scores]:
    """Score with a network of ours, on tokens or on plain levels."""

    def scores(raw: RawData, fold: Fold, seed: int) -> Scores:
        dataset, codec = token_dataset(raw, fold, keyset)
        if plain:
            dataset = in_plain(dataset, codec)
        return network_scores(raw, fold, dataset, preset, seed, with_train=with_train)

    return scores


def network_scores(
    raw: RawData,
    fold: Fold,
    dataset: TokenDataset,
    preset: ClassifierPreset,
    seed: int,
    *,
    learn_only: TokenDataset | None = None,
    with_train: bool = False,
) -> Scores:
    """Train a network of ours on a fold's encrypted table and score its test rows.

    ``learn_only`` are further rows to learn from, see `training.classifier.fit_classifier`.
    """
    vocabulary = dataset.build_vocabulary()
    fitted = fit_classifier(dataset, vocabulary, preset, seed=seed, learn_only=learn_only)
    target = raw.schema.target
    threshold = cost_threshold(
        fitted.validation_labels, fitted.validation_probabilities,
        target.cost_false_good, target.cost_false_bad,
    )  # fmt: skip
    indices = dataset.indices(vocabulary)
    return Scores(
        predict(fitted.network, indices[fold.test]),
        threshold,
        predict(fitted.network, indices[fold.train]) if with_train else None,
    )


def peer(
    make: Callable[[int], Any], numeric: Any, categorical: Any
) -> Callable[[RawData, Fold, int], Scores]:
    """Score with scikit-learn on raw values; numeric columns come first, then categories."""

    def scores(raw: RawData, fold: Fold, seed: int) -> Scores:
        cells, numbers = _cells(raw)
        codes = cells.shape[1] - numbers
        prepare = make_column_transformer(
            (numeric, list(range(numbers))),
            (categorical, list(range(numbers, numbers + codes))),
            sparse_threshold=0,
        )
        model = make_pipeline(prepare, make(seed))
        model.fit(cells[fold.train], raw.label[fold.train])
        return Scores(np.asarray(model.predict_proba(cells[fold.test])[:, 1], np.float64))

    return scores


def keras_scores(raw: RawData, fold: Fold, seed: int) -> Scores:
    """Score with the capstone's Keras network on plain values."""
    cells, numbers = _cells(raw)
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    fill = SimpleImputer(strategy="median", keep_empty_features=True)
    prepare = make_pipeline(
        make_column_transformer(
            (fill, list(range(numbers))), (codes, list(range(numbers, cells.shape[1])))
        ),
        StandardScaler(),
    )
    learn = np.asarray(prepare.fit_transform(cells[fold.train]), np.float32)
    test = np.asarray(prepare.transform(cells[fold.test]), np.float32)
    return Scores(keras_baseline.train_and_score(learn, raw.label[fold.train], test, seed))


def _cells(raw: RawData) -> tuple[np.ndarray, int]:
    """Return all raw values as objects [rows, fields], numeric fields first, and their number."""
    numeric = [f.name for f in raw.schema.inputs if f.kind == "numeric"]
    others = [f.name for f in raw.schema.inputs if f.kind != "numeric"]
    columns = [raw.numbers(name).astype(object) for name in numeric]
    columns += [raw.texts(name).astype(object) for name in others]
    return np.stack(columns, axis=1), len(numeric)


def _logistic(_: int) -> LogisticRegression:
    return LogisticRegression(max_iter=1000)


def _boosting(seed: int) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(
        learning_rate=0.05, max_iter=100, max_leaf_nodes=8, random_state=seed
    )


def _forest(seed: int) -> RandomForestClassifier:
    return RandomForestClassifier(500, min_samples_leaf=2, random_state=seed)


def contestants(preset: ClassifierPreset, *, rows: int, slow_folds: int | None) -> list[Contestant]:
    """Return all methods in the order of the report, the one evaluated in depth first.

    Slow methods run on one repeat and at most ``slow_folds`` folds; on large tables some learn from
    fewer rows (see `most_rows`), and the plain twin of ours runs on two folds.
    """
    keyset = Keyset.create()
    one_hot = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=MOST_CATEGORIES)
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    scaled = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        StandardScaler(),
    )
    large = rows > 20_000
    slow: dict[str, Any] = {"most_repeats": 1, "most_folds": slow_folds}
    found = [
        Contestant(MAIN, f"ours, {preset.name} preset", "tokens",
                   network(preset, keyset, with_train=True), asdict(preset)),
        Contestant("plain", f"ours, {preset.name} preset", "plain levels",
                   network(preset, keyset, plain=True), asdict(preset),
                   most_folds=2 if large else None),
        Contestant("logistic", "logistic regression", "raw values",
                   peer(_logistic, scaled, one_hot), {"C": 1.0}),
        Contestant("forest", "random forest", "raw values",
                   peer(_forest, "passthrough", one_hot),
                   {"n_estimators": 500, "min_samples_leaf": 2},
                   most_rows=30_000),
        Contestant("boosting", "histogram gradient boosting", "raw values",
                   peer(_boosting, "passthrough", ordinal),
                   {"learning_rate": 0.05, "max_iter": 100, "max_leaf_nodes": 8}),
        Contestant("keras", "capstone's plain Keras network", "raw values",
                   keras_scores, keras_baseline.RECIPE, most_rows=10_000, **slow),
    ]  # fmt: skip
    if preset.name != CAPSTONE.name:
        found.append(
            Contestant("capstone", "capstone's token classifier", "tokens",
                       network(CAPSTONE, keyset), asdict(CAPSTONE), capstone_bins=True,
                       most_rows=2_000, **slow)
        )  # fmt: skip
    return found
