"""The dashboard, the alerts and the documentation speak of metrics and labels that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from serving.telemetry import families
from serving.telemetry.families import FAMILIES, Family
from tests.support.server import ROOT

DEPLOY = ROOT / "deploy"
BY_NAME = {family.name: family for family in FAMILIES}
_METRIC = re.compile(r"\bcipherscore_\w+")
_GROUPED = re.compile(r"\bby \(([^)]*)\)")
_MATCHED = re.compile(r"(cipherscore_\w+)\{([^}]*)\}")
ADDED = {"instance", "job", "le"}
"""Labels that Prometheus adds, or that histograms have."""


def family_of(name: str) -> Family | None:
    """The family that a name in an expression belongs to."""
    if name in BY_NAME:
        return None if BY_NAME[name].kind == "histogram" else BY_NAME[name]
    base, _, part = name.rpartition("_")
    found = BY_NAME.get(base)
    ok = found is not None and found.kind == "histogram" and part in ("bucket", "sum", "count")
    return found if ok else None


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / "grafana/dashboard.json").read_text())
    return found


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def expressions() -> Iterator[tuple[str, str]]:
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for rule in alerts():
        yield rule["alert"], rule["expr"]


@pytest.mark.parametrize(("title", "expression"), list(expressions()))
def test_metrics_and_labels_exist(title: str, expression: str) -> None:
    names = _METRIC.findall(expression)
    assert names or title == "CipherScoreDown"
    found = {name: family_of(name) for name in names}
    assert None not in found.values(), found
    labels = ADDED.union(*(family.labels for family in found.values() if family))
    for group in _GROUPED.findall(expression):
        assert {label.strip() for label in group.split(",")} <= labels
    for name, matchers in _MATCHED.findall(expression):
        family = family_of(name)
        assert family is not None
        for matcher in re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', matchers):
            label, value = matcher
            assert label in {*family.labels, *ADDED}
            known = {
                "method": families.METHODS, "code": families.CODES, "reason": families.REFUSALS,
                "outcome": families.SWAPS, "stage": families.STAGES, "kind": families.KINDS,
            }.get(label)  # fmt: skip
            assert known is None or set(value.split("|")) <= set(known), (label, value)


@pytest.mark.parametrize("expression", [text for _, text in expressions()])
def test_brackets_close(expression: str) -> None:
    for opening, closing in ("()", "[]", "{}"):
        assert expression.count(opening) == expression.count(closing)


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {name for _, text in expressions() for name in _METRIC.findall(text)}
    assert {family_of(name) for name in shown} == set(FAMILIES)


def test_a_wrong_name_would_be_found() -> None:
    assert family_of("cipherscore_requests") is None
    assert family_of("cipherscore_request_seconds") is None
    assert family_of("cipherscore_workers_bucket") is None
    assert family_of("cipherscore_request_seconds_bucket") is families.REQUEST_SECONDS


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"])
                 for y in range(at["y"], at["y"] + at["h"])}  # fmt: skip
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
    identifiers = [panel["id"] for panel in dashboard()["panels"]]
    assert len(identifiers) == len(set(identifiers))


def test_alerts_say_what_is_wrong_and_how_badly() -> None:
    for rule in alerts():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"]["summary"]
        for label in re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]):
            assert label in rule["expr"] or label == "instance"


def test_prometheus_and_grafana_find_each_other() -> None:
    prometheus = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    for name in prometheus["rule_files"]:
        assert (DEPLOY / "prometheus" / name).is_file()
    (job,) = prometheus["scrape_configs"]
    assert 'job="cipherscore"' in alerts()[0]["expr"]
    assert job["job_name"] == "cipherscore"
    provisioning = DEPLOY / "grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    assert source["type"] == "prometheus"
    (provider,) = yaml.safe_load((provisioning / "dashboards/cipherscore.yml").read_text())[
        "providers"
    ]
    assert provider["type"] == "file"


def test_the_documentation_has_every_metric() -> None:
    text = (ROOT / "docs/observability.md").read_text()
    for family in FAMILIES:
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{family.name}` ")]
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[1] == family.kind
        assert re.findall(r"`(\w+)`", cells[2]) == list(family.labels)
