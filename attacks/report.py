"""The audit's report: one dictionary of aggregates, written as JSON and as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import Markup

from attacks.sections import SECTIONS
from evaluation.page import page_environment, write_both

Content = dict[str, Any]

HTML_FILE, JSON_FILE = "audit.html", "audit.json"
SHOWN_PER_FIELD = ("mode", "rank", "assignment", "joint", "annealed", "known_10")
"""Attacks in the table of fields."""


def warnings(content: Content) -> list[str]:
    """Return what a reader must know before any figure."""
    found = []
    if content["source"]["synthetic"]:
        found.append(
            "SYNTHETIC DATA. No real table was found: these rows are the embedded sample. Nothing "
            "here says how well a real table is protected."
        )
    for section in SECTIONS:
        if section.name in content:
            found += [text for text in section.warnings(content[section.name]) if text not in found]
    return found


def largest_sample(content: Content) -> Content:
    """Return the figures of the largest sample, from the same distribution where there is one."""
    samples = content["tokens"]["samples"]
    kind = samples[0]["kind"]
    chosen: Content = [sample for sample in samples if sample["kind"] == kind][-1]
    return chosen


def write(content: Content, out: Path) -> tuple[Path, Path]:
    """Write both files, readable by their owner only; return their paths, HTML first."""
    return write_both(render(content), content, out / HTML_FILE, out / JSON_FILE)


def render(content: Content) -> str:
    """Return the HTML page of cleaned ``content``."""
    environment = page_environment("attacks", share=_share, share_reach=_share_reach)
    environment.filters["strongest_of"] = _strongest_of
    environment.filters["strongest_membership"] = _strongest_membership
    ran = [section for section in SECTIONS if section.name in content]
    left_out = [section for section in SECTIONS if section.name not in content]
    svg = {
        name: Markup(text)  # noqa: S704 - our own
        for section in ran
        for name, text in section.plots(content[section.name]).items()
    }
    return environment.get_template("audit.html").render(
        **content, svg=svg, ran=ran, left_out=left_out, **_token_names(content)
    )


def _token_names(content: Content) -> Content:
    """Return what the templates on token tables use besides their figures."""
    if "tokens" not in content:
        return {}
    titles = {attack["name"]: attack["title"] for attack in content["tokens"]["attacks"]}
    shown = [name for name in SHOWN_PER_FIELD if name in titles]
    return {"head": largest_sample(content), "titles": titles, "shown_per_field": shown}


def _share(found: Content) -> str:
    """Return a mean in percent."""
    return f"{found['mean']:.1%}"


def _share_reach(found: Content) -> str:
    """Return an interval in percent, in brackets."""
    return f"[{found['low']:.1%}, {found['high']:.1%}]"


def _strongest_of(found: Content, attacks: list[Content]) -> Content:
    """Return title and figures of the attack with the largest AUC, the control apart."""
    titles = {attack["name"]: attack["title"] for attack in attacks if attack["name"] != "control"}
    best = max(titles, key=lambda name: found[name]["auc"]["mean"])
    return {"title": titles[best], "found": found[best]}


def _strongest_membership(classifier: Content) -> Content:
    """Return the strongest membership attack on answers that are not rounded."""
    return _strongest_of(classifier["membership"]["full"], classifier["membership_attacks"])
