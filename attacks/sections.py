"""The sections of an audit: what each attacks, what it reports, and how it is shown.

A section has a name, which is its key in the JSON, its word for ``--only``, and part of the names
of its two templates: ``audit_<name>_summary.html`` and ``audit_<name>.html``.  A section that was
not run is absent from the JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from attacks import model_plots
from attacks.classifier.study import classifier_figures, classifier_study
from attacks.generator.study import generator_figures, generator_study
from attacks.request import Request
from attacks.requests.plots import request_plots
from attacks.requests.report import (
    request_facts,
    request_lines,
    request_study,
    request_warnings,
)
from attacks.requests.study import RequestStudy, requests_content
from attacks.tokens import plots
from attacks.tokens.study import TokenStudy, token_tables
from cipherscore.errors import ConfigurationError, shorten
from evaluation.folds import RawData
from evaluation.store import Store, Task

Content = dict[str, Any]

LARGE_ROWS = 20_000
"""From here on a table is cut fewer times for the attacks on tokens."""


class Study(Protocol):
    """What a section runs."""

    def tasks(self) -> Iterable[Task]:
        """Yield all that has to be computed; each result is kept when it is there."""


@dataclass(frozen=True)
class Section:
    """One part of the audit.

    Args:
        name: Key in the JSON, and what ``--only`` calls it.
        title: In the page's navigation.
        build: Makes the study of a request.
        figures: Returns a finished study's content, as it goes into the JSON.
        plots: Draws that content: SVG elements by name; names are unique over all sections.
        facts: Returns what the command prints with ``--json``.
        lines: Returns what the command prints for people.
        warnings: Returns what a reader must know before any figure.
        takes_smoothing: Whether it can attack a schema that asks for smoothing.
    """

    name: str
    title: str
    build: Callable[[Request, RawData, Store], Study]
    figures: Callable[[Any], Content]
    plots: Callable[[Content], dict[str, str]]
    facts: Callable[[Content], Any]
    lines: Callable[[Content], list[str]]
    warnings: Callable[[Content], list[str]]
    takes_smoothing: bool = False


def sections(only: Sequence[str] | None = None) -> list[Section]:
    """Return the sections asked for, in the order of the report; all without a choice.

    Raises:
        ConfigurationError: There is no such section, or none is left.
    """
    known = [section.name for section in SECTIONS]
    unknown = sorted(set(only or ()).difference(known))
    if unknown:
        raise ConfigurationError(f"no section {shorten(unknown[0])}; there are: {', '.join(known)}")
    if only is not None and not only:
        raise ConfigurationError(f"no section to run; there are: {', '.join(known)}")
    return [section for section in SECTIONS if only is None or section.name in only]


def _token_study(request: Request, raw: RawData, store: Store) -> TokenStudy:
    cuts = request.cuts or (20 if raw.rows < LARGE_ROWS else 10)
    return TokenStudy(raw, cuts, request.kinds, request.seed, store, request.draws)


def _request_study(request: Request, raw: RawData, store: Store) -> RequestStudy:
    return request_study(raw, request.cuts, request.seed, store)


def _token_facts(content: Content) -> Any:
    recovered = [
        {
            "auxiliary": sample["kind"],
            "share": sample["share"],
            "rows": sample["rows"],
            **{name: found["cells"] for name, found in sample["attacks"].items()},
        }
        for sample in content["samples"]
    ]
    return {"cells_recovered": recovered}


def _token_lines(content: Content) -> list[str]:
    samples = content["samples"]
    heads = "".join(f"{s['kind']:>9} {s['share']:<4.0%}" for s in samples)
    found = [f"{'cells named correctly':<40}{heads}"]
    for attack in content["attacks"]:
        means = [sample["attacks"][attack["name"]]["cells"]["mean"] for sample in samples]
        found.append(f"{attack['title']:<40}" + "".join(f"{mean:>13.1%} " for mean in means))
    return found


def _classifier_facts(content: Content) -> Any:
    return {
        "membership": content["membership"],
        "score_only": _cells(content["score_only"]),
        "inference": {name: _cells(found) for name, found in content["inference"].items()},
        "reconstruction": {
            name: _cells(found) for name, found in content["reconstruction"].items()
        },
        **({"given": content["given"]["membership"]} if "given" in content else {}),
    }


def _classifier_lines(content: Content) -> list[str]:
    found = [f"{'membership in the classifier, by answer':<40}{'AUC':>9}{'TPR at FPR 1 %':>18}"]
    attacks = {attack["name"]: attack["title"] for attack in content["membership_attacks"]}
    for form in content["forms"]:
        ranked = content["membership"][form["name"]]
        best = max((name for name in attacks if name != "control"),
                   key=lambda name: ranked[name]["auc"]["mean"])  # fmt: skip
        found.append(_ranked_line(f"  {form['title']}: {attacks[best]}", ranked[best]))
    full = content["membership"]["full"]
    found.append(_ranked_line(f"  {attacks['control']}", full["control"]))
    found.append(f"{'all fields from an answer':<40}{'named':>9}")
    found.append(_cell_line("  most frequent level", content["score_only"]["mode"]))
    titles = {attacker["name"]: attacker["title"] for attacker in content["attackers"]}
    for told in content["settings_told"]:
        named = content["reconstruction"][told["name"]]
        found += [
            _cell_line(f"  {told['title']}, {title}", named[name])
            for name, title in titles.items()
            if name in named
        ]
    return found


def _generator_facts(content: Content) -> Any:
    return {
        **{variant["name"]: variant["membership"] for variant in content["variants"]},
        **({"given": content["given"]["membership"]} if "given" in content else {}),
    }


def _generator_lines(content: Content) -> list[str]:
    found = [f"{'membership in the generator':<40}{'AUC':>9}{'TPR at FPR 1 %':>18}"]
    for variant in content["variants"]:
        found += [
            _ranked_line(f"  {variant['name']}: {attack['title']}",
                         variant["membership"][attack["name"]])
            for attack in content["attacks"]
        ]  # fmt: skip
    return found


def _cells(found: Content) -> Content:
    return {name: one["cells"] for name, one in found.items()}


def _ranked_line(title: str, found: Content) -> str:
    tpr = f"{found['tpr_1']['mean']:>18.1%}" if "tpr_1" in found else ""
    return f"{title:<64}{found['auc']['mean']:>9.3f}{tpr}"


def _cell_line(title: str, found: Content) -> str:
    return f"{title:<64}{found['cells']['mean']:>9.1%}"


def _few_cuts(content: Content) -> list[str]:
    return ["Fewer than five cuts: intervals are too narrow."] if content["cuts"] < 5 else []


def _none(_: Content) -> list[str]:
    return []


TOKENS = Section(
    "tokens", "Token tables", _token_study, token_tables, plots.token_plots,
    _token_facts, _token_lines, _few_cuts, takes_smoothing=True,
)  # fmt: skip
REQUESTS = Section(
    "requests", "Requests", _request_study, requests_content, request_plots,
    request_facts, request_lines, request_warnings,
)  # fmt: skip
CLASSIFIER = Section(
    "classifier", "Classifier", classifier_study, classifier_figures, model_plots.classifier_plots,
    _classifier_facts, _classifier_lines, _few_cuts,
)  # fmt: skip
GENERATOR = Section(
    "generator", "Generator", generator_study, generator_figures, model_plots.generator_plots,
    _generator_facts, _generator_lines, _none,
)  # fmt: skip

SECTIONS = (TOKENS, REQUESTS, CLASSIFIER, GENERATOR)
"""All sections, in the order of the report."""
