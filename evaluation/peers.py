"""Other generators, measured by ``python -m benchmarks.synthetic``, beside ours measured here.

The peers' figures come with the package: none of them is a dependency, and some take long.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluation.synthetic import INDEPENDENT, OURS, REAL

Content = dict[str, Any]

FILE = Path(__file__).with_name("peer_figures.json")

IDEAL = {
    "tstr_auc": 1.0, "tstr_boosted_auc": 1.0, "column_fidelity": 1.0, "pair_fidelity": 1.0,
    "sdmetrics_columns": 1.0, "sdmetrics_pairs": 1.0, "detection_auc": 0.5, "rare_coverage": 1.0,
    "validity": 1.0, "closeness_share": 0.5, "copy_rate": 0.0, "membership_auc": 0.5,
    "train_seconds": 0.0, "peak_mb": 0.0,
}  # fmt: skip
"""The best value of each figure; the nearer the better."""


def peer_figures(schema: str, path: Path = FILE) -> Content | None:
    """Return the kept figures of the peers on the table of ``schema``; None without any.

    The two other sources that the benchmark measures, too, are left out: they are measured here.
    ``ours`` are its figures of our generator, for what only it measures (SDMetrics, memory).
    """
    if not path.is_file():
        return None
    found: Content | None = json.loads(path.read_text("utf-8")).get(schema)
    if found is None:
        return None
    own = (REAL, INDEPENDENT, OURS)
    sources = {name: one for name, one in found["sources"].items() if name not in own}
    ours = found["sources"].get(OURS, {}).get("figures", {})
    return {**found, "sources": sources, "ours": ours} if sources else None


def beside_peers(synthetic: Content, peers: Content) -> Content:
    """Return the peers as rows like ours, and in words where each is better and worse.

    Args:
        synthetic: What `evaluation.synthetic.synthetic_rows` returned.
        peers: What `peer_figures` returned.
    """
    here = next(row for row in synthetic["sources"] if row["name"] == OURS)
    elsewhere = [name for name in peers["ours"] if name not in here["figures"]]
    ours = {**{name: peers["ours"][name] for name in elsewhere}, **here["figures"]}
    rows = [{"name": name, **one} for name, one in peers["sources"].items()]
    measured = {name for row in rows for name in row["figures"]} | ours.keys()
    return {
        "made": peers["made"],
        "folds": peers["folds"],
        "seed": peers["seed"],
        "rows_learned": peers["rows_learned"],
        "figures": [name for name in IDEAL if name in measured],
        "ours": {**here, "figures": ours},
        "elsewhere": elsewhere,
        "sources": rows,
        "standing": [{"title": row["title"], **standing(ours, row["figures"])} for row in rows],
    }


def standing(ours: Mapping[str, Content], peer: Mapping[str, Content]) -> dict[str, list[Content]]:
    """Return the figures in which a peer is ``better``, ``worse`` and ``near``.

    Near is a difference, in distance from `IDEAL`, of at most the larger standard deviation of
    folds: folds are not paired here, so this is no test.
    """
    found: dict[str, list[Content]] = {"better": [], "worse": [], "near": []}
    for name, ideal in IDEAL.items():
        if name not in ours or name not in peer:
            continue
        own, other = ours[name], peer[name]
        lead = abs(own["mean"] - ideal) - abs(other["mean"] - ideal)
        near = abs(lead) <= max(own["sd"], other["sd"])
        kind = "near" if near else "better" if lead > 0 else "worse"
        found[kind].append({"figure": name, "peer": other["mean"], "ours": own["mean"]})
    return found
