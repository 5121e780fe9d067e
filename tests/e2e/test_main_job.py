"""The main job as a user runs it: ``cipherscore run`` once, and everything asked of it afterwards.

Tests that change something do so to a copy of the first job's files.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest

from cipherscore.client import AsyncClient, Score
from cipherscore.dataset import read_tokens
from cipherscore.errors import WrongKey
from cipherscore.tokens import from_text, key_id_of, to_text
from tests.support.hunt import Hunt, levels_of, plaintexts_of, record_forms, secrets_of
from tests.support.main_job import CLASSIFIER, FIRST_LIMIT, GENERATOR, SAMPLE, MainJob
from tests.support.processes import (
    PROC,
    descendants,
    environment_of,
    memory,
    parents,
    wait_for,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (PROC / "self" / "maps").exists(), reason="looks into /proc"),
]
Record = dict[str, Any]

CAPSTONE: Record = {
    "existingchecking": "A11", "duration": 6, "credithistory": "A34", "purpose": "A43",
    "creditamount": 1169, "savings": "A65", "employmentsince": "A75", "installmentrate": 4,
    "statussex": "A93", "otherdebtors": "A101", "residencesince": 4, "property": "A121",
    "age": 67, "otherinstallmentplans": "A143", "housing": "A152", "existingcredits": 2,
    "job": "A173", "peopleliable": 1, "telephone": "A192", "foreignworker": "A201",
}  # fmt: skip
"""The request of the capstone project's own service."""

PLANTED: Record = CAPSTONE | {
    "property": "A124", "duration": 17.734219, "creditamount": 7813.372191, "age": 43.618273,
}  # fmt: skip
"""An applicant whose numbers occur nowhere else."""

SENTINEL = "PLANTED-7d1f-VALUE"


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MainJob]:
    """The first run, from nothing to a served model."""
    folder = tmp_path_factory.mktemp("main-job")
    scratch = folder / "scratch"
    scratch.mkdir()
    with MainJob(folder / "home", scratch).running(FIRST_LIMIT) as job:
        print(f"first run up after {job.seconds:.0f} s")
        yield job


@pytest.fixture(scope="module")
def applicants(job: MainJob) -> list[Record]:
    """Raw records of both decisions, good and bad ones mixed."""
    with SAMPLE.open(encoding="utf-8", newline="") as stream:
        rows: list[Record] = list(csv.DictReader(stream))[:200]
    with job.client() as client:
        decisions = [score.decision for score in client.score(rows)]
    chosen = [CAPSTONE, PLANTED]
    for decision in ("bad", "good"):
        places = [i for i, found in enumerate(decisions) if found == decision]
        assert len(places) >= 4
        chosen += [rows[place] for place in places[:4]]
    return chosen[::2] + chosen[1::2]


@pytest.fixture(scope="module")
def scores(job: MainJob, applicants: list[Record]) -> list[Score]:
    with job.client() as client:
        return client.score(applicants)


def probabilities(scores: list[Score]) -> list[float]:
    return [score.probability for score in scores]


def tokens_of(job: MainJob, records: list[Record]) -> list[dict[str, str]]:
    return [
        {name: to_text(token) for name, token in job.codec.encode(record).items()}
        for record in records
    ]


# ---- what the first run says


def test_the_job_says_what_it_does_and_how_to_use_it(job: MainJob) -> None:
    said = job.said
    for step in ("keys create", "encrypt --schema", "train classifier", "train generator"):
        assert f"$ cipherscore {step}" in said
    for port in job.ports:
        assert str(port) in said
    assert said.count(": production") == 2
    assert "Traceback" not in said
    assert job.passphrase not in said
    # The step that trains sees no raw table, and nothing is left but what is needed.
    assert sorted(path.name for path in (job.home / "host").iterdir()) == [
        "bentoml", "runs", "service.log", "tokens.parquet",
    ]  # fmt: skip
    for secret in (job.keyset_file, job.passphrase_file, job.home / "owner" / "applicant.json"):
        assert secret.stat().st_mode & 0o077 == 0


# ---- scoring


def test_gateway_sdk_and_command_line_answer_alike(
    job: MainJob, applicants: list[Record], scores: list[Score], tmp_path: Path
) -> None:
    answer = job.predict(applicants)
    assert answer.status_code == 200
    assert answer.json() == [[{"good": 1, "bad": 2}[score.decision]] for score in scores]
    assert {score.decision for score in scores} == {"good", "bad"}

    file = tmp_path / "applicants.json"
    file.write_text(json.dumps(applicants))
    printed = json.loads(job.cli("score", str(file), "--json", *job.owner_options).stdout)
    assert [entry["decision"] for entry in printed] == [score.decision for score in scores]
    assert [entry["probability"] for entry in printed] == pytest.approx(
        probabilities(scores), abs=1e-6
    )
    assert {entry["model"] for entry in printed} == {job.production(CLASSIFIER).tag}
    assert job.predict([CAPSTONE]).json() in ([[1]], [[2]])


def test_the_gateway_refuses_a_bad_record_and_goes_on(job: MainJob) -> None:
    for change in ({"purpose": SENTINEL}, {"duration": -1}, {"duration": None}, {"age": "old"}):
        (name,) = change
        answer = job.predict([CAPSTONE, CAPSTONE | change])
        assert answer.status_code == 400
        refusal = answer.json()
        assert (refusal["field"], refusal["record"]) == (name, 1)
        assert "allowed" in refusal["error"]
    lacking = {name: value for name, value in CAPSTONE.items() if name != "housing"}
    for content in ([lacking], [CAPSTONE | {"shoesize": 44}], [], {}, b"{", b"\xff"):
        assert job.predict(content).status_code == 400
    assert job.predict([CAPSTONE]).status_code == 200


def test_every_way_gives_what_the_onnx_model_gives_by_hand(
    job: MainJob, applicants: list[Record], scores: list[Score]
) -> None:
    version = job.production(CLASSIFIER)
    vocabulary, codec = version.vocabulary(), job.codec
    columns = codec.encode_columns(applicants)
    indices = np.array(
        [vocabulary.encode(name, columns[name]) for name in vocabulary.fields], np.int32
    ).T
    session = onnxruntime.InferenceSession(version.onnx_path, providers=["CPUExecutionProvider"])
    (by_hand,) = session.run(["probability"], {"indices": np.ascontiguousarray(indices)})
    assert by_hand.shape == (len(applicants),)

    async def ask() -> list[Score]:
        async with AsyncClient(job.keyset, job.schema, job.address) as client:
            return await client.score(applicants)

    body = {"key_id": codec.key_id, "records": tokens_of(job, applicants)}
    http = job.post("score", body)
    assert http["model"] == version.tag
    found = {
        "sdk": probabilities(scores),
        "async sdk": probabilities(asyncio.run(ask())),
        "http": [result["probability"] for result in http["results"]],
    }
    for way, values in found.items():
        assert values == pytest.approx(by_hand.tolist(), abs=1e-6), way
    threshold = http["threshold"]
    bad = ["bad" if p >= np.float32(threshold) else "good" for p in by_hand]
    assert [score.decision for score in scores] == bad


# ---- synthetic rows


def test_synthetic_rows_decrypt_are_valid_and_repeatable(job: MainJob) -> None:
    count, seed = 500, 20_240_229
    schema, codec = job.schema, job.codec
    with job.client() as client:
        rows = client.generate(count, seed=seed)
        assert client.generate(count, seed=seed) == rows
        assert client.generate(count, seed=seed + 1) != rows
    body = {"key_id": codec.key_id, "count": count, "seed": seed}
    http = job.post("generate", body)
    assert job.post("generate", body) == http

    target, values = schema.target, {"good": schema.target.good, "bad": schema.target.bad}
    decrypted = [
        {**codec.decode({name: from_text(token) for name, token in record.items()}),
         target.name: values[credit_class]}
        for record, credit_class in zip(http["records"], http["credit_classes"], strict=True)
    ]  # fmt: skip
    assert decrypted == rows
    assert len(rows) == count
    for row in rows:
        assert row.keys() == {*schema.by_name, target.name}
        assert all(row[f.name] in f.levels for f in schema.fields)
    assert {row[target.name] for row in rows} == {target.good, target.bad}
    assert len({tuple(row.values()) for row in rows}) > count // 2


def test_the_class_is_respected(job: MainJob) -> None:
    target = job.schema.target
    mean = {}
    for credit, value in (("bad", target.bad), ("good", target.good)):
        with job.client() as client:
            made = client.generate(500, bad_credit=credit == "bad", seed=3)
        assert {row[target.name] for row in made} == {value}
        body = {"key_id": job.codec.key_id, "count": 500, "credit_class": credit, "seed": 3}
        http = job.post("generate", body)
        assert set(http["credit_classes"]) == {credit}
        body = {"key_id": job.codec.key_id, "records": http["records"]}
        results = job.post("score", body)["results"]
        mean[credit] = sum(result["probability"] for result in results) / len(results)
    print(f"mean probability of bad credit: {mean}")
    # The classifier, trained apart from the generator, sees the difference too.
    assert mean["bad"] > mean["good"] + 0.1


def test_the_command_line_prints_csv(job: MainJob) -> None:
    arguments = ("generate", "-n", "7", "--credit", "bad", "--seed", "5", *job.owner_options)
    printed = job.cli(*arguments).stdout
    assert job.cli(*arguments).stdout == printed
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert len(rows) == 7
    assert {row["classification"] for row in rows} == {"2"}


# ---- the wall


def hunt(job: MainJob, records: list[Record]) -> Hunt:
    """Return everything that the host must never hold: keys, passphrase, values, codes, bins."""
    exact = secrets_of(job.keyset_file, job.passphrase, job.schema) | plaintexts_of(job.schema)
    for record in records:
        exact |= record_forms(record)
    return Hunt(exact | {"sentinel": SENTINEL.encode()}, levels_of(job.schema))


def test_the_host_holds_no_key_and_no_plaintext(
    job: MainJob, applicants: list[Record], scores: list[Score]
) -> None:
    # Whatever the host could keep of a request, it has had the chance: values went to the gateway
    # a moment ago, also ones that were refused there.
    for _ in range(20):
        assert job.predict(applicants).status_code == 200
    assert job.predict([CAPSTONE | {"purpose": SENTINEL}]).status_code == 400
    sought = hunt(job, applicants)
    (token,) = job.codec.tokens["property"]["A124"]
    version = job.production(CLASSIFIER)
    seen = Hunt({"token": token, "model": version.tag.encode(), "field": b"existingchecking"})

    for pid in job.host_processes():
        begun, size = time.monotonic(), sum(map(len, memory(pid)))
        assert sought.in_memory(memory(pid)) == Counter(), pid
        assert sought.in_text(environment_of(pid)) == Counter()
        # The same search finds what is there.
        found = seen.in_memory(memory(pid))
        assert found["model"]
        if pid == job.worker():
            assert found["token"]
            assert found["field"]
        print(
            f"{len(sought.exact)} byte strings and {len(levels_of(job.schema))} levels not in "
            f"{size / 1e6:.0f} MB of process {pid} ({time.monotonic() - begun:.1f} s)"
        )


def test_the_search_finds_keys_and_codes_where_they_belong(
    job: MainJob, applicants: list[Record]
) -> None:
    assert job.predict(applicants).status_code == 200
    found = hunt(job, applicants).in_memory(memory(job.gateway_process()))
    keyset = job.keyset
    assert found[f"master key {keyset.primary}, raw"]
    assert sum(name.startswith("key of ") and name.endswith(", raw") for name in found) >= 20
    codes = [code for f in job.schema.fields for code in f.categories]
    assert all(found[f"object {code}"] for code in codes)


def test_the_hosts_files_hold_no_key_and_no_plaintext(
    job: MainJob, applicants: list[Record], scores: list[Score]
) -> None:
    sought = hunt(job, applicants)
    files = [path for path in (job.home / "host").rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"service.log", "tokens.parquet", "model.onnx", "vocabulary.json", "run.json"} <= names
    for path in files:
        assert sought.in_file(path) == Counter(), path
        assert path.name not in {"keyset.json", "passphrase", "schema.toml", "applicant.json"}
    # The same search finds what is there.
    (token,) = job.codec.tokens["property"]["A124"]
    assert Hunt({"token": token}).in_file(job.home / "host" / "tokens.parquet")
    assert sought.in_file(job.home / "owner" / "schema.toml")
    assert sought.in_file(SAMPLE)
    dataset = read_tokens(job.home / "host" / "tokens.parquet")
    for column in dataset.columns.values():
        assert {key_id_of(token) for token in column.dictionary} == {job.codec.key_id}


# ---- when things go wrong


def test_a_second_run_on_the_same_ports_is_refused(job: MainJob) -> None:
    assert job.process is not None
    assert job.process.poll() is None, job.said
    refused = job.cli(*job.run_arguments, code=2)
    assert f"port {job.ports[0]} cannot be used" in refused.stderr
    assert job.predict([CAPSTONE]).status_code == 200


def test_a_killed_worker_comes_back(
    job: MainJob, applicants: list[Record], scores: list[Score]
) -> None:
    killed = job.worker()
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: killed not in parents(), 10, "the worker is gone")
    statuses = set()

    def answers() -> bool:
        # The gateway's client tries again for a while; a caller may see nothing but a slow answer.
        statuses.add(job.predict([CAPSTONE]).status_code)
        return 200 in statuses

    seconds = wait_for(answers, 60, "the gateway answers again")
    assert statuses <= {200, 503}
    assert job.worker() != killed
    print(f"answers again after {seconds:.1f} s")
    wait_for(lambda: httpx.get(f"{job.http}/readyz").status_code == 200, 30, "HTTP answers")
    with job.client() as client:
        assert client.score(applicants) == scores


def test_a_second_run_serves_the_registry_and_ctrl_c_ends_it(
    job: MainJob, applicants: list[Record], scores: list[Score], tmp_path: Path
) -> None:
    other = job.copy(tmp_path)
    passphrase = other.passphrase
    # This user keeps the passphrase in a variable instead of a file.
    other.passphrase_file.rename(tmp_path / "passphrase")
    with other.running(CIPHERSCORE_PASSPHRASE=passphrase):
        print(f"second run up after {other.seconds:.1f} s")
        assert "serving the models in production" in other.said
        assert "train" not in other.said.split("Try, in another terminal")[0].replace(
            "trains anew", ""
        )
        assert "--passphrase-file" not in other.said
        assert other.predict(applicants).json() == job.predict(applicants).json()
        for pid in other.host_processes():
            assert passphrase.encode() not in environment_of(pid)
            assert passphrase.encode() not in b"".join(memory(pid))
        assert passphrase.encode() in environment_of(other.gateway_process())
        other.stop()
    assert not other.passphrase_file.exists()


def test_rotated_keys_give_the_same_scores_and_refuse_the_old_key(
    job: MainJob, applicants: list[Record], scores: list[Score], tmp_path: Path
) -> None:
    other = job.copy(tmp_path)
    old = other.codec.key_id
    other.cli("keys", "rotate", "--passphrase-file", str(other.passphrase_file))
    new = other.keyset.primary
    assert new != old
    (rekey_map,) = (other.home / "owner").glob(f"rekey-{old}-{new}.json")
    for name in (CLASSIFIER, GENERATOR):
        other.cli("models", "rekey", name, "--map", str(rekey_map))
        other.cli("models", "promote", f"{name}:latest")
        assert other.production(name).record.key_id == new
    with other.running():
        answers = other.client().score(applicants)
        assert probabilities(answers) == probabilities(scores)
        assert {score.model for score in answers} == {other.production(CLASSIFIER).tag}
        assert other.predict(applicants).json() == job.predict(applicants).json()
        with job.client() as before, other.client() as after:
            assert after.generate(50, seed=9) == before.generate(50, seed=9)
        with other.client(key_id=old) as client, pytest.raises(WrongKey, match=new):
            client.score(applicants)
        body = {"key_id": old, "records": tokens_of(job, applicants)}
        refused = httpx.post(f"{other.http}/v1/score", json=body)
        assert (refused.status_code, refused.json()["code"]) == (409, "wrong-key")
        assert new in refused.json()["detail"]


def test_a_damaged_production_model_is_replaced_by_the_one_before(
    job: MainJob, applicants: list[Record], scores: list[Score], tmp_path: Path
) -> None:
    other = job.copy(tmp_path)
    first = other.production(CLASSIFIER)
    exported = json.loads(other.cli("export", "classifier", "--json").stdout)
    other.cli("models", "promote", exported["model"])
    damaged = other.production(CLASSIFIER)
    assert damaged.tag == exported["model"] != first.tag
    content = bytearray(damaged.onnx_path.read_bytes())
    content[len(content) // 3] ^= 0x10
    damaged.onnx_path.chmod(0o644)
    damaged.onnx_path.write_bytes(content)

    refused = other.cli("models", "verify", damaged.tag, code=6)
    assert "model.onnx" in refused.stderr
    assert "intact" in other.cli("models", "verify", first.tag).stdout
    with other.running():
        assert damaged.tag in other.said.split("Running.")[0]
        assert other.client().model("classifier").notice
        health = httpx.get(f"{other.http}/v1/health").json()
        assert health["models"]["classifier"] == first.tag
        assert damaged.tag in health["notices"][0]
        with other.client() as client:
            assert client.score(applicants) == scores
    assert f"refused {damaged.tag}" in (other.home / "host" / "service.log").read_text()


_CLASSIFIER_WITH_MANY_CHECKPOINTS = """
import sys
from training import fitting
fitting.CHECKPOINT_SECONDS = 0.0
from cipherscore.cli import main
main()
"""


def test_a_killed_training_goes_on_to_the_same_model(
    job: MainJob, applicants: list[Record], tmp_path: Path
) -> None:
    """The first job's training, never interrupted, is what the result must equal."""
    tokens, folder = job.home / "host" / "tokens.parquet", tmp_path / "run"
    arguments = ["train", "classifier", "--tokens", str(tokens), "--out", str(folder)]
    child = subprocess.Popen(
        [sys.executable, "-c", _CLASSIFIER_WITH_MANY_CHECKPOINTS, *arguments],
        env=job.environment(),
        stderr=subprocess.PIPE,
    )
    wait_for((folder / "checkpoint.pt").exists, 120, "a checkpoint")
    child.send_signal(signal.SIGSTOP)
    # The trainer is the host's: nothing to find here either.
    assert hunt(job, applicants).in_memory(memory(child.pid)) == Counter()
    child.kill()
    assert child.wait() == -signal.SIGKILL
    assert not (folder / "run.json").exists()

    done = job.cli(*arguments, "--json")
    progress = [line for line in done.stderr.splitlines() if line.startswith("train classifier")]
    assert not progress[0].startswith("train classifier 0/")
    whole = json.loads((job.home / "host" / "runs" / "classifier" / "run.json").read_text())
    resumed = json.loads((folder / "run.json").read_text())
    for facts in (whole, resumed):
        del facts["started"], facts["finished"], facts["metrics"]["training"]["seconds"]
    assert resumed == whole
    assert weights(folder) == weights(job.home / "host" / "runs" / "classifier")


def weights(folder: Path) -> dict[str, bytes]:
    from training.checkpoint import read_tensors

    state = read_tensors(folder / "weights.pt")["state"]
    return {name: tensor.numpy().tobytes() for name, tensor in state.items()}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_middle_of_training_ends_everything(
    job: MainJob, tmp_path: Path, number: signal.Signals
) -> None:
    """Sent to the job alone: a terminal would tell its children too, ``kill`` does not."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    other = MainJob(tmp_path / "home", scratch)
    process = other.spawn()
    try:
        runs = other.home / "host" / "runs"
        wait_for((runs / "classifier").exists, 120, "training")
        below = descendants(process.pid)
        assert len(below) >= 2
        process.send_signal(number)
        assert process.wait(15) == 130, other.said
        assert "Traceback" not in other.said
        assert not set(below) & parents().keys()
    finally:
        other.abandon()
    assert not (runs / "classifier" / "run.json").exists()
