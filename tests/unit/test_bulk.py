"""Bulk scoring: the same answers as one run over the whole table, resumed where it was ended."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from cipherscore.dataset import arrow_schema, read_tokens
from cipherscore.errors import ConfigurationError, DataError, UnknownToken, WrongKey
from serving.bulk import engines, parts
from serving.bulk.engines import run_local
from serving.bulk.job import JOB_FILE, Job
from serving.models import load
from serving.providers import first_choice
from tests.support.bulk import KilledOnce, write_table
from tests.support.models import OTHER_KEY_ID, TinyModels, tiny_models

ROWS, GROUP, PART = 1000, 70, 200


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> TinyModels:
    return tiny_models(tmp_path_factory.mktemp("registry"))


@pytest.fixture
def job(models, tmp_path, monkeypatch) -> Job:
    monkeypatch.setenv("BENTOML_HOME", str(models.home))
    table = write_table(tmp_path / "tokens.parquet", ROWS, group=GROUP)
    return Job.of(table, models.classifier.tag, "fp32", PART)


def answers(out: Path) -> np.ndarray:
    files = sorted(out.glob("part-*.parquet"))
    return np.concatenate([pq.read_table(f).column("probability").to_numpy() for f in files])


def expected(job: Job, models: TinyModels) -> np.ndarray:
    model = load(models.classifier, first_choice("cpu"), 1)
    return model.run({"indices": read_tokens(job.path).indices(model.vocabulary)})


def run(job: Job, out: Path) -> int:
    rows: list[int] = []
    run_local(job, out, job.begin(out), "cpu", rows.append)
    return sum(rows)


def test_parts_cover_the_table_once(job):
    found = job.parts()
    assert sum(part.rows for part in found) == ROWS
    assert [p.first_group for p in found[1:]] == [p.last_group + 1 for p in found[:-1]]
    assert all(part.rows >= PART for part in found[:-1])
    assert len(found) > 3


def test_answers_are_those_of_one_run(job, models, tmp_path):
    out = tmp_path / "out"
    assert run(job, out) == ROWS
    np.testing.assert_allclose(answers(out), expected(job, models), atol=1e-6)
    bad = np.concatenate(
        [pq.read_table(f).column("bad").to_numpy() for f in sorted(out.glob("part-*"))]
    )
    threshold = models.classifier.record.threshold
    assert (bad == (answers(out).astype(np.float64) >= threshold)).all()


def test_a_killed_job_goes_on_with_what_is_missing(job, models, tmp_path, monkeypatch):
    out = tmp_path / "out"
    score, done = parts.PartScorer.score, []

    def killed(self, part):
        if len(done) == 2:
            (out / ".part-000002.parquet.x.tmp").write_bytes(b"half")
            raise KeyboardInterrupt
        done.append(part.number)
        return score(self, part)

    monkeypatch.setattr(parts.PartScorer, "score", killed)
    with pytest.raises(KeyboardInterrupt):
        run(job, out)
    monkeypatch.setattr(parts.PartScorer, "score", score)
    before = {f: f.stat().st_mtime_ns for f in out.glob("part-*")}
    assert len(before) == 2
    assert run(job, out) == ROWS - sum(p.rows for p in job.parts()[:2])
    assert {f: f.stat().st_mtime_ns for f in before} == before
    assert not list(out.glob(".part-*"))
    np.testing.assert_allclose(answers(out), expected(job, models), atol=1e-6)
    assert run(job, out) == 0


def test_a_folder_of_another_job_is_refused(job, tmp_path):
    out = tmp_path / "out"
    job.begin(out)
    other = Job(job.table, job.fingerprint, job.model, "int8", job.part_rows)
    with pytest.raises(ConfigurationError, match="another table, model or precision"):
        other.begin(out)
    (out / JOB_FILE).write_text(json.dumps({"format": "x"}))
    with pytest.raises(ConfigurationError, match="another"):
        job.begin(out)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "letter.txt").touch()
    with pytest.raises(ConfigurationError, match="not empty"):
        job.begin(foreign)


def test_a_refused_token_names_its_field_and_leaves_no_part(job, tmp_path):
    table = write_table(tmp_path / "odd.parquet", ROWS, group=GROUP, foreign_row=450)
    odd = Job.of(table, job.model, "fp32", PART)
    out = tmp_path / "out"
    with pytest.raises(UnknownToken) as caught:
        run(odd, out)
    assert (caught.value.field, caught.value.row) == ("alpha", 450)
    assert not list(out.glob(".part-*"))
    assert 0 < len(list(out.glob("part-*"))) < len(odd.parts())


def test_a_table_of_another_key_or_a_replaced_one_is_refused(job, tmp_path):
    table = write_table(tmp_path / "key.parquet", 10, group=5, key_id=OTHER_KEY_ID)
    with pytest.raises(WrongKey):
        run(Job.of(table, job.model, "fp32", PART), tmp_path / "a")
    missing = job.begin(tmp_path / "b")
    write_table(job.path, ROWS + 1, group=GROUP)
    with pytest.raises(DataError, match="changed"):
        run_local(job, tmp_path / "b", missing, "cpu", lambda _: None)


def test_a_generator_does_not_score(job, models, tmp_path):
    wrong = Job(job.table, job.fingerprint, models.generator.tag, "fp32", PART)
    with pytest.raises(ConfigurationError, match="generator, not a classifier"):
        run(wrong, tmp_path / "out")


def test_a_table_lacking_a_field_is_refused(job, tmp_path):
    table = pq.read_table(job.path)
    schema, key_id, seed = parts.read_header(job.path)
    fewer = [f for f in schema.fields if f.name != "beta"]
    from dataclasses import replace

    described = arrow_schema(replace(schema, fields=tuple(fewer)), key_id, seed, labelled=False)
    target = tmp_path / "fewer.parquet"
    pq.write_table(table.select([f.name for f in fewer]).cast(described), target)
    with pytest.raises(ConfigurationError, match="lacks field 'beta'"):
        run(Job.of(target, job.model, "fp32", PART), tmp_path / "out")


@pytest.mark.slow
def test_ray_gives_the_same_files_although_a_worker_is_killed(job, models, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("CIPHERSCORE_TEST_KILL", str(tmp_path / "killed"))
    monkeypatch.setattr(engines, "RayWorker", KilledOnce)
    out = tmp_path / "out"
    rows: list[int] = []
    engines.run_ray(job, out, job.begin(out), "cpu", rows.append)
    assert sum(rows) == ROWS
    assert (tmp_path / "killed").exists()
    local = tmp_path / "local"
    run(job, local)
    for part in job.parts():
        assert part.file(out).read_bytes() == part.file(local).read_bytes()


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_ray_is_started_twice_at_most(failures):
    told = []

    def init(**_: object) -> None:
        told.append("init")
        if told.count("init") <= failures:
            raise Exception("the current node timed out during startup")  # noqa: TRY002 - as Ray

    ray = SimpleNamespace(init=init, shutdown=lambda: told.append("shutdown"))
    if failures < 2:
        engines._start(ray)
        assert told == ["init", "shutdown"] * failures + ["init"]
    else:
        with pytest.raises(ConfigurationError, match="timed out"):
            engines._start(ray)
        assert told == ["init", "shutdown"] * 2
