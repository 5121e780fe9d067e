"""The frontier's benchmark: what each protection shows, what the attacks get, and its files."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest

from benchmarks.frontier.__main__ import main, markdown, summarise
from benchmarks.frontier.figure import main as draw
from benchmarks.frontier.protections import (
    coarse,
    fields,
    information,
    kept,
    protections,
    scorecards,
    smoothed,
)
from benchmarks.frontier.recovery import KNOWING, MODE, READING, attacked
from cipherscore.client.scorecards import attribute_levels
from cipherscore.schema import Binning, Field, Schema, Target
from cipherscore.schema_file import save_schema
from evaluation.folds import RawData

LETTERS = "abcde"


def schema():
    return Schema(
        "made",
        (
            Field("strong", "categorical", categories=dict.fromkeys(LETTERS, "")),
            Field("size", "numeric", binning=Binning("quantile", 6)),
            Field("noise", "categorical", categories=dict.fromkeys(LETTERS, "")),
        ),
        Target("y", good="ok", bad="bad"),
    )


def table(rows=400, seed=0):
    """One field tells much, one a little, one nothing; each has a frequency of its own."""
    generator = np.random.default_rng(seed)
    label = (generator.random(rows) < 0.4).astype(np.int8)
    strong = np.where(label == 1, generator.choice(5, rows, p=[0.1, 0.1, 0.1, 0.2, 0.5]),
                      generator.choice(5, rows, p=[0.5, 0.25, 0.15, 0.05, 0.05]))  # fmt: skip
    noise = generator.choice(5, rows, p=[0.5, 0.25, 0.13, 0.08, 0.04])
    size = generator.normal(10 + label, 2).round(2)
    letters = np.array(list(LETTERS))
    content = {"strong": letters[strong], "size": size, "noise": letters[noise],
               "y": np.where(label == 1, "bad", "ok")}  # fmt: skip
    return pa.table(content), label


@pytest.fixture(scope="module")
def raw():
    content, label = table()
    return RawData(schema(), content, label)


@pytest.fixture(scope="module")
def by_name():
    return {protection.name: protection for protection in protections(3)}


ROWS = np.arange(200)


def test_views_show_what_they_say(raw):
    assert fields(raw, ROWS).schema.fitted
    few = kept(1)(raw, ROWS)
    assert [f.name for f in few.schema.fields] == ["strong"]
    assert set(few.schema.dropped) == {"size", "noise"}
    cut = coarse(2)(raw, ROWS).schema
    assert [len(f.levels) for f in cut.fields] == [2, 2, 2]
    sums = scorecards(2, 4)(raw, ROWS)
    assert [f.name for f in sums.schema.fields] == ["scorecard_1", "scorecard_2"]
    assert all(len(f.levels) <= 4 for f in sums.schema.fields)
    assert all(f.smoothing is not None for f in smoothed(0.1)(raw, ROWS).schema.fields)


def test_information_is_of_the_rows_it_is_asked_about(raw):
    gains = information(fields(raw, ROWS), ROWS)
    assert gains[0] > 5 * gains[2]
    shuffled = replace(raw, label=np.random.default_rng(1).permutation(raw.label))
    assert max(information(fields(shuffled, ROWS), ROWS)) < gains[0] / 4


def test_names_are_different_and_drawn_as_often_as_asked(by_name):
    assert len(by_name) == len(protections(3))
    assert {p.draws for p in by_name.values()} == {1, 3}


def test_plain_values_are_read_and_known_tokens_hide_nothing(raw, by_name):
    plain = attacked(raw, by_name["plain"], 0, 0)
    assert plain[READING] == 1.0
    siv = attacked(raw, by_name["siv"], 0, 0)
    assert siv[KNOWING] == 1.0
    assert siv[MODE] == plain[MODE] < siv["rank"] < 1.0
    truth = attribute_levels(raw.table, raw.fitted(np.arange(raw.rows)))
    assert plain[MODE] == pytest.approx(
        np.mean([np.bincount(column).max() / raw.rows for column in truth.T]), abs=0.06
    )


def test_one_key_for_all_fields_hides_less(raw, by_name):
    assert attacked(raw, by_name["ecb"], 0, 0)["shared key"] > 0.95


def test_less_is_named_of_fields_that_are_not_shown(raw, by_name):
    siv = attacked(raw, by_name["siv"], 0, 0)
    for name in ("kept-3", "cards-2x8x1", "coarse-2"):
        few = attacked(raw, by_name[name], 0, 0)
        assert few[MODE] == siv[MODE]
        assert max(share for attack, share in few.items()) <= max(siv.values())
    cards = attacked(raw, by_name["cards-1x16x1"], 0, 0)
    assert cards[KNOWING] < 0.75 * siv["joint"]


def test_copies_are_counted_once(raw, by_name):
    drawn = by_name["smooth-0.1-3"]
    found = attacked(raw, drawn, 0, 0)
    assert found[MODE] == attacked(raw, by_name["siv"], 0, 0)[MODE]
    assert found[KNOWING] == 1.0
    assert "joint" not in found


def test_the_strongest_attack_counts_and_the_knowing_one_stands_beside_it():
    cost = {"auc": 0.8, "tokens": 10, "row_bytes": 40.0, "row_seconds": 1e-5,
            "training_seconds": 1.0}  # fmt: skip
    plain = {"title": "none", "recovery": {"mode": [0.5, 0.5], "reading": [1.0, 1.0]},
             "costs": [cost, cost]}  # fmt: skip
    few = {
        "title": "few",
        "recovery": {"mode": [0.5, 0.5], "rank": [0.6, 0.6], "joint": [0.5, 0.65],
                     "meaning known": [0.7, 0.7]},
        "costs": [{**cost, "auc": 0.79}] * 2,
    }  # fmt: skip
    summary = summarise({"plain": plain, "few": few}, 0)
    assert summary["few"]["strongest"] == "rank"
    assert summary["few"]["cells"]["mean"] == pytest.approx(0.6)
    assert summary["few"]["above_mode"]["mean"] == pytest.approx(0.1)
    assert summary["few"]["knowing"]["mean"] == pytest.approx(0.7)
    assert summary["few"]["auc_loss"]["mean"] == pytest.approx(0.01)
    text = markdown(summary, "Title")
    assert "| few | 0.7900 | 0.0100 [0.0100, 0.0100] | rank | 60.0 [60.0, 60.0] |" in text


def test_the_command_writes_its_files_and_goes_on_from_them(tmp_path, capsys):
    content, _ = table(200)
    pacsv.write_csv(content, tmp_path / "table.csv")
    save_schema(schema(), tmp_path / "made.toml")
    words = ["--data", tmp_path / "table.csv", "--schema", tmp_path / "made.toml", "--out",
             tmp_path / "out", "--cuts", 1, "--folds", 4, "--take", 1, "--only", "cards-2x8x1"]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    first = (tmp_path / "out" / "frontier.json").read_bytes()
    found = json.loads(first)
    assert set(found["results"]) == {"plain", "cards-2x8x1"}
    assert found["summary"]["cards-2x8x1"]["tokens"] <= 16
    assert "2 scorecards of 8 bins" in capsys.readouterr().out
    assert main([str(word) for word in words]) == 0
    assert (tmp_path / "out" / "frontier.json").read_bytes() == first
    results = str(tmp_path / "out" / "frontier.json")
    assert (
        draw([results, results, "--title", "A", "--title", "B", "--out", str(tmp_path / "f.svg")])
        == 0
    )
    text = (tmp_path / "f.svg").read_text()
    assert text.count("AUC lost") == 2
    assert "<metadata>" not in text
