"""The audit's report: one dictionary of aggregates, written as JSON and as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import Markup

from attacks import plots
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
    if content["tokens"]["cuts"] < 5:
        found.append("Fewer than five cuts: intervals are too narrow.")
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
    drawn = plots.token_plots(content["tokens"])
    svg = {name: Markup(text) for name, text in drawn.items()}  # noqa: S704 - our own
    titles = {attack["name"]: attack["title"] for attack in content["tokens"]["attacks"]}
    return environment.get_template("audit.html").render(
        **content, svg=svg, titles=titles, head=largest_sample(content),
        shown_per_field=[name for name in SHOWN_PER_FIELD if name in titles],
    )  # fmt: skip


def _share(found: Content) -> str:
    """Return a mean in percent."""
    return f"{found['mean']:.1%}"


def _share_reach(found: Content) -> str:
    """Return an interval in percent, in brackets."""
    return f"[{found['low']:.1%}, {found['high']:.1%}]"
