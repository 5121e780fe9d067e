"""The command line on tables of one's own: `schema infer`, `schema check`, `data`, `encrypt`."""

import json
import random

import pytest
from typer.testing import CliRunner

from cipherscore import cli
from cipherscore.client.keys import KEYSET_VARIABLE, PASSPHRASE_VARIABLE
from cipherscore.dataset import read_tokens
from cipherscore.errors import CipherScoreError
from cipherscore.schema_file import load_schema
from tests.conftest import CHEAP_KDF

PASSPHRASE = "correct horse battery"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch, keyset):
    for name in ("CIPHERSCORE_DATA", KEYSET_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CIPHERSCORE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(PASSPHRASE_VARIABLE, PASSPHRASE)
    keyset.save(tmp_path / "home/owner/keyset.json", PASSPHRASE, CHEAP_KDF)
    return tmp_path / "home"


def run(*words):
    """Run a command line; returns its output, or the error's own text."""
    result = CliRunner().invoke(cli.app, list(map(str, words)))
    if isinstance(result.exception, CipherScoreError):
        return str(result.exception)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


@pytest.fixture
def loans(tmp_path):
    """Tabs, no header: id, customer, town, amount with decimal comma, state of the loan, days late."""
    r = random.Random(0)
    path = tmp_path / "Loans 2024.txt"
    path.write_text(
        "".join(
            f"{i}\t{i % 50}\ttown {int(r.paretovariate(0.7)) % 99}\t{r.expovariate(1):.2f}\t".replace(".", ",")
            + f"{r.choice(['paid', 'running', 'late', 'default'])}\t{r.randrange(120)}\n"
            for i in range(400)
        )
    )  # fmt: skip
    return path


def test_from_infer_to_tokens(tmp_path, home, loans):
    made = tmp_path / "own.toml"
    common = ("schema", "infer", loans, "--no-header", "--target", "c5", "--out", made)
    refusal = run(*common)
    for part in ("target 'c5' has 4 values; exactly two", "'late' (", "--bad A,B", "--bad-below"):
        assert part in refusal
    assert not made.exists()
    said = run(
        *common, "--bad", "late,default", "--group", "c2", "--protected", "c3", "--drop", "c6"
    )
    assert "'c1' dropped: a different whole number" in said
    assert "schema 'loans-2024' with 2 fields" in said
    schema = load_schema(made)
    assert schema.by_name["c3"].protected
    assert schema.target.also_bad == ("default",)
    assert "or --force" in run(*common, "--bad", "late")
    assert "# column 'c1' dropped" in made.read_text()
    checked = run("schema", "check", made, "--data", loans)
    assert "up to 128 categories" in checked
    assert "bad 'late', 'default'" in checked
    assert "400 rows fit it" in checked
    said = run("encrypt", "--schema", made, "--data", loans, "--json")
    facts = json.loads(said[said.index("{") : said.rindex("}") + 1])
    assert (facts["rows"], facts["fields"]) == (400, 2)
    tokens = read_tokens(home / "host/tokens.parquet")
    assert (tokens.split.reshape(-1, 50) == tokens.split[:50]).all()
    assert "(other)" in load_schema(home / "owner/schema.toml").by_name["c3"].levels
    written = tmp_path / "out.csv"
    run("data", "--schema", made, "--data", loans, "--out", written)
    assert written.read_text().splitlines()[0] == '"c3","c4","c2","c5"'
    plain = tmp_path / "plain.csv"
    run("decrypt", home / "host/tokens.parquet", "--out", plain)
    assert plain.read_text().splitlines()[0] == '"c3","c4"'


def test_numbers_as_targets(tmp_path, loans):
    made = tmp_path / "own.toml"
    common = ("schema", "infer", loans, "--no-header", "--target", "c6", "--out", made, "--force")
    run(*common, "--bad-above", "90")
    assert "bad 90 or more" in run("schema", "check", made, "--data", loans)
    run(*common, "--bad-below", "30", "--categorical", "c2")
    assert "bad 30 or less" in run("schema", "check", made)
    assert load_schema(made).by_name["c2"].kind == "categorical"
    assert "give one of" in run(*common, "--bad-below", "30", "--bad-above", "90")


def test_suspicious_columns_go_only_when_asked(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(
        "x,recovery_fee,bad\n" + "".join(f"{i % 7},{17 * (i % 3 == 0)},{int(i % 3 == 0)}\n" for i in range(300))
    )  # fmt: skip
    common = ("schema", "infer", path, "--target", "bad", "--force", "--out", tmp_path / "s.toml")
    assert "'recovery_fee' is SUSPICIOUS" in run(*common)
    assert "# column 'recovery_fee' is SUSPICIOUS" in (tmp_path / "s.toml").read_text()
    assert list(load_schema(tmp_path / "s.toml").by_name) == ["x", "recovery_fee"]
    run(*common, "--drop-suspicious")
    assert list(load_schema(tmp_path / "s.toml").by_name) == ["x"]
