"""The report: renders offline and whole, warns where it must, and the command makes it."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
import typer
from typer.testing import CliRunner

from cipherscore.cli.evaluate import evaluate
from cipherscore.client.sources import RawTable
from cipherscore.errors import ConfigurationError, DataError
from cipherscore.schema import Binning, Field, Schema, Target
from cipherscore.schema_file import load_schema, save_schema
from evaluation import command
from evaluation.command import Request, capstone_schema
from evaluation.page import clean
from evaluation.peers import beside_peers
from evaluation.report import (
    balance_verdict,
    finding_words,
    render,
    standing_words,
    utility,
    verdict,
    warnings,
)
from evaluation.svg import draw, embedded
from tests.support.generator_tables import SMALL_PRESETS
from tests.support.pages import Page

SECTIONS = ("summary", "data", "classifier", "comparison", "groups", "synthetic", "imbalance",
            "method")  # fmt: skip
PLOTS = (
    "Class balance", "Box plots of the numeric fields", "Correlation matrix, Cramér's V",
    "Correlation matrix, Pearson", "ROC curve", "Precision-recall curve", "Calibration curve",
    "Kolmogorov-Smirnov plot", "Gain curve", "Lift curve", "Cost curve", "Learning curve",
    "Seed-to-seed spread", "AUC of all methods", "Accuracy of all methods", "Approval by color",
    "Column fidelity by field", "Fidelity of all pairs", "Use and closeness",
    "Differences by balancing the classes",
)  # fmt: skip
SECRET = "Zebedee"
"""A category that two rows have."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small table evaluated through the command line: folder, exit, printed JSON."""
    folder = tmp_path_factory.mktemp("evaluate")
    generator = np.random.default_rng(5)
    label = (generator.random(90) < 0.4).astype(int)
    color = np.where(generator.random(90) < 0.25 + 0.5 * label, "r", "b").astype(object)
    color[:2] = SECRET
    size = generator.normal(50 + 15 * label, 10).round(1)
    table = pa.table({"color": color, "size": size, "y": np.where(label, "bad", "ok")})
    pacsv.write_csv(table, folder / "table.csv")
    schema = Schema(
        "tiny",
        (
            Field("color", "categorical", protected=True,
                  categories={"r": "red", "b": "<blue & co>", SECRET: ""}),
            Field("size", "numeric", unit="cm", binning=Binning("quantile", 3)),
        ),
        Target("y", good="ok", bad="bad", cost_false_good=5.0),
        title="A tiny <table>",
    )  # fmt: skip
    save_schema(schema, folder / "tiny.toml")
    words = ["--data", folder / "table.csv", "--schema", folder / "tiny.toml", "--out",
             folder / "report", "--quick", "--folds", 3, "--methods", "plain,logistic"]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "GENERATOR", SMALL_PRESETS["default"])
        yield folder / "report", run(words), words


def run(words):
    app = typer.Typer()
    app.command()(evaluate)
    return CliRunner().invoke(app, [str(word) for word in [*words, "--json"]])


@pytest.fixture
def content(made):
    return json.loads((made[0] / "report.json").read_text())


def test_the_command_writes_private_files_and_prints_figures(made):
    folder, result, _ = made
    assert result.exit_code == 0, result.output
    assert all((folder / name).stat().st_mode & 0o777 == 0o600
               for name in ("report.html", "report.json", "folds.json"))  # fmt: skip
    printed = json.loads(result.stdout)
    assert printed["methods"].keys() == {"tokens", "plain", "logistic"}
    assert printed["headline"]["auc"]["mean"] > 0.6
    assert printed["synthetic"].keys() == {"real", "independent", "ours"}
    assert [one["tested"] for one in printed["imbalance"]] == [False] * 3


def test_the_page_is_whole_and_opens_offline(made):
    text = (made[0] / "report.html").read_text()
    page = Page(text)
    assert not page.open
    assert not page.scripts
    assert set(SECTIONS) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert set(PLOTS) == set(page.figures)
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    for link in page.links:
        assert link.startswith("data:image/png;base64,") or link[1:] in page.ids
    assert len(text) < 800_000


def test_the_page_names_what_it_rests_on(made, content):
    text = (made[0] / "report.html").read_text()
    for word in ("tiny", "table.csv", content["made"], content["versions"]["torch"], "1 \u00d7 3",
                 "Nadeau", "QUICK LOOK", "--quick"):  # fmt: skip
        assert word in text
    assert "13,697" in text
    assert "A tiny &lt;table&gt;" in text
    assert "&lt;blue &amp; co&gt;" in text


def test_no_value_of_few_rows_is_in_any_file(made):
    for name in ("report.html", "report.json", "folds.json"):
        assert SECRET not in (made[0] / name).read_text()


def test_json_and_page_hold_the_same_figures(made, content):
    auc = content["classifier"]["headline"]["auc"]
    text = (made[0] / "report.html").read_text()
    assert f"{auc['mean']:.3f}" in text
    assert f"[{auc['low']:.3f}, {auc['high']:.3f}]" in text
    assert content["classifier"]["headline"]["gini"]["mean"] == pytest.approx(2 * auc["mean"] - 1)
    assert len(content["classifier"]["curves"]["roc"]["value"]) == 101


def test_the_same_content_gives_the_same_page(content):
    assert render(content) == render(content)


def test_a_second_run_takes_kept_results_and_gives_the_same_figures(made, content):
    folder, _, words = made
    before = (folder / "folds.json").stat().st_mtime_ns
    assert run(words).exit_code == 0
    assert (folder / "folds.json").stat().st_mtime_ns == before
    again = json.loads((folder / "report.json").read_text())
    assert {**again, "made": ""} == {**content, "made": ""}


@pytest.mark.parametrize(
    ("option", "known"),
    [("--methods", ("method to compare with 'oracle'; there are: plain, logistic, forest, boosting, "
                   "keras, capstone")),
     ("--only", "part to run 'oracle'; there are: classifier, synthetic, imbalance")],
)  # fmt: skip
def test_an_unknown_name_is_refused(made, tmp_path, option, known):
    result = run([*made[2][:4], "--out", tmp_path, option, "oracle"])
    assert isinstance(result.exception, ConfigurationError)
    assert f"no {known}" in str(result.exception)


def test_a_part_that_was_not_run_is_said_so(made, content):
    folder, _, words = made
    before = (folder / "folds.json").read_text()
    result = run([*words, "--only", "synthetic"])
    assert result.exit_code == 0, result.output
    assert "headline" not in json.loads(result.stdout)
    found = json.loads((folder / "report.json").read_text())
    page = Page((folder / "report.html").read_text())
    left = [name for name in ("classifier", "comparison", "groups", "imbalance") if not found[name]]
    assert left == ["classifier", "comparison", "groups", "imbalance"]
    assert (folder / "report.html").read_text().count("This part was not run") == len(left)
    assert set(SECTIONS) <= set(page.ids)
    assert found["synthetic"] == content["synthetic"]
    assert (folder / "folds.json").read_text() == before
    assert run(words).exit_code == 0  # the whole report again, of kept results


def test_peers_stand_beside_ours(content):
    assert "Peers were not measured on this table" in render(content)
    ours = content["synthetic"]["sources"][2]["figures"]
    figures = {name: {"mean": ours[name]["mean"], "sd": 0.0} for name in ours}
    figures["tstr_auc"] = {"mean": 0.999, "sd": 0.0}
    peers = {"made": "2030-01-02", "folds": 5, "seed": 0, "rows_learned": 60, "ours": {},
             "sources": {"oracle": {"title": "Oracle 1.0", "figures": figures}}}  # fmt: skip
    content["synthetic"]["peers"] = beside_peers(content["synthetic"], peers)
    text = render(content)
    assert "on 2030-01-02, 5 fold(s), seed 0, 60 rows learned" in text
    assert "Oracle 1.0: better in TSTR AUC, logistic regression (0.999, ours" in text
    assert "oracle" not in Page(text).ids


def test_synthetic_rows_are_named_loudly(content):
    content["source"]["synthetic"] = True
    found = warnings(content)
    assert found[0].startswith("SYNTHETIC DATA")
    content["warnings"] = found
    assert 'role="alert">SYNTHETIC DATA' in render(content)


@pytest.mark.parametrize(
    ("schema", "auc", "suspected"),
    [("german-credit", 0.821, True), ("german-credit", 0.80, False), ("adult", 0.92, False),
     ("adult", 0.995, True)],
)  # fmt: skip
def test_an_area_too_good_is_a_suspected_leak(content, schema, auc, suspected):
    content["settings"]["schema"] = schema
    content["classifier"]["headline"]["auc"]["mean"] = auc
    assert any("SUSPECTED LEAK" in text for text in warnings(content)) == suspected


def test_a_table_without_protected_fields_says_so(content):
    content["groups"] = []
    assert "marks no field as protected" in render(content)


def test_verdicts():
    def against(mean, p, sd=0.01):
        return {"difference": {"auc": {"mean": mean, "sd": sd, "p_holm": p}}}

    assert verdict(against(0.01, 0.001)) == "worse by 0.0100, beyond chance"
    assert verdict(against(-0.01, 0.2)) == "better by 0.0100, within chance"
    assert verdict(against(0.0, 1.0, sd=0.0)) == "equal on every fold"
    assert "too few folds" in verdict(against(0.01, None))
    assert verdict({}) == ""


def test_synthetic_rows_in_words():
    shares = {"tstr_auc": {"mean": 0.981}, "tstr_boosted_auc": {"mean": 0.96}}
    assert utility({"floor": 0.97, "utility": shares}) == (
        "A logistic regression trained on them reaches 98.1% of the AUC that real rows give; "
        "boosted trees reach 96.0% of the AUC that real rows give, below the floor "
        "(the floor is 97%)."
    )
    better = {"figure": "tstr_auc", "peer": 0.81, "ours": 0.79}
    near = {"figure": "validity", "peer": 1.0, "ours": 1.0}
    slow = {"figure": "train_seconds", "peer": 120.4, "ours": 4.5}
    assert standing_words({"better": [better], "worse": [slow], "near": [near]}) == (
        "better in TSTR AUC, logistic regression (0.810, ours 0.790); worse in training, seconds "
        "(120, ours 4); within one sd of folds in the rest."
    )


def test_balanced_classes_in_words():
    worse = [{"figure": "brier", "difference": 0.02}]
    better = [{"figure": "auc", "difference": 0.01}]
    nothing = {"title": "a", "tested": True, "better": [], "worse": []}
    harm, both = nothing | {"worse": worse}, nothing | {"better": better, "worse": worse}
    untested = nothing | {"tested": False}
    assert (
        finding_words(both) == "beyond chance, better AUC (+0.0100); worse Brier score (+0.0200)."
    )
    assert finding_words(nothing) == "nothing changes beyond chance."
    assert "too few folds" in finding_words(untested)
    assert "does not help" in balance_verdict([nothing, harm])
    assert balance_verdict([nothing, both]) == (
        "Some figure gets better beyond chance with: a; another gets worse with: a."
    )
    assert "Too few folds" in balance_verdict([untested])


def test_what_is_no_number_is_null():
    found = clean({"a": float("nan"), "b": [float("inf"), 1 / 3], "c": (1, "x", None, True)})
    assert found == {"a": None, "b": [None, 0.333333], "c": [1, "x", None, True]}


def test_the_capstones_bins_belong_to_its_own_table(small_schema):
    assert capstone_schema(load_schema("german-credit")).name == "german-credit-capstone"
    assert capstone_schema(small_schema) is None


def test_an_svg_file_loses_its_addresses_and_gets_ids_of_its_own():
    first, second = (
        draw(name, 2, 2, lambda figure: figure.subplots().plot([0, 1], [0, 1])) for name in "ab"
    )
    assert first.startswith("<svg ")
    assert "http" not in first
    ids = re.findall(r'\bid="([^"]+)"', first)
    assert ids
    assert all(found.startswith("a-") for found in ids)
    assert set(re.findall(r"url\(#([^)]+)\)", first)) <= set(ids)
    assert not set(ids) & set(re.findall(r'\bid="([^"]+)"', second))
    text = (
        '<?xml version="1.0"?>\n<svg width="9pt" height="9pt" viewBox="0 0 9 9"><g id="x"/></svg>'
    )
    assert embedded(text, "n", 3) == (
        '<svg viewBox="0 0 9 9" class="plot" style="max-width:3in"><g id="n-x"/></svg>'
    )


def test_an_empty_table_is_refused(tmp_path, small_schema):
    empty = RawTable("nothing.csv", "file", lambda: iter(()))
    with pytest.raises(DataError, match=r"nothing\.csv has no row"):
        command.evaluate(Request(small_schema, "default", tmp_path), lambda _: empty)
