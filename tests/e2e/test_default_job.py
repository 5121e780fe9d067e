"""What ``cipherscore run`` does by default: the host sees sums of points, and never a field."""

import csv
import io
import json
from collections.abc import Iterator

import httpx
import pytest

from cipherscore.client import Client
from cipherscore.dataset import TRAIN, read_tokens
from cipherscore.schema_file import load_schema
from tests.support.main_job import FIRST_LIMIT, SAMPLE, MainJob
from tests.support.processes import PROC

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (PROC / "self" / "maps").exists(), reason="looks into /proc"),
]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MainJob]:
    folder = tmp_path_factory.mktemp("default-job")
    scratch = folder / "scratch"
    scratch.mkdir()
    job = MainJob(folder / "home", scratch, scorecards=True)
    with job.running(FIRST_LIMIT):
        yield job


def test_the_host_has_scorecards_and_no_table_of_fields(job: MainJob) -> None:
    host = job.home / "host"
    tokens = read_tokens(host / "tokens.parquet")
    assert list(tokens.columns) == ["scorecard_1a", "scorecard_1b"]
    assert len(list(host.rglob("*.parquet"))) == 1
    assert not (host / "runs" / "generator").exists()
    fields = read_tokens(job.home / "owner" / "fields.parquet")
    assert list(fields.columns) == [f.name for f in job.schema.inputs]
    # The same rows teach both models.
    assert (fields.split == tokens.split).all()
    assert (fields.split == TRAIN).sum() > 100


def test_applicants_are_scored_as_before(job: MainJob) -> None:
    with SAMPLE.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))[:50]
    with job.client() as client:
        scores = client.score(rows)
        assert set(client.model().fields) == {f.name for f in job.schema.fields}
    assert {score.decision for score in scores} == {"good", "bad"}
    answer = job.predict(rows)
    assert answer.json() == [[{"good": 1, "bad": 2}[score.decision]] for score in scores]


def test_reasons_name_attributes(job: MainJob) -> None:
    applicant = json.loads((job.home / "owner" / "applicant.json").read_text())
    with job.client() as client:
        (score,) = client.score(applicant, reasons=4)
    attributes = {f.name for f in job.schema.inputs}
    assert len(score.reasons) == 4
    assert {reason.field for reason in score.reasons} <= attributes


def test_made_rows_are_read_with_the_fields_schema(job: MainJob) -> None:
    path = job.home / "owner" / "fields.toml"
    schema = load_schema(path)
    with Client(job.keyset, schema, job.address) as client:
        rows = client.generate(20, bad_credit=True, seed=1)
    assert all(row[f.name] in f.levels for row in rows for f in schema.fields)
    printed = job.cli("generate", "-n", "3", "--schema", str(path), *job.owner_options).stdout
    assert len(list(csv.DictReader(io.StringIO(printed)))) == 3
    assert str(path) in job.said


def test_a_second_run_serves_what_is_there(job: MainJob, tmp_path) -> None:  # type: ignore[no-untyped-def]
    other = job.copy(tmp_path)
    other.scorecards = True
    with other.running():
        assert "serving the models in production" in other.said
        health = httpx.get(f"{other.http}/v1/health", timeout=10).json()
        assert health["notices"] == []
