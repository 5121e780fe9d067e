"""A table nobody has described, from its file to served answers, each step a process of its own."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from cipherscore.schema import Schema
from cipherscore.schema_file import load_schema
from tests.support.main_job import MainJob
from tests.support.server import Server, serving

pytestmark = pytest.mark.slow

HEADER = ["Kunden-Nr.", "Größe (m²)", "opened", "Händler", "état civil", "", "Saldo", "état"]
TARGET = "état"
DEALERS = 300
SECRETS = ("Händler 007", "verwitwet", "Kunden-Nr.")


def applications(rows: int, seed: int) -> Iterator[list[str]]:
    """Yield messy rows: an id, decimal commas, dates, 300 dealers, gaps, an unnamed column."""
    r = random.Random(seed)
    for number in range(rows):
        size = r.uniform(20, 200)
        age = r.randrange(3_000)
        dealer = min(int(r.paretovariate(0.6)), DEALERS) - 1
        risk = 0.004 * age - 0.02 * size + 3 * (dealer % 3 == 0) + r.gauss(0, 1.5)
        yield [
            f"K{10_000 + number}",
            "" if r.random() < 0.1 else f"{size:.1f}".replace(".", ","),
            (date(2024, 6, 1) - timedelta(days=age)).strftime("%d.%m.%Y"),
            f"Händler {dealer:03}",
            r.choice(["ledig", "verheiratet", "verwitwet", "k. A."]),
            r.choice(["ja", "nein"]),
            f"{r.gauss(0, 1):.2f}".replace(".", ","),
            "bad" if risk > 5 else "good",
        ]


def write(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", encoding="latin-1", newline="") as stream:
        writer = csv.writer(stream, delimiter=";")
        writer.writerow(HEADER)
        writer.writerows(rows)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> MainJob:
    """The owner's and the host's files after training and promotion."""
    folder = tmp_path_factory.mktemp("own-table")
    table = folder / "Anträge 2024.csv"
    write(table, list(applications(900, seed=1)))
    job = MainJob(folder / "home", folder)
    secret = ("--passphrase-file", str(job.passphrase_file))
    schema = str(folder / "own.toml")
    job.cli("keys", "create", "--write-passphrase", str(job.passphrase_file))
    said = job.cli("schema", "infer", str(table), "--target", TARGET, "--bad", "bad",
                   "--out", schema).stderr  # fmt: skip
    assert "'Kunden-Nr.' dropped" in said
    job.cli("schema", "check", schema, "--data", str(table))
    job.cli("encrypt", "--schema", schema, "--data", str(table), "--seed", "0", *secret)
    job.cli("train", "classifier", "--seed", "0")
    exported = json.loads(job.cli("export", "classifier", "--json").stdout)
    job.cli("models", "promote", exported["model"])
    return job


@pytest.fixture(scope="module")
def server(home: MainJob) -> Iterator[Server]:
    registry, log = home.home / "host" / "bentoml", home.scratch / "serve.log"
    with serving(registry, log, classifier=f"{fitted(home).name}-classifier") as server:
        yield server


def fitted(home: MainJob) -> Schema:
    return load_schema(home.home / "owner" / "schema.toml")


def score(
    home: MainJob, server: Server, rows: list[list[str]], *options: str
) -> list[dict[str, Any]]:
    path = home.scratch / "new.csv"
    write(path, rows)
    done = home.cli("score", str(path), "--address", server.grpc, "--json", "--passphrase-file",
                    str(home.passphrase_file), *options)  # fmt: skip
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def test_new_rows_are_scored_by_what_matters(home: MainJob, server: Server) -> None:
    rows = list(applications(200, seed=2))
    answers = score(home, server, rows)
    assert len(answers) == len(rows)
    bad = [a["probability"] for a, row in zip(answers, rows, strict=True) if row[-1] == "bad"]
    good = [a["probability"] for a, row in zip(answers, rows, strict=True) if row[-1] == "good"]
    wins = sum((b > g) + 0.5 * (b == g) for b in bad for g in good)
    assert wins / (len(bad) * len(good)) > 0.8


def test_a_category_never_seen_and_missing_cells_are_scored(home: MainJob, server: Server) -> None:
    rows = list(applications(2, seed=3))
    rows[0][3] = "a dealer that opened today"
    rows[1][1] = ""
    answers = score(home, server, rows, "--reasons", "3")
    assert {a["decision"] for a in answers} <= {"good", "bad"}
    assert all(a["reasons"] for a in answers)
    fields = set(fitted(home).by_name)
    assert fields.issuperset(reason["field"] for a in answers for reason in a["reasons"])


def test_a_cell_that_no_training_row_lacked_is_refused_by_name(
    home: MainJob, server: Server
) -> None:
    rows = list(applications(3, seed=5))
    rows[1][2] = ""
    path = home.scratch / "gap.csv"
    write(path, rows)
    done = home.cli("score", str(path), "--address", server.grpc, "--passphrase-file",
                    str(home.passphrase_file), code=3)  # fmt: skip
    assert "record 1, field 'opened': '' is not allowed" in done.stderr
    assert len(score(home, server, rows[:1])) == 1


def test_the_host_has_no_name_and_no_value_of_the_table(home: MainJob, server: Server) -> None:
    score(home, server, list(applications(20, seed=4)))
    files = [p for p in (home.home / "host").rglob("*") if p.is_file()] + [server.log]
    assert len(files) > 5
    for path in files:
        content = path.read_bytes()
        for secret in SECRETS:
            for encoding in ("utf-8", "latin-1"):
                assert secret.encode(encoding) not in content, (path, secret)
