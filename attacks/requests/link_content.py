"""Linkage of requests as the report has it: means and intervals over cuts."""

from __future__ import annotations

from typing import Any

from attacks.recovery import estimates
from attacks.requests.link_study import (
    ATTACKERS,
    CHANGED_AMONG_DECOYS,
    DECOY_RATIOS,
    FIGURES,
    MOST_SHARES,
    NAMED,
    RETURN_CHANGED,
    SCORES_CHANGED,
    SENT,
)
from evaluation.store import Entry

Content = dict[str, Any]


def link_content(entries: list[Entry], seed: int) -> Content:
    """Return figures of `attacks.requests.link_study.linked` over cuts, by smoothing strength."""
    counts = sorted({int(key.rpartition("/")[2]) for key in entries[0]["figures"]})
    over = {part: _over(entries, part, seed) for part in ("figures", "rank_1", "by_score", "named")}
    by_score = [
        {
            "name": name,
            "title": title,
            "changed": [
                {"fields": count, "rank_1": over["by_score"][f"{name}/{count}/rank_1"]}
                for count in SCORES_CHANGED
            ],
        }
        for name, (title, _) in SENT.items()
    ]
    requests = entries[0]["requests"]
    return {
        "requests": requests,
        "chance": 1 / requests,
        "changed_among_decoys": min(CHANGED_AMONG_DECOYS, counts[-1]),
        "strengths": [_strength(most_share, counts, over) for most_share in MOST_SHARES],
        "by_score": by_score,
    }


def strongest(strength: Content) -> Content:
    """Return the figures of the attacker that finds most unchanged requests at a strength."""
    found: Content = next(
        one for one in strength["attackers"] if one["name"] == strength["strongest"]
    )
    return found


def _strength(most_share: float, counts: list[int], over: dict[str, Content]) -> Content:
    """Return the figures of one strength of smoothing."""
    figures, rank_1, named = over["figures"], over["rank_1"], over["named"]
    attackers = [
        {
            "name": name,
            "title": title,
            "changed": [
                {"fields": count}
                | {figure: figures[f"{most_share}/{name}/{count}/{figure}"] for figure in FIGURES}
                for count in counts
            ],
        }
        for name, title in ATTACKERS.items()
        if f"{most_share}/{name}/0/auc" in figures
    ]
    # Whoever knows what stands for one value is a ceiling, not an attack.
    names = [one["name"] for one in attackers if one["name"] != "values"]
    return {
        "most_share": most_share,
        "attackers": attackers,
        "strongest": max(
            names, key=lambda name: float(figures[f"{most_share}/{name}/0/rank_1"]["mean"])
        ),
        "decoys": [
            {"ratio": r, "rank_1": rank_1[f"{most_share}/decoys/{r}"]} for r in DECOY_RATIOS
        ],
        "half_return": [
            {"fields": c, "rank_1": rank_1[f"{most_share}/return/{c}"]} for c in RETURN_CHANGED
        ],
        "named": [
            {
                "fields": count,
                **{name: named[f"{most_share}/{count}/{name}"] for name in NAMED},
            }
            for count in RETURN_CHANGED
        ],
    }


def _over(entries: list[Entry], part: str, seed: int) -> Content:
    """Return mean and interval over cuts of each figure of a part; nested names are joined."""
    values: dict[str, list[float]] = {}
    for entry in entries:
        for key, found in entry[part].items():
            nested = found if isinstance(found, dict) else {"": found}
            for name, value in nested.items():
                values.setdefault(f"{key}/{name}" if name else key, []).append(value)
    return estimates(values, seed)
