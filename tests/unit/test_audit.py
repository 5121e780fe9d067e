"""The audit: cuts that keep the attacker's rows apart, its figures, and the command."""

import json
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
import typer
from typer.testing import CliRunner

from attacks import command
from attacks.cuts import Cut
from attacks.recovery import recovered
from attacks.report import render
from attacks.tokens.study import CLASSES, MATCHING, SHARES, attacked, titles
from cipherscore.cli.audit import audit
from cipherscore.client.sources import find_table
from cipherscore.errors import ConfigurationError, DataError
from cipherscore.schema import Binning, Field, Schema, Target
from cipherscore.schema_file import load_schema, save_schema
from cipherscore.scorecards import Scorecards, planned_fields
from evaluation.folds import RawData
from tests.support.pages import Page
from tests.support.raw_tables import tiny_table
from tests.support.real_data import german_credit

TITLES = titles(tiny_table().schema)
SECRET = "Zebedee"
"""A category that two rows have."""


def test_a_cut_depends_on_the_seed_and_not_on_the_key():
    raw = tiny_table()
    one, again, other = Cut.of(raw, 0, 7), Cut.of(raw, 0, 7), Cut.of(raw, 1, 7)
    assert np.array_equal(one.table.tokens, again.table.tokens)
    assert np.array_equal(one.truth, again.truth)
    assert not np.array_equal(one.truth, other.truth)


def test_tokens_stand_for_levels_one_to_one():
    cut = Cut.of(tiny_table(), 0, 0)
    for tokens, levels in zip(cut.table.tokens.T, cut.truth.T, strict=True):
        assert len(np.unique(tokens)) == len(np.unique(levels))
        assert len(set(zip(tokens.tolist(), levels.tolist(), strict=True))) == len(
            np.unique(levels)
        )


def named_rows(rows, each):
    """A table of one field, which names the row; ``each`` rows share a name."""
    names = [f"n{number}" for number in range(rows // each)]
    schema = Schema(
        "rows",
        (Field("name", "categorical", categories=dict.fromkeys(names, "")),),
        Target("y", good="ok", bad="bad"),
    )
    table = pa.table({"name": np.repeat(names, each), "y": ["ok", "bad"] * (rows // 2)})
    return RawData(schema, table, np.arange(rows, dtype=np.int8) % 2)


def test_the_sample_shares_no_row_with_the_encrypted_half():
    raw = named_rows(100, each=1)
    cut = Cut.of(raw, 0, 0)
    for shifted in (False, True):
        for share in SHARES:
            sample = cut.sample(share, shifted=shifted)
            assert len(sample.label) == max(1, round(share * 50))
            assert not set(sample.levels[:, 0]) & set(cut.truth[:, 0])
            assert np.array_equal(sample.label, sample.levels[:, 0] % 2)
    assert set(cut.sample(1.0, shifted=False).levels[:, 0]) | set(cut.truth[:, 0]) == set(
        range(100)
    )
    known = cut.known(10)
    assert np.array_equal(known.levels, cut.truth[known.rows])
    assert len(set(known.rows.tolist())) == 10
    assert len(cut.known(100).rows) == 25


def test_rows_of_one_group_are_not_divided():
    raw = named_rows(90, each=3)
    cut = Cut.of(replace(raw, group=np.arange(90) // 3), 3, 0)
    assert len(cut.truth) == 45
    assert len(cut.pool.label) == 45
    assert not set(cut.truth[:, 0]) & set(cut.pool.levels[:, 0])
    divided = Cut.of(raw, 3, 0)
    assert set(divided.truth[:, 0]) & set(divided.pool.levels[:, 0])


def test_a_shifted_sample_has_more_bad_rows():
    cut = Cut.of(tiny_table(rows=2000), 0, 0)
    assert cut.sample(1.0, shifted=False).label.mean() == pytest.approx(0.4, abs=0.05)
    # Odds of 2 to 3, three times over.
    assert cut.sample(1.0, shifted=True).label.mean() == pytest.approx(2 / 3, abs=0.06)


def test_a_table_too_small_to_divide_is_refused():
    with pytest.raises(DataError, match=r"19 rows are too few to audit; give 20 or more"):
        Cut.of(tiny_table(rows=19), 0, 0)


def test_several_draws_need_smoothing(tmp_path):
    schema = load_schema("german-credit")
    with pytest.raises(ConfigurationError, match=r"3 draws of schema .* which has no smoothing"):
        command.audit(command.Request(schema, tmp_path, draws=3), find_table(schema, None))


def test_a_schema_with_scorecards_is_refused(tmp_path):
    schema = load_schema("german-credit")
    cards = replace(schema, fields=planned_fields(1, 8), scorecards=Scorecards(schema.fields))
    with pytest.raises(ConfigurationError, match=r"has scorecards: .* without \[scorecards\]"):
        command.audit(command.Request(cards, tmp_path), find_table(schema, None))


def test_german_credit_is_named_almost_whole():
    schema = load_schema("german-credit")
    raw = RawData.read(schema, find_table(schema, german_credit()))
    found = attacked(Cut.of(raw, 0, 0), 1.0, "same", MATCHING)
    share = {name: np.mean(values) for name, values in found["recovered"].items()}
    # 20 cuts by another programme: frequency matching 0.917 (sd 0.03), most frequent level 0.578.
    assert share["mode"] == pytest.approx(0.578, abs=0.02)
    assert share["rank"] == pytest.approx(0.917, abs=0.07)
    assert share["random"] < share["mode"] < share["rank"] < share["joint"]
    assert share["joint"] > 0.95
    assert share["known_10"] > 0.97
    assert share["ideal"] == 1.0
    assert (found["rows"], found["encrypted"]) == (500, 500)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small table audited through the command line: folder, exit, words."""
    folder = tmp_path_factory.mktemp("audit")
    generator = np.random.default_rng(5)
    label = (generator.random(200) < 0.4).astype(int)
    color = np.where(generator.random(200) < 0.25 + 0.5 * label, "r", "b").astype(object)
    color[:2] = SECRET
    size = generator.normal(50 + 15 * label, 10).round(1)
    table = pa.table({"color": color, "size": size, "y": np.where(label, "bad", "ok")})
    pacsv.write_csv(table, folder / "table.csv")
    schema = Schema(
        "tiny",
        (
            Field("color", "categorical", categories={"r": "red", "b": "blue", SECRET: ""}),
            Field("size", "numeric", unit="cm", binning=Binning("quantile", 10)),
        ),
        Target("y", good="ok", bad="bad"),
        title="A tiny <table>",
    )
    save_schema(schema, folder / "tiny.toml")
    words = ["--data", folder / "table.csv", "--schema", folder / "tiny.toml", "--out",
             folder / "audit", "--cuts", 3, "--only", "tokens"]  # fmt: skip
    return folder / "audit", run(words), words


def run(words):
    app = typer.Typer()
    app.command()(audit)
    return CliRunner().invoke(app, [str(word) for word in [*words, "--json"]])


@pytest.fixture
def content(made):
    return json.loads((made[0] / "audit.json").read_text())


def test_the_command_writes_private_files_and_prints_figures(made, content):
    folder, result, _ = made
    assert result.exit_code == 0, result.output
    assert all((folder / name).stat().st_mode & 0o777 == 0o600
               for name in ("audit.html", "audit.json", "cuts.json"))  # fmt: skip
    printed = json.loads(result.stdout)["tokens"]["cells_recovered"]
    assert [(row["auxiliary"], row["share"], row["rows"]) for row in printed] == [
        ("same", 0.01, 1), ("same", 0.1, 10), ("same", 1.0, 100),
        ("shifted", 0.01, 1), ("shifted", 0.1, 10), ("shifted", 1.0, 100),
    ]  # fmt: skip
    for row, sample in zip(printed, content["tokens"]["samples"], strict=True):
        assert all(row[name] == sample["attacks"][name]["cells"] for name in TITLES)
        assert row["ideal"]["mean"] == 1.0


def test_figures_fit_together(content):
    tokens = content["tokens"]
    classes = {group["name"]: group["fields"] for group in tokens["classes"]}
    assert classes == {"few": 1, "many": 1, "numeric": 1, "categorical": 1}
    assert classes.keys() <= CLASSES.keys()
    for sample in tokens["samples"]:
        for found in sample["attacks"].values():
            assert found["cells"]["low"] <= found["cells"]["mean"] <= found["cells"]["high"]
            assert found["cells"]["mean"] == pytest.approx(np.mean(found["fields"]), abs=1e-5)
            assert found["classes"]["few"]["mean"] == pytest.approx(found["fields"][0], abs=1e-5)
            gain = found["cells"]["mean"] - sample["attacks"]["mode"]["cells"]["mean"]
            assert found["above_mode"]["mean"] == pytest.approx(gain, abs=1e-5)
        best = max(sample["attacks"][name]["classes"]["many"]["mean"] for name in MATCHING)
        strongest = sample["strongest"]["many"]
        assert sample["attacks"][strongest]["classes"]["many"]["mean"] == best


def test_the_page_is_whole_and_opens_offline(made, content):
    text = (made[0] / "audit.html").read_text()
    page = Page(text)
    assert not page.open
    assert not page.scripts
    assert {"summary", "tokens", "classes", "fields", "method"} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert page.figures == [
        "Cells recovered, sample same", "Cells recovered, sample shifted", "Cells recovered by field"
    ]  # fmt: skip
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert all(link[1:] in page.ids for link in page.links)
    for title in TITLES.values():
        assert title.split(":")[0] in text
    assert "A tiny &lt;table&gt;" in text
    assert "Fewer than five cuts" in text
    assert f"{content['tokens']['samples'][2]['attacks']['joint']['cells']['mean']:.1%}" in text
    assert render(content) == render(content)


def test_no_value_is_in_any_file(made):
    for name in ("audit.html", "audit.json", "cuts.json"):
        assert SECRET not in (made[0] / name).read_text()


def test_a_second_run_takes_kept_results_and_a_fresh_one_finds_the_same(made, content):
    folder, _, words = made
    before = (folder / "cuts.json").stat().st_mtime_ns
    assert run(words).exit_code == 0
    assert (folder / "cuts.json").stat().st_mtime_ns == before
    assert run([*words, "--fresh"]).exit_code == 0
    assert (folder / "cuts.json").stat().st_mtime_ns > before
    again = json.loads((folder / "audit.json").read_text())
    assert {**again, "made": ""} == {**content, "made": ""}


def test_one_kind_of_sample_may_be_asked_for(made, tmp_path):
    words = [
        *made[2][:4],
        "--out",
        tmp_path,
        "--cuts",
        1,
        "--auxiliary",
        "shifted",
        "--only",
        "tokens",
    ]
    assert run(words).exit_code == 0
    found = json.loads((tmp_path / "audit.json").read_text())
    assert {sample["kind"] for sample in found["tokens"]["samples"]} == {"shifted"}
    assert "Sample shifted" in (tmp_path / "audit.html").read_text()


def test_an_interrupted_audit_goes_on(made, content, tmp_path):
    schema = load_schema(str(made[2][3]))
    source = find_table(schema, made[2][1])
    request = command.Request(
        schema, tmp_path, cuts=3, command=content["command"], only=("tokens",)
    )

    def stop(done, _total, _figures):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        command.audit(request, source, stop)
    kept = json.loads((tmp_path / command.RESULTS_FILE).read_text())["parts"]["tokens"]["results"]
    assert len(kept) == 4
    found = command.audit(request, source)
    assert {**found, "made": ""} == {**content, "made": ""}


def test_the_embedded_sample_is_said_to_be_synthetic(content):
    content["source"]["synthetic"] = True
    assert "SYNTHETIC DATA" in command.report.warnings(content)[0]


def test_recovery_of_a_perfect_guess_is_whole():
    cut = Cut.of(tiny_table(), 0, 0)
    perfect = []
    for tokens, levels in zip(cut.table.tokens.T, cut.truth.T, strict=True):
        named = np.zeros(tokens.max() + 1, np.int32)
        named[tokens] = levels
        perfect.append(named)
    none = np.empty(0, np.intp)
    assert recovered(perfect, cut.table, cut.truth, apart=none) == [1.0, 1.0]
