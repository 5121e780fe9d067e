"""Rows made to balance the classes: by SMOTE on the owner's raw values, and by our generator.

Both learn from a fold's training rows alone and make rows of the rarer class only, bad credit as a
rule, until there are as many as of the other.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from imblearn.over_sampling import SMOTE, SMOTEN, SMOTENC
from sklearn.preprocessing import StandardScaler

from cipherscore.client.tables import field_column, level_indices
from cipherscore.dataset import TRAIN, TokenColumn, TokenDataset
from cipherscore.schema import Schema
from evaluation.folds import Fold, RawData
from training import generator
from training.fidelity import Rows
from training.generator_figures import draw
from training.generator_presets import GeneratorPreset
from training.tensorflow_setup import configure

NEIGHBOURS = 5


def rarer(label: np.ndarray) -> tuple[int, int]:
    """Return the rarer class, 1 for bad credit, and how many rows of it balance the classes."""
    good, bad = np.bincount(label, minlength=2).tolist()
    return int(bad <= good), abs(good - bad)


def smote_rows(raw: RawData, fold: Fold, dataset: TokenDataset, seed: int) -> TokenDataset:
    """Make rows by SMOTE-NC (Chawla et al. 2002, section 6.1) and bin them as the fold is binned.

    Numbers are scaled to variance 1 before neighbours are looked for, and an absent one counts as
    the median.  Without a numeric field it is SMOTE-N, without a categorical one SMOTE.

    Args:
        raw: The raw table.
        fold: Whose training rows are learned from.
        dataset: The fold's table with levels in the place of tokens.
        seed: Of the neighbours and of the points between them.
    """
    schema = raw.fitted(fold.train)
    raw = raw.as_fields(schema)
    numeric = np.array([field.kind == "numeric" for field in schema.fields])
    label = raw.label[fold.train]
    cells = np.stack([_cells(raw, schema, fold, field.name) for field in schema.fields], axis=1)
    scaler = StandardScaler()
    if numeric.any():
        cells[:, numeric] = scaler.fit_transform(cells[:, numeric])
    made = _sampler(numeric, label, seed).fit_resample(cells, label)[0][len(cells) :]
    if numeric.any():
        made[:, numeric] = scaler.inverse_transform(made[:, numeric])
    columns = {}
    for field, values in zip(schema.fields, made.T, strict=True):
        edges = np.asarray(field.inner_edges) if field.kind == "numeric" else None
        levels = values if edges is None else np.searchsorted(edges, values, side="right")
        dictionary = tuple(level.encode() for level in field.levels)
        columns[field.name] = TokenColumn(dictionary, levels.astype(np.int32))
    return _of_class(dataset, columns, rarer(label)[0], len(made))


def generated_rows(
    fold: Fold, dataset: TokenDataset, preset: GeneratorPreset, seed: int
) -> TokenDataset:
    """Make rows by our generator, trained on the fold's training rows of ``dataset``."""
    configure(1)
    vocabulary = dataset.build_vocabulary()
    learned = Rows(dataset.indices(vocabulary), dataset.label).take(fold.train)
    fitted = generator.fit_generator(learned, vocabulary.sizes, preset, seed)
    wanted, count = rarer(learned.label)
    drawn = draw(fitted.sampler, count, float(wanted), seed + 1)
    columns = {
        name: TokenColumn(tokens, drawn.indices[:, place])
        for place, (name, tokens) in enumerate(vocabulary.tokens.items())
    }
    return _of_class(dataset, columns, wanted, count)


def _cells(raw: RawData, schema: Schema, fold: Fold, name: str) -> np.ndarray:
    """Return float64 [training rows]: the numbers of a field, or the positions of its levels."""
    field = schema.by_name[name]
    if field.kind != "numeric":
        return level_indices(field_column(raw.table, field), field)[fold.train].astype(np.float64)
    values = raw.numbers(name)[fold.train]
    absent = np.isnan(values)
    return np.where(absent, 0.0 if absent.all() else np.nanmedian(values), values)


def _sampler(numeric: np.ndarray, label: np.ndarray, seed: int) -> SMOTE | SMOTEN | SMOTENC:
    neighbours = min(NEIGHBOURS, int(np.bincount(label).min()) - 1)
    settings = {"sampling_strategy": "minority", "k_neighbors": neighbours, "random_state": seed}
    if numeric.all():
        return SMOTE(**settings)
    if not numeric.any():
        return SMOTEN(**settings)
    return SMOTENC(categorical_features=np.flatnonzero(~numeric).tolist(), **settings)


def _of_class(
    dataset: TokenDataset, columns: dict[str, TokenColumn], value: int, rows: int
) -> TokenDataset:
    label, split = np.full(rows, value, np.int8), np.full(rows, TRAIN, np.int8)
    return replace(dataset, columns=columns, label=label, split=split)
