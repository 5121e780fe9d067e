"""The section on requests: how often a table is cut, and what the command says of it."""

from __future__ import annotations

from typing import Any

from attacks.requests.link_content import strongest
from attacks.requests.study import RequestStudy
from evaluation.folds import RawData
from evaluation.store import Store

Content = dict[str, Any]

CUTS = 20
CUTS_OF_LARGE = 5
LARGE_ROWS = 20_000
"""From here on a table is cut fewer times: a cut trains five models."""
MENTIONED = (0, 3, 5)
"""Fields given anew whose links are printed."""


def request_study(raw: RawData, cuts: int | None, seed: int, store: Store) -> RequestStudy:
    """Return the study of a table, cut as often as its size asks for where ``cuts`` is None."""
    usual = CUTS if raw.rows < LARGE_ROWS else CUTS_OF_LARGE
    return RequestStudy(raw, cuts or usual, seed, store)


def request_facts(content: Content) -> Content:
    """Return what the command prints with ``--json``."""
    longest = content["streams"][-1]
    return {
        "cells_recovered": [
            {"requests": longest["requests"], "rows": sample["rows"], **sample["cells"]}
            for sample in longest["samples"]
        ],
        "other_request_found_first": [
            {"most_share": strength["most_share"], "fields_changed": one["fields"], **one["rank_1"]}
            for strength in content["links"]["strengths"]
            for one in strongest(strength)["changed"]
        ],
    }


def request_lines(content: Content) -> list[str]:
    """Return what the command prints for people."""
    longest = content["streams"][-1]
    heads = "".join(f"{sample['rows']:>9,} rows" for sample in longest["samples"])
    title = f"cells of {content['requests']:,} requests named"
    lines = [f"{title:<52}{heads}"]
    for attack in content["attacks"]:
        means = [sample["cells"][attack["name"]]["mean"] for sample in longest["samples"]]
        lines.append(f"{attack['title']:<52}" + "".join(f"{mean:>13.1%} " for mean in means))
    for strength in content["links"]["strengths"]:
        found = {one["fields"]: one["rank_1"]["mean"] for one in strongest(strength)["changed"]}
        shown = ", ".join(f"{found[count]:.1%} ({count})" for count in MENTIONED if count in found)
        lines.append(
            f"other request found among {content['links']['requests']:,}, most_share "
            f"{strength['most_share']:g} (fields changed): {shown}"
        )
    return lines


def request_warnings(content: Content) -> list[str]:
    """Return what a reader must know before any figure."""
    found = []
    if content["cuts"] < 5:
        found.append("Requests: fewer than five cuts, intervals are too narrow.")
    if content["links"]["requests"] < 100:
        found.append("Requests: fewer than 100 applicants to link, rare wrong links are not seen.")
    return found
