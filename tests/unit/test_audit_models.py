"""The audit of models through the command: its own trainings, and those the owner has."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
import typer
from typer.testing import CliRunner

from attacks.classifier import study as classifier_study
from attacks.classifier.given import GivenClassifier
from attacks.generator import shadows as generator_shadows
from attacks.generator import study as generator_study
from attacks.generator.given import GivenGenerator
from attacks.report import render
from attacks.request import GivenRuns
from attacks.sections import sections
from cipherscore.cli.audit import audit
from cipherscore.client.encrypt import encrypt_table
from cipherscore.client.keys import Keyset
from cipherscore.client.sources import find_table
from cipherscore.dataset import read_tokens
from cipherscore.errors import ConfigurationError
from cipherscore.schema import Binning, Field, Schema, Target
from cipherscore.schema_file import save_schema
from evaluation.store import Store
from tests.support.pages import Page
from tests.support.raw_tables import TINY
from training.classifier import train_classifier
from training.generator import train_generator
from training.generator_presets import DEFAULT as GENERATOR

QUICK = replace(GENERATOR, steps=4, check_every=4, generator_hidden=(8,), critic_hidden=(8,))
SECRET = "Zebedee"


@pytest.fixture(scope="module")
def owner(tmp_path_factory):
    """A folder with a table, its schema, its tokens and a training of each model."""
    folder = tmp_path_factory.mktemp("models")
    random = np.random.default_rng(5)
    label = (random.random(300) < 0.4).astype(int)
    color = np.where(random.random(300) < 0.25 + 0.5 * label, "r", "b").astype(object)
    color[:9] = SECRET
    shape = random.choice(["round", "square", "flat"], 300)
    size = random.normal(50 + 15 * label, 10).round(1)
    table = pa.table({
        "color": color, "shape": shape, "size": size, "y": np.where(label, "bad", "ok")
    })  # fmt: skip
    pacsv.write_csv(table, folder / "table.csv")
    schema = Schema(
        "tiny",
        (
            Field("color", "categorical", categories={"r": "red", "b": "blue", SECRET: ""}),
            Field(
                "shape", "categorical", categories=dict.fromkeys(["round", "square", "flat"], "")
            ),
            Field("size", "numeric", unit="cm", binning=Binning("quantile", 4)),
        ),
        Target("y", good="ok", bad="bad"),
    )
    save_schema(schema, folder / "tiny.toml")
    encrypt_table(
        find_table(schema, folder / "table.csv"), schema, Keyset.create(), folder / "tokens.parquet"
    )
    dataset = read_tokens(folder / "tokens.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.classifier.classifier_preset", lambda _: TINY)
        patch.setattr("training.generator.generator_preset", lambda _: QUICK)
        train_classifier(dataset, folder / "model", preset="default")
        train_generator(dataset, folder / "generator", preset="default")
    return folder


@pytest.fixture(scope="module")
def made(owner):
    """The models' sections through the command line: folder, result, words.

    Each kind of generator is trained once: training takes the most time.
    """
    words = [
        "--data", owner / "table.csv", "--schema", owner / "tiny.toml", "--out", owner / "audit",
        "--only", "classifier,generator", "--cuts", 2, "--shadows", 5, "--generators", 4,
        "--tokens", owner / "tokens.parquet", "--model", owner / "model",
        "--generator", owner / "generator",
    ]  # fmt: skip
    real, drawn = generator_shadows.synthetic_rows, {}

    def once(learned, sizes, preset, epsilon, seed):
        if epsilon not in drawn:
            drawn[epsilon] = real(learned, sizes, preset, epsilon, seed)
        return drawn[epsilon]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generator_shadows, "synthetic_rows", once)
        patch.setattr(classifier_study, "DEFAULT", TINY)
        patch.setattr(generator_study, "DEFAULT", QUICK)
        patch.setattr(generator_shadows, "DRAWN_ROWS", 300)
        patch.setattr("attacks.generator.given.DRAWN_ROWS", 300)
        result = run(words)
        before = (owner / "audit" / "cuts.json").stat().st_mtime_ns
        assert run(words).exit_code == 0
        assert (owner / "audit" / "cuts.json").stat().st_mtime_ns == before
    return owner / "audit", result, words


def run(words):
    app = typer.Typer()
    app.command()(audit)
    return CliRunner().invoke(app, [str(word) for word in [*words, "--json"]])


@pytest.fixture
def content(made):
    return json.loads((made[0] / "audit.json").read_text())


def test_a_section_that_was_not_run_is_absent(made, content):
    assert made[1].exit_code == 0, made[1].output
    assert "tokens" not in content
    page = (made[0] / "audit.html").read_text()
    assert "Not attacked: token tables" in page
    assert json.loads(made[1].stdout).keys() >= {"classifier", "generator"}


def test_the_page_shows_every_attack_and_opens_offline(made, content):
    text = (made[0] / "audit.html").read_text()
    page = Page(text)
    assert not page.open
    assert not page.scripts
    assert len(page.ids) == len(set(page.ids))
    assert {"summary", "classifier", "generator", "method"} <= set(page.ids)
    assert all(link[1:] in page.ids for link in page.links)
    assert page.figures == [
        "Membership in the classifier", "Rows named from answers", "Membership in the generator"
    ]  # fmt: skip
    for section, lists in (
        ("classifier", ("membership_attacks", "forms", "attackers", "settings_told")),
        ("generator", ("attacks",)),
    ):
        for name in lists:
            for entry in content[section][name]:
                assert entry["title"] in text, entry
    assert text.count("The given training") == 2
    assert render(content) == render(content)


def test_figures_are_within_their_intervals(content):
    classifier = content["classifier"]
    groups = [*classifier["membership"].values(), *classifier["given"]["membership"].values()]
    groups += [variant["membership"] for variant in content["generator"]["variants"]]
    for group in groups:
        for attack in group.values():
            for found in attack.values():
                assert 0 <= found["low"] <= found["high"] <= 1
                assert 0 <= found["mean"] <= 1
    assert classifier["inference"]["full"]["query"]["cells"]["mean"] > 0.9
    for shares in classifier["reconstruction"].values():
        for found in shares.values():
            assert found["cells"]["mean"] == pytest.approx(np.mean(found["fields"]), abs=1e-5)
    assert classifier["learned_rows"] == 150
    assert [v["name"] for v in content["generator"]["variants"]] == ["default", "private"]


def test_the_given_trainings_are_attacked_with_their_own_rows(owner, content):
    dataset = read_tokens(owner / "tokens.parquet")
    outside = int((dataset.split == 2).sum())
    given = content["classifier"]["given"]
    assert (given["members"], given["others"], given["shadows"]) == (300 - outside, outside, 5)
    assert given["model"] == "tiny-classifier"
    made = content["generator"]["given"]
    assert made["others"] + made["reference"] == outside
    assert made["privacy"] is None


def test_no_value_and_no_token_is_in_any_file(owner, made):
    tokens = read_tokens(owner / "tokens.parquet").columns["color"].dictionary
    for name in ("audit.html", "audit.json", "cuts.json"):
        text = (made[0] / name).read_text()
        assert SECRET not in text
        assert not any(token.hex() in text for token in tokens)
        assert (made[0] / name).stat().st_mode & 0o777 == 0o600


def test_a_training_of_another_table_is_refused(owner, tmp_path):
    store = Store(tmp_path / "kept.json")
    with pytest.raises(ConfigurationError, match="a generator's training, not a classifier's"):
        GivenClassifier.of(owner / "generator", owner / "tokens.parquet", 4, 0, store)
    schema = find_schema(owner)
    other = tmp_path / "other.parquet"
    encrypt_table(find_table(schema, owner / "table.csv"), schema, Keyset.create(), other)
    with pytest.raises(ConfigurationError, match="not trained on"):
        GivenGenerator.of(owner / "generator", other, 0, store)


def find_schema(owner):
    from cipherscore.schema_file import load_schema

    return load_schema(str(owner / "tiny.toml"))


def test_trainings_need_their_table_and_a_table_its_trainings(owner):
    assert GivenRuns.of(None, None, None) is None
    with pytest.raises(ConfigurationError, match="need --tokens"):
        GivenRuns.of(None, owner, None)
    with pytest.raises(ConfigurationError, match="give --model or --generator"):
        GivenRuns.of(owner, None, None)


def test_only_known_sections_run():
    names = ["tokens", "requests", "classifier", "generator"]
    assert [section.name for section in sections()] == names
    assert [section.name for section in sections(["generator", "tokens"])] == [
        "tokens", "generator"
    ]  # fmt: skip
    with pytest.raises(ConfigurationError, match="no section 'weights'; there are: tokens"):
        sections(["weights"])
    with pytest.raises(ConfigurationError, match="no section to run"):
        sections([])


def test_too_few_shadows_are_refused(made):
    words = [*made[2][:6], "--only", "classifier", "--shadows", 3]
    assert "Invalid value for '--shadows'" in run(words).output
