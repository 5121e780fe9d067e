"""Killed workers and too much load, with checked clients; counts, no times.

``benchmarks/endurance`` does the same for longer, with figures.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import grpc
import numpy as np
import pytest

from benchmarks.endurance import drain, kill, openloop
from benchmarks.endurance.host import Host, serving, total
from benchmarks.endurance.questions import Question, Questions
from benchmarks.endurance.results import Result
from benchmarks.serving.model import Files
from benchmarks.serving.payloads import PATHS, Body, framed
from cipherscore.proto.v1 import cipherscore_pb2 as pb
from cipherscore.tokens import to_text
from tests.support.models import KEY_ID, expected_probability, tiny_models
from tests.support.swapping import draw, rows_of
from tests.support.transports import table

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("taskset") and shutil.which("setpriv")), reason="needs util-linux"
    ),
]
CORE = min(os.sched_getaffinity(0))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    home = tiny_models(tmp_path_factory.mktemp("models")).home
    return Files(home, home, home, home, home)  # only the registry is read


@pytest.fixture(scope="module")
def asked() -> Questions:
    order = pb.GenerateRequest(key_id=KEY_ID, count=20_000, seed=1)
    small = tuple(question(seed, 1 + seed % 4) for seed in range(20))
    return Questions(small, (question(99, 1_000),), order.SerializeToString(), order.count)


def question(seed: int, count: int) -> Question:
    indices = draw(np.random.default_rng(seed), count)
    records = rows_of(indices)
    request = pb.ScoreRequest(key_id=KEY_ID, table=table(records))
    texts = [{field: to_text(token) for field, token in row.items()} for row in records]
    content = str({"key_id": KEY_ID, "records": texts}).replace("'", '"').encode()
    return Question(expected_probability(indices), request.SerializeToString(), content)


def failed(result: Result) -> list[str]:
    return [sentence for sentence, holds in result.checks.items() if not holds]


def test_a_killed_worker_costs_its_requests_and_no_others(
    files: Files, asked: Questions, tmp_path: Path
) -> None:
    result = kill.run(files, asked, tmp_path, 2, CORE, clients=1)
    assert failed(result) == []
    assert all(result.figures["right"][client] for client in ("grpc", "grpc-retry", "http"))
    assert len(result.figures["kills"]) == 2


def test_a_server_told_to_end_loses_nothing_that_it_took(
    files: Files, asked: Questions, tmp_path: Path
) -> None:
    patience = 60.0
    result = drain.run(files, asked, tmp_path, 1, CORE, clients=1, drain_seconds=patience)
    assert failed(result) == []
    (found,) = result.figures["drains"]
    # A scoring stream was open, with a client that would have gone on for ever.
    assert found["right"]["stream"] > 0
    assert found["seconds"] < patience


def ask(host: Host, question: Question) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{host.grpc}") as channel:
        call = channel.unary_unary(PATHS["columnar"])
        answer = pb.ScoreResponse.FromString(call(question.columnar, timeout=60))
    return question.answered_by(answer.probability)


def test_too_much_is_refused_with_a_hint_and_the_rest_is_answered(
    files: Files, asked: Questions, tmp_path: Path
) -> None:
    one = asked.small[0]
    # A single row may wait: what else comes in the same turn of the loop is too much.
    with serving(files, CORE, tmp_path, max_queue_rows=1, threads=1) as host:
        with grpc.insecure_channel(f"127.0.0.1:{host.grpc}") as channel:
            answer = channel.unary_unary(PATHS["columnar"])(one.columnar, timeout=60)
        body = Body("columnar", 1, framed(one.columnar), np.zeros((1, 1), np.int32))
        before = host.counters()
        found = openloop.open_loop(
            host.grpc, body, rate=5_000, seconds=3.0, warmup=0.0, connections=8, core=CORE,
            answer=len(answer) + 5, patience=60.0,
        )  # fmt: skip
        counted = host.counters()
        assert (found.failed, found.unanswered, found.abandoned) == (0, 0, 0)
        assert found.goodput > 0
        assert found.shed > 0
        name = "cipherscore_requests_total"
        ended = {
            code: total(counted, name, code=code) - total(before, name, code=code)
            for code in ("ok", "overloaded", "internal")
        }
        share = ended["overloaded"] / (ended["ok"] + ended["overloaded"])
        assert share == pytest.approx(found.shed / (found.shed + found.goodput))
        assert ended["internal"] == 0
        assert ask(host, one)
