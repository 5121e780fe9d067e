"""A Bayesian network on levels: structure by hill climbing on BIC, tables with a BDeu prior."""

from __future__ import annotations

import pandas as pd
from pgmpy.causal_discovery import HillClimbSearch
from pgmpy.models import DiscreteBayesianNetwork
from pgmpy.parameter_estimator import DiscreteBayesianEstimator

from benchmarks.synthetic.peers import common


def make(table: pd.DataFrame, task: common.Task) -> pd.DataFrame:
    """Learn the network, the label being a node as any other, and sample forwards."""
    table = table.astype("category")
    search = HillClimbSearch(scoring_method="bic-d", return_type="dag", show_progress=False)
    network = DiscreteBayesianNetwork()
    network.add_nodes_from(table.columns)
    network.add_edges_from(search.fit(table).causal_graph_.edges())
    network.fit(table, estimator=DiscreteBayesianEstimator(prior_type="BDeu"))
    return network.simulate(task["rows"], seed=task["seed"], show_progress=False)


if __name__ == "__main__":
    common.run(make)
