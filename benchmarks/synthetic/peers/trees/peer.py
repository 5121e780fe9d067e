"""Trees: adversarial random forests by arfpy, and sequential CART."""

from __future__ import annotations

import pandas as pd
from arfpy import arf

from benchmarks.synthetic.peers import common
from benchmarks.synthetic.peers.trees.cart import cart


def forest(table: pd.DataFrame, task: common.Task) -> pd.DataFrame:
    """Return rows of adversarial random forests (Watson et al., AISTATS 2023), arfpy's defaults.

    arfpy knows no absent numbers: a number that is absent is made their median.
    """
    numeric = task["numeric"]
    table = table.fillna(table[numeric].median())
    model = arf.arf(table, verbose=False, random_state=task["seed"])
    model.forde()
    return model.forge(task["rows"])


if __name__ == "__main__":
    methods = {"forest": forest, "cart": cart}
    common.run(lambda table, task: methods[task["method"]](table, task))
