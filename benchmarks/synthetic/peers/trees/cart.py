"""Sequential CART, written here on scikit-learn.

It is what the R package synthpop does by default (Nowok, Raab and Dibben, Journal of Statistical
Software 74, 2016).  There is no maintained Python library of it: python-synthpop 0.1.2 draws every
column given the others of a *real* row, which is another method.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from benchmarks.synthetic.peers import common

LEAST_LEAF = 5
"""Rows of a leaf, synthpop's ``minbucket``."""


def cart(table: pd.DataFrame, task: common.Task) -> pd.DataFrame:
    """Return rows of sequential CART, the label first.

    The first column is drawn by itself; each other from the leaf, of a tree on the columns before
    it, into which the synthetic row falls.
    """
    random = np.random.default_rng(task["seed"])
    names = [task["label"], *table.columns.drop(task["label"])]
    made = pd.DataFrame({names[0]: random.choice(table[names[0]], task["rows"])})
    for position, name in enumerate(names[1:], 1):
        real, synthetic = (
            _inputs(table, names[:position], task),
            _inputs(made, names[:position], task),
        )
        synthetic = synthetic.reindex(columns=real.columns, fill_value=0.0)
        kind = DecisionTreeRegressor if name in task["numeric"] else DecisionTreeClassifier
        target = table[name]
        present = target.notna().to_numpy()
        tree = kind(min_samples_leaf=LEAST_LEAF, random_state=task["seed"])
        tree.fit(real[present], target[present])
        made[name] = _from_leaves(
            tree.apply(real[present]), target[present].to_numpy(), tree.apply(synthetic), random
        )
        if not present.all():
            made.loc[random.random(len(made)) >= present.mean(), name] = np.nan
    return made


def _inputs(table: pd.DataFrame, names: list[str], task: common.Task) -> pd.DataFrame:
    """Return the columns as numbers, texts one-hot; trees take absent numbers as they are."""
    texts = [name for name in names if name not in task["numeric"]]
    return pd.get_dummies(table[names], columns=texts, dtype=float)


def _from_leaves(
    leaves: np.ndarray, values: np.ndarray, wanted: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Return for each wanted leaf one of its values, drawn evenly."""
    order = np.argsort(leaves, kind="stable")
    known, starts, counts = np.unique(leaves[order], return_index=True, return_counts=True)
    place = np.searchsorted(known, wanted)
    chosen = starts[place] + random.integers(0, counts[place])
    return values[order[chosen]]
