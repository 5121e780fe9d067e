"""The command line: help, exit codes, JSON, and one line for each error."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from cipherscore import cli
from cipherscore.client.encryption import FieldCipher
from cipherscore.client.keys import KEYSET_VARIABLE, PASSPHRASE_VARIABLE, Keyset
from cipherscore.client.records import RecordCodec
from cipherscore.dataset import TRAIN, read_tokens
from cipherscore.errors import (
    CipherScoreError,
    ConfigurationError,
    DeviceError,
    KeysetError,
    RegistryError,
    SchemaError,
    ServiceError,
    TrainingError,
)
from cipherscore.rekeymap import RekeyMap
from cipherscore.schema import Source
from cipherscore.schema_file import format_schema, load_schema
from tests.conftest import CHEAP_KDF
from tests.support.real_data import german_credit

PASSPHRASE = "correct horse battery"
FRAMEWORKS = ("torch", "tensorflow", "keras", "bentoml", "onnxruntime", "onnx", "numpy", "pyarrow",
              "grpc", "cryptography")  # fmt: skip


def commands(group=None, prefix=()):
    """Yield the words of every command and group."""
    group = group or typer.main.get_command(cli.app)
    yield prefix
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*prefix, name))


ALL = list(commands())


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch, keyset):
    """A project folder with a keyset, cheap to open, and no other source of data or secrets."""
    folder = tmp_path / "home"
    for name in ("CIPHERSCORE_DATA", KEYSET_VARIABLE, "BENTOML_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CIPHERSCORE_HOME", str(folder))
    monkeypatch.setenv(PASSPHRASE_VARIABLE, PASSPHRASE)
    keyset.save(folder / "owner/keyset.json", PASSPHRASE, CHEAP_KDF)
    monkeypatch.setattr(Keyset.save, "__defaults__", (CHEAP_KDF,))
    return folder


@pytest.fixture
def run(monkeypatch, capfd):
    """Run a command line in this process; returns exit code, stdout and stderr."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["cipherscore", *map(str, words)])
        # Rich keeps the streams of the moment it was made; the test's are others.
        for console, stream in (("out", sys.stdout), ("err", sys.stderr)):
            monkeypatch.setattr(getattr(cli.common, console), "_file", stream)
        capfd.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def encrypted(run, sample_path, home):
    assert run("encrypt", "--schema", "german-credit", "--data", sample_path)[0] == 0
    return home


def refused(result, code, *parts):
    """Check that a command failed with ``code`` and one line on stderr that has ``parts``."""
    assert result[0] == code, result
    lines = [line for line in result[2].splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result
    assert result[2].splitlines()[-1] == lines[0]
    assert "Traceback" not in result[2]
    assert len(lines[0]) < 700
    for part in parts:
        assert part in lines[0]


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={**os.environ, **environment}, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_has_help(words):
    result = CliRunner().invoke(cli.app, [*words, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "Usage:" in result.output
    assert len(result.output.split()) > 15


def test_the_commands_are_the_promised_ones():
    promised = """keys create|keys inspect|keys rotate|data|schema infer|schema check|encrypt|decrypt|
    train classifier|train generator|export|models list|models show|models promote|models rollback|
    models unstage|models history|models verify|models remove|models rekey|serve|gateway|score|
    generate|run"""
    assert {tuple(words.split()) for words in promised.split("|")} <= set(ALL)


def test_help_imports_no_framework():
    code = (
        "import sys\nfrom typer.testing import CliRunner\nimport cipherscore.cli as cli\n"
        f"for words in {ALL!r}:\n    assert not CliRunner().invoke(cli.app, [*words, '--help']).exit_code\n"
        f"print([name for name in {FRAMEWORKS!r} if name in sys.modules])"
    )
    result = python(code)
    assert result.stdout.strip() == "[]", result.stderr


def test_completion_script(monkeypatch):
    result = subprocess.run(
        [sys.executable, "-m", "cipherscore", "--show-completion", "bash"], capture_output=True,
        text=True, check=False, env={**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "complete" in result.stdout


def test_no_arguments_teach(run):
    for words in ((), ("keys",), ("models",)):
        code, out, err = run(*words)
        assert code in (0, 2)
        assert "Usage:" in out + err


@pytest.mark.parametrize(
    "words",
    [("nosuch",), ("keys", "nosuch"), ("encrypt", "--nosuch"), ("encrypt", "--seed", "x"),
     ("encrypt", "--seed", "-1"), ("generate", "-n", "0"), ("generate", "--credit", "ugly"),
     ("serve", "--device", "tpu"), ("decrypt",), ("export", "other")],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage_is_2(run, words):
    code, out, err = run(*words)
    assert code == 2
    assert out == ""
    assert "Usage:" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "error",
    [ConfigurationError, SchemaError, KeysetError, TrainingError, RegistryError, DeviceError,
     ServiceError, CipherScoreError],
)  # fmt: skip
def test_exit_code_of_each_kind(run, monkeypatch, error):
    def fail(_):
        raise error("said [bold]clearly[/bold] :smile:")

    monkeypatch.setattr("cipherscore.schema_file.load_schema", fail)
    refused(run("schema", "check"), error.exit_code, "said [bold]clearly[/bold] :smile:")
    codes = [
        ConfigurationError,
        SchemaError,
        KeysetError,
        TrainingError,
        RegistryError,
        DeviceError,
        ServiceError,
    ]
    assert [kind.exit_code for kind in codes] == [2, 3, 4, 5, 6, 7, 8]


def test_other_failures(run, monkeypatch):
    def fail_with(error):
        def fail(_):
            raise error

        monkeypatch.setattr("cipherscore.schema_file.load_schema", fail)

    fail_with(OSError(28, "No space left on device", "x.toml"))
    refused(run("schema", "check"), 1, "x.toml: No space left on device")
    fail_with(ModuleNotFoundError("No module named 'pyarrow'", name="pyarrow.parquet"))
    refused(run("schema", "check"), 2, "pip install 'cipherscore[tables]'")
    fail_with(KeyboardInterrupt())
    code, out, err = run("schema", "check")
    assert code == 130
    assert "Traceback" not in out + err


def test_keys(run, home, tmp_path):
    code, out, _ = run("keys", "inspect", "--json")
    facts = json.loads(out)
    assert (code, facts["key_ids"]) == (0, [facts["primary"]])
    assert facts["primary"] in run("keys", "inspect")[1]
    refused(run("keys", "create"), 4, "exists", "--force")
    other, secret = tmp_path / "k.json", tmp_path / "secret"
    assert run("keys", "create", "--keyset", other, "--write-passphrase", secret)[0] == 0
    assert {path.stat().st_mode & 0o777 for path in (other, secret)} == {0o600}
    assert (
        Keyset.load(other, secret.read_text().strip()).primary
        in run("keys", "inspect", "--keyset", other)[1]
    )
    refused(
        run("keys", "create", "--keyset", tmp_path / "l", "--write-passphrase", secret), 4, "exists"
    )
    (tmp_path / "short").write_text("short\n")
    refused(
        run("keys", "create", "--keyset", tmp_path / "l", "--passphrase-file", tmp_path / "short"),
        4,
        "12",
    )
    assert not (tmp_path / "l").exists()
    refused(run("keys", "inspect", "--keyset", tmp_path / "none"), 4, "No such file")


def test_rotation(run, encrypted, keyset):
    code, out, err = run("keys", "rotate")
    assert code == 0
    after = Keyset.load(encrypted / "owner/keyset.json", PASSPHRASE)
    assert after.primary in out
    assert "models rekey" in err
    assert after.key_ids == (keyset.primary, after.primary)
    (path,) = (encrypted / "owner").glob("rekey-*.json")
    renamed = RekeyMap.read(path)
    assert (renamed.from_key, renamed.to_key) == (keyset.primary, after.primary)
    assert set(read_tokens(encrypted / "host/tokens.parquet").columns["age"].dictionary) <= set(
        renamed.fields["age"]
    )


def test_smoothing_from_schema_to_rotation(run, home, sample_path, tmp_path, keyset):
    """Encrypt with draws, decrypt, check and rotate: the map knows every token of the table."""
    text = format_schema(load_schema("german-credit"))
    smoothed = tmp_path / "smoothed.toml"
    head, fields = text.split("[source]", 1)
    smoothed.write_text(f"{head}[smoothing]\nmost_share = 0.1\n\n[source]{fields}")
    words = ("encrypt", "--schema", smoothed, "--data", sample_path)
    refused(run("encrypt", "--data", sample_path, "--draws", "2"), 2, "no field with smoothing")
    assert run(*words, "--draws", "0")[0] == 2
    code, out, _ = run(*words, "--draws", "3", "--json")
    facts = json.loads(out)
    table = read_tokens(home / "host/tokens.parquet")
    assert (code, facts["rows"], facts["draws"]) == (0, table.rows, 3)
    assert table.rows == 1000 + 2 * (table.split == TRAIN).sum() // 3
    assert run("decrypt", home / "host/tokens.parquet", "--out", tmp_path / "levels.csv")[0] == 0
    assert len((tmp_path / "levels.csv").read_text().splitlines()) == table.rows + 1
    facts = json.loads(run("schema", "check", home / "owner/schema.toml", "--json")[1])
    width = sum(len(column.dictionary) for column in table.columns.values())
    assert sum(f["tokens"] for f in facts["fields"]) >= width > 150
    assert json.loads(run("schema", "check", smoothed, "--json")[1])["fields"][0]["tokens"] is None
    assert run("keys", "rotate")[0] == 0
    (path,) = (home / "owner").glob("rekey-*.json")
    renamed = RekeyMap.read(path)
    after = table.build_vocabulary().translate(renamed.to_key, renamed.fields)
    rotated = Keyset.load(home / "owner/keyset.json", PASSPHRASE)
    fitted = load_schema(home / "owner/schema.toml")
    old, new = (FieldCipher(keys, fitted) for keys in (keyset, rotated))
    for name, tokens in table.build_vocabulary().tokens.items():
        for token, renewed in zip(tokens, after.tokens[name], strict=True):
            assert renewed[1:5] == bytes.fromhex(rotated.primary)
            assert old.decrypt(name, token) == new.decrypt(name, renewed)
    # The client under the new key draws no token that the renamed model lacks.
    codec = RecordCodec(new)
    for record in csv.DictReader(sample_path.open(encoding="utf-8", newline="")):
        known = (t in after.index[n] for n, t in codec.encode(record).items())
        assert all(known)


def test_data(run, sample_path, tmp_path):
    code, out, _ = run("data", "--data", sample_path, "--json", "--out", tmp_path / "copy.csv")
    facts = json.loads(out)
    assert code == 0
    assert (facts["origin"], facts["synthetic"]) == ("file", False)
    assert len((tmp_path / "copy.csv").read_text().splitlines()) == facts["rows"] + 1
    assert f"{facts['rows']} rows" in run("data", "--data", tmp_path / "copy.csv")[1]
    refused(run("data", "--data", tmp_path / "none.csv"), 2, "no such file")
    (tmp_path / "bad.csv").write_text(
        (tmp_path / "copy.csv").read_text().replace("A152", "A159", 1)
    )
    refused(
        run("data", "--data", tmp_path / "bad.csv"),
        3,
        "field 'housing': 'A159'",
        "A151, A152, A153",
    )
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    refused(run("data", "--data", tmp_path / "bad.parquet"), 3, "cannot be read as Parquet")


def test_real_data(run):
    code, out, err = run("data", "--data", german_credit(), "--json")
    assert (code, json.loads(out)["rows"], err.split()) == (0, 1000, ["check", "1000"])


def test_sample_is_announced_loudly(run, monkeypatch):
    described = load_schema("german-credit")
    offline = replace(described, source=Source(sample=described.source.sample))
    monkeypatch.setattr("cipherscore.schema_file.load_schema", lambda _: offline)
    code, out, err = run("data", "--json")
    assert code == 0
    assert json.loads(out)["synthetic"] is True
    assert "SYNTHETIC" in err


def test_schema_commands(run, tmp_path, sample_path):
    code, out, _ = run("schema", "check", "--json", "--data", sample_path)
    facts = json.loads(out)
    assert code == 0
    assert (facts["name"], facts["fitted"], len(facts["fields"])) == ("german-credit", False, 20)
    assert facts["rows"] > 0
    assert "is valid" in run("schema", "check", "german-credit-capstone")[1]
    made = tmp_path / "own.toml"
    code, out, err = run(
        "schema", "infer", sample_path, "--target", "classification", "--out", made
    )
    assert code == 0
    assert "rarer" in err
    assert run("schema", "check", made, "--data", sample_path)[0] == 0
    refused(
        run("schema", "infer", sample_path, "--target", "classification", "--out", made),
        2,
        "--force",
    )
    assert (
        run("schema", "infer", sample_path, "--target", "classification", "--out", made, "--force")[
            0
        ]
        == 0
    )
    refused(
        run("schema", "infer", sample_path, "--target", "nosuch", "--out", tmp_path / "n"),
        3,
        "nosuch",
    )
    refused(run("schema", "check", "nosuch"), 3, "german-credit, german-credit-capstone")
    made.write_text("format = 9")
    refused(run("schema", "check", made), 3, "format = 9")


def test_encrypt_and_decrypt(run, home, sample_path, tmp_path, keyset):
    code, out, _ = run("encrypt", "--data", sample_path, "--seed", "5", "--json")
    facts = json.loads(out)
    assert code == 0
    assert (facts["fields"], facts["key_id"], facts["origin"]) == (20, keyset.primary, "file")
    found = read_tokens(home / "host/tokens.parquet")
    assert (found.rows, found.seed) == (facts["rows"], 5)
    assert load_schema(home / "owner/schema.toml").digest == found.schema.digest
    code, out, _ = run("decrypt", home / "host/tokens.parquet", "--out", tmp_path / "plain.csv")
    assert code == 0
    assert f"{found.rows} rows" in out
    assert (tmp_path / "plain.csv").stat().st_mode & 0o777 == 0o600
    fresh = tmp_path / "fresh.csv"
    fresh.write_text(
        "\n".join(line.rpartition(",")[0] for line in sample_path.read_text().splitlines()) + "\n"
    )
    code, out, _ = run(
        "encrypt",
        "--unlabelled",
        "--schema",
        home / "owner/schema.toml",
        "--data",
        fresh,
        "--out",
        tmp_path / "u",
    )
    assert code == 0
    assert len(read_tokens(tmp_path / "u").label) == 0


def test_refusals_of_encrypt_and_decrypt(run, encrypted, sample_path, tmp_path, monkeypatch):
    tokens, out = encrypted / "host/tokens.parquet", tmp_path / "plain.csv"
    refused(run("decrypt", tmp_path / "none", "--out", out), 3, "no such file")
    (tmp_path / "cut").write_bytes(tokens.read_bytes()[:-50])
    refused(run("decrypt", tmp_path / "cut", "--out", out), 3, "not a Parquet file")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "foreign")
    refused(run("decrypt", tmp_path / "foreign", "--out", out), 3, "not an encrypted table")
    refused(
        run("decrypt", tokens, "--out", out, "--schema", "german-credit-capstone"),
        3,
        "fitted schema",
    )
    Keyset.create().save(tmp_path / "other.json", PASSPHRASE, CHEAP_KDF)
    refused(
        run("decrypt", tokens, "--out", out, "--keyset", tmp_path / "other.json"), 4, "has no key"
    )
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "wrong passphrase")
    refused(run("encrypt", "--data", sample_path), 4, "wrong passphrase")
    assert not out.exists()
    monkeypatch.delenv(PASSPHRASE_VARIABLE)
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        refused(run("encrypt", "--data", sample_path), 4, "--passphrase-file")
    assert read_tokens(tokens).rows > 0


def test_models_of_an_empty_registry(run):
    code, out, _ = run("models", "list", "--json")
    assert (code, json.loads(out)) == (0, [])
    assert "no model yet" in run("models", "list")[1]
    for words in (("show", "german-credit-classifier"), ("promote", "x:1"), ("rollback", "x"),
                  ("verify", "x:1"), ("remove", "x:1"), ("unstage", "x", "--stage", "canary"),
                  ("promote", "x:1", "--stage", "canary", "--percent", "5")):  # fmt: skip
        refused(run("models", *words), 6)


@pytest.mark.parametrize("words", [("train", "classifier"), ("export", "classifier")], ids=" ".join)
def test_training_needs_tokens(run, words):
    refused(run(*words), 3, "no such file; make it with `cipherscore encrypt`")


@pytest.mark.parametrize(
    ("name", "content", "code", "message"),
    [
        ("none.json", None, 2, "no such file"),
        ("none.csv", None, 2, "no such file"),
        ("a.json", "{", 3, "not JSON"),
        ("a.json", "[1]", 3, "each an object"),
        ("a.json", "5", 3, "each an object"),
        ("a.json", "[" * 100_000, 3, "not JSON"),
        ("a.csv", "age,job\n", 3, "no row"),
        ("a.csv", "", 3, "no comma"),
    ],
)
def test_score_reads_its_records_first(run, encrypted, tmp_path, name, content, code, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    refused(run("score", tmp_path / name), code, message)


def test_score_without_a_host(run, encrypted, tmp_path, sample_records):
    (tmp_path / "a.json").write_text(json.dumps(sample_records[0]))
    refused(run("score", tmp_path / "a.json", "--address", "no port"), 2)


def test_draws_need_homophones_and_a_host(run, encrypted, tmp_path, sample_records):
    (tmp_path / "a.json").write_text(json.dumps(sample_records[0]))
    several = ("--draws", 4)
    refused(run("score", tmp_path / "a.json", *several), 2, "no level several tokens", "smoothing")
    refused(run("gateway", "--port", 0, *several), 2, "no level several tokens")
    table = encrypted / "host/tokens.parquet"
    refused(run("score", table, "--engine", "local", *several), 2, "--draws", "--engine remote")


@pytest.mark.parametrize(
    "words", [("schema", "check"), ("data", "--schema"), ("score",), ("models", "show")]
)
def test_huge_arguments_give_short_errors(run, encrypted, words):
    code, out, err = run(*words, "x" * 10_000_000)
    assert code in (1, 2, 3, 6)
    assert out == ""
    assert "Traceback" not in err
    assert len(err) < 3000


def test_errors_of_a_real_process_are_one_line(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "cipherscore", "schema", "check", str(tmp_path / "none")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 3
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("error: ")


def test_closed_pipe_is_quiet():
    code = (
        "import sys, cipherscore.cli as c; sys.argv = ['cipherscore', 'schema', 'check']; c.main()"
    )
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        result = subprocess.run(
            [sys.executable, "-c", code],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert "Traceback" not in result.stderr
    assert result.returncode in (1, 141)
