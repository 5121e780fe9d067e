"""The model card says what the run and the evaluation say, and nothing where they say nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cipherscore.errors import ExportError
from export.card import model_card, read_evaluation
from tests.support.token_tables import KEY_ID, public_schema
from training.runs import ModelKind, Run

EXPORT = {"max_abs_diff": 3e-7, "rows": 100}
EVALUATION: dict[str, Any] = {
    "summary": "Made 2026-01-01 on 'toy.csv'.",
    "methods": [{"title": "ours (on tokens)", "folds": 50, "auc": 0.7955, "sd": 0.036}],
    "groups": [
        {"field": "age", "group": "[18, 25)", "rows": 40, "bad_rate": 0.425,
         "approval_rate": 0.5, "auc": 0.71},
        {"field": "age", "group": "[65, 80)", "rows": 6, "bad_rate": 0.0,
         "approval_rate": 1.0, "auc": None},
    ],
}  # fmt: skip
REPORT: dict[str, Any] = {
    "made": "2026-01-01",
    "settings": {"schema": "toy-credit", "preset": "default"},
    "source": {"name": "toy.csv", "synthetic": False},
    "comparison": {
        "methods": [
            {"title": "ours", "sees": "tokens", "folds": 50,
             "figures": {"auc": {"mean": 0.7955, "sd": 0.036}}},
        ]
    },
    "groups": [
        {
            "field": "age",
            "groups": [
                {"value": "[18, 25)", "rows": 40, "base_rate": {"value": 0.425},
                 "approval_rate": {"value": 0.5}, "auc": {"value": 0.71}},
                {"value": "[65, 80)", "rows": 6, "base_rate": {"value": 0.0},
                 "approval_rate": {"value": 1.0}, "auc": None},
            ],
        }
    ],
    "synthetic": {
        "preset": "default",
        "folds": 5,
        "sources": [
            {"title": "real rows", "figures": {
                "tstr_auc": {"mean": 0.791, "sd": 0.02}, "copy_rate": {"mean": 1.0, "sd": 0.0},
            }},
            {"title": "our generator", "figures": {
                "tstr_auc": {"mean": 0.785, "sd": 0.03}, "train_seconds": {"mean": 9.0, "sd": 1.0},
            }},
        ],
    },
}  # fmt: skip


def run(kind: ModelKind = "classifier", **changes: Any) -> Run:
    facts: dict[str, Any] = {
        "folder": Path("run"), "kind": kind, "preset": "default", "seed": 7,
        "model_name": f"toy-credit-{kind}", "key_id": KEY_ID, "schema": public_schema(),
        "dataset_digest": "ab" * 32, "vocabulary_digest": "cd" * 32, "class_prior": 0.3,
        "threshold": 0.17, "started": "2026-01-01T00:00:00", "finished": "2026-01-01T00:01:00",
        "code_version": "1.2.3",
        "metrics": {
            "test": {
                "auc": {"value": 0.78294, "low": 0.71, "high": 0.85},
                "confusion": {"bad_called_bad": 5},
                "rows": 200,
            }
        },
    }  # fmt: skip
    return Run(**{**facts, **changes})


def section(card: str, title: str) -> str:
    return card.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_a_classifier_without_an_evaluation():
    card = model_card(run(), EXPORT, None)
    assert card.startswith("# toy-credit-classifier\n")
    facts = " ".join(section(card, "What it is").split())
    assert "0.1700 or more is called bad" in facts
    assert "costs 5 and calling a good one bad costs 1" in facts
    assert "within 3.0e-07 over 100 rows" in facts
    assert "int8" not in facts
    assert "30.0 % bad credits" in section(card, "Data")
    assert "| AUC | 0.7829 | 0.7100 to 0.8500 |" in section(card, "Figures")
    assert "confusion" not in card
    assert "Not evaluated" in section(card, "Groups")
    assert "Tokens are deterministic" in section(card, "What leaks")
    assert "Cross-validation" not in card


def test_a_classifier_with_an_evaluation_and_a_variant():
    small = {"kept": False, "auc_difference": -0.002}
    card = model_card(run(), {**EXPORT, "int8": small}, EVALUATION)
    assert "int8 variant left out: its AUC differs by -0.00200" in " ".join(card.split())
    assert "| ours (on tokens) | 50 | 0.7955 | 0.036 |" in card
    groups = section(card, "Groups")
    assert "| age | [18, 25) | 40 | 42.5 % | 50.0 % | 0.710 |" in groups
    assert "| age | [65, 80) | 6 | 0.0 % | 100.0 % |  |" in groups
    nobody = model_card(run(), EXPORT, {**EVALUATION, "groups": []})
    assert "marks no field as protected" in section(nobody, "Groups")


def test_a_table_without_test_rows():
    assert "no test rows" in section(model_card(run(metrics={}), EXPORT, None), "Figures")


def test_a_generator_shows_all_its_figures_and_no_groups():
    metrics = {"test": {"tstr_auc": 0.78, "copy_rate": 0, "fidelity": {"column": 0.9}}}
    card = model_card(run("generator", threshold=None, metrics=metrics), EXPORT, None)
    figures = section(card, "Figures")
    assert "| tstr auc | 0.7800 |  |" in figures
    assert "| copy rate | 0 |  |" in figures
    assert "| fidelity: column | 0.9000 |  |" in figures
    assert "intervals" not in figures
    assert "Groups" not in card
    assert "called bad" not in card


PRIVACY = {"epsilon": 1.0, "delta": 0.000125, "rho": 0.041946}


def test_a_private_generator_says_what_its_guarantee_is():
    metrics = {"privacy": PRIVACY, "test": {"tstr_auc": 0.74}}
    card = model_card(run("generator", threshold=None, metrics=metrics), EXPORT, None)
    privacy = " ".join(section(card, "Privacy").split())
    assert "epsilon 1 and delta 0.000125, for one training row added or removed" in privacy
    assert "rho 0.0419 of" in privacy
    assert "among the training rows, with noise." in " ".join(section(card, "Data").split())
    assert "no anonymised rows" not in card
    assert "those of any model" not in card


def test_a_generator_without_a_guarantee_claims_none():
    card = model_card(run("generator", threshold=None), EXPORT, None)
    assert "## Privacy" not in card
    assert "no anonymised rows" in card
    assert "with noise" not in card


@pytest.mark.parametrize(
    ("kind", "metrics"),
    [
        ("classifier", {"test": {"auc": 0.7}}),
        ("generator", {"test": {"tstr_auc": 0.7}}),
        ("generator", {"test": {"tstr_auc": 0.7}, "privacy": PRIVACY}),
    ],
)
def test_it_is_tidy(kind: ModelKind, metrics: dict[str, Any]):
    evaluation = EVALUATION if kind == "classifier" else None
    card = model_card(run(kind, metrics=metrics), EXPORT, evaluation)
    assert "\n\n\n" not in card
    assert card.endswith(".\n")
    assert not [line for line in card.splitlines() if line != line.rstrip()]
    for before, line in zip(card.splitlines(), card.splitlines()[1:], strict=False):
        assert not (line.startswith("#") and before), "a heading has a free line above"


def test_a_report_is_read_and_must_be_of_the_same_model(tmp_path: Path):
    path = tmp_path / "report.json"
    path.write_text(json.dumps(REPORT))
    assert read_evaluation(path, run()) == EVALUATION
    for kind in ("classifier", "generator"):
        with pytest.raises(ExportError, match=f"is of a {kind} of 'toy-credit', preset 'default'"):
            read_evaluation(path, run(kind, preset="capstone"))
    path.write_text(json.dumps({**REPORT, "source": {"name": "s", "synthetic": True}}))
    assert "SYNTHETIC" in read_evaluation(path, run())["summary"]


def test_a_generator_with_an_evaluation(tmp_path: Path):
    path = tmp_path / "report.json"
    path.write_text(json.dumps(REPORT))
    made = run("generator", threshold=None)
    card = model_card(made, EXPORT, read_evaluation(path, made))
    assert "over 5 folds" in card
    assert "| figure | real rows | our generator |" in card
    assert "| tstr auc | 0.7910 ± 0.0200 | 0.7850 ± 0.0300 |" in card
    assert "| copy rate | 1.0000 ± 0.0000 |  |" in card
    assert "train seconds" not in card
    assert "Groups" not in card
    with pytest.raises(ExportError, match="outside the guarantee"):
        read_evaluation(path, run("generator", metrics={"privacy": PRIVACY}))


@pytest.mark.parametrize(
    ("kind", "part"), [("classifier", "comparison"), ("generator", "synthetic")]
)
def test_a_report_without_the_part_of_a_model_is_refused(tmp_path: Path, kind: ModelKind, part):
    path = tmp_path / "report.json"
    path.write_text(json.dumps({**REPORT, part: None}))
    with pytest.raises(ExportError, match=f"has nothing about a {kind}: it was made with --only"):
        read_evaluation(path, run(kind))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"settings": 1}', '{"settings": {}}'])
def test_another_file_is_no_report(tmp_path: Path, content: str):
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(ExportError, match=r"no report\.json"):
        read_evaluation(path, run())
    path.unlink()
    with pytest.raises(ExportError, match=r"no report\.json"):
        read_evaluation(path, run())
