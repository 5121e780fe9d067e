"""Reason codes in the server's parts: loading, batching, limits, hot swap.  No server."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cipherscore.errors import (
    DeadlinePassed,
    IntegrityError,
    InvalidRequest,
    Overloaded,
    Unsupported,
)
from cipherscore.proto.inference import grpc_service_pb2 as oip
from cipherscore.proto.v1 import cipherscore_pb2 as pb
from cipherscore.tokens import to_text
from registry.stages import Stage
from serving import models as model_files
from serving.batcher import Batcher
from serving.call import Call
from serving.generation import Generator
from serving.grpc_methods import score_response
from serving.http_rows import ScoreWriter
from serving.lineup import Lineup
from serving.models import load
from serving.providers import CPU, Provider
from serving.reasons import ALL, Reasons
from serving.requested import Requested
from serving.scorer import Scorer, Scores
from serving.settings import Settings
from serving.telemetry.observer import Observer
from tests.support import explained, models
from tests.support.asgi import in_process, request
from tests.support.explained import Explained, drawn, exact_of, explained_models, reasons_of
from tests.support.models import SIZES
from tests.support.oip import Host, tokens_request

PROVIDER = Provider(CPU, "a test")
FIELDS = tuple(SIZES)
EXACT = exact_of()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Explained:
    return explained_models(tmp_path_factory.mktemp("registry"))


def a_call(seconds: float = 60.0) -> Call:
    now = time.monotonic()
    return Call("grpc", "Score", "test", now, now + seconds)


# ---- the numbers


def test_a_loaded_version_explains_itself(home: Explained) -> None:
    model = load(home.classifier, PROVIDER, 1)
    assert model.explainer is not None
    assert model.explainer.base == pytest.approx(EXACT.base, rel=1e-12)
    for rows in (1, 300, 1000):
        indices = drawn(rows, rows)[1]
        found = model.run_explained(indices)
        np.testing.assert_allclose(found[:, 1:], EXACT.contributions(indices), atol=1e-5)
        # To the bit: asking why never changes the answer.
        np.testing.assert_array_equal(found[:, 0], model.run({"indices": indices}))
        logit = np.log(found[:, 0].astype(float) / (1 - found[:, 0]))
        np.testing.assert_allclose(found[:, 1:].sum(axis=1) + EXACT.base, logit, atol=1e-3)


def test_with_int8_the_probability_is_int8s_and_the_reasons_are_fp32s(home: Explained) -> None:
    model = load(home.classifier, PROVIDER, 1, precision="int8")
    indices = drawn(20)[1]
    found = model.run_explained(indices)
    np.testing.assert_allclose(found[:, 0], models.expected_probability(indices), atol=1e-6)
    np.testing.assert_allclose(found[:, 1:], EXACT.contributions(indices), atol=1e-5)


@given(st.integers(0, 1000), st.integers(1, 14), st.booleans())
@settings(max_examples=80, deadline=None)
def test_the_largest_come_first_and_of_equal_ones_the_first(seed, count, ties) -> None:
    values = np.random.default_rng(seed).normal(size=(7, 14)).astype(np.float32)
    if ties:
        values = np.round(values)
    found = Reasons(tuple("abcdefghijklmn"), 0.0, values).largest(count)
    assert found.indices is not None
    for row, places, chosen in zip(values, found.indices, found.contribution, strict=True):
        expected = sorted(range(14), key=lambda place: (-row[place], place))[:count]
        assert places.tolist() == expected
        assert chosen.tolist() == [row[place] for place in expected]


# ---- what is not served


def test_a_damaged_graph_is_refused(tmp_path: Path) -> None:
    registry = explained_models(tmp_path).registry
    for reasons, told in {
        b"junk": "does not run",
        reasons_of(EXACT, base="nan"): "finite 'base'",
        reasons_of(EXACT, base="1e400"): "finite 'base'",
        reasons_of(EXACT, base=repr(EXACT.base + 0.5)): "add up",
        reasons_of(exact_of(1)): "add up",
        models.classifier(): "output 'contribution'",
    }.items():
        version = explained.register(registry, reasons=reasons)
        with pytest.raises(IntegrityError, match=told):
            load(version, PROVIDER, 1)
        assert load(version, PROVIDER, 1, reasons=False).explainer is None
    changed = explained.register(registry)
    path = changed.path / "reasons.onnx"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError):
        load(changed, PROVIDER, 1)


class Seen:
    """An observer of a lineup."""

    def __init__(self) -> None:
        self.swaps: list[tuple[str, str]] = []

    def serving(self, versions: Any) -> None:
        list(versions)

    def swap(self, kind: str, model: str, outcome: str) -> None:
        self.swaps.append((model, outcome))


def test_hot_swap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version whose reasons fail keeps the old one; one without reasons is served without."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    found = explained_models(tmp_path)
    registry, first = found.registry, found.classifier
    chosen = Settings(watch_seconds=0.01)

    async def scenario() -> None:
        with ThreadPoolExecutor(1) as executor:
            observer, seen = Observer(chosen), Seen()
            lineup = Lineup(
                chosen,
                PROVIDER,
                lambda model: Scorer(model, chosen, executor, observer),
                lambda model: Generator(model, 10),
                seen,
                requested=Requested(None),
            )
            await lineup.start([first.tag, found.generator.tag])
            lineup.classifier().check(a_call(), 1, 2)

            broken = explained.register(registry, reasons=reasons_of(EXACT, base="7"))
            registry.promote(broken.tag)
            await lineup.look()
            assert lineup.classifier().model.tag == first.tag
            assert (broken.tag, "failed") in seen.swaps
            lineup.classifier().check(a_call(), 1, 2)

            plain = explained.register(registry, without=True)
            registry.promote(plain.tag)
            await lineup.look()
            assert lineup.classifier().model.tag == plain.tag
            with pytest.raises(Unsupported, match="without reason codes"):
                lineup.classifier().check(a_call(), 1, 2)
            lineup.classifier().check(a_call(), 1, 0)

            registry.rollback(plain.name)
            await lineup.look()
            lineup.close()

    asyncio.run(scenario())


def test_a_canary_without_reasons_leaves_these_requests_to_production(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    found = explained_models(tmp_path)
    plain = explained.register(found.registry, without=True)
    second = explained.register(found.registry, 1)
    chosen = Settings()

    async def scenario() -> None:
        with ThreadPoolExecutor(1) as executor:
            observer = Observer(chosen)
            lineup = Lineup(
                chosen,
                PROVIDER,
                lambda model: Scorer(model, chosen, executor, observer),
                lambda model: Generator(model, 10),
                Seen(),
                requested=Requested(None),
                chance=lambda: 0.0,
            )

            def answers(wanted: str = "", *, explained: bool) -> str:
                return lineup.classifier(wanted, explained=explained).model.tag

            found.registry.promote(plain.tag, stage=Stage.CANARY, percent=50)
            await lineup.start([found.classifier.tag, found.generator.tag])
            assert answers(explained=False) == plain.tag
            assert answers(explained=True) == found.classifier.tag
            with pytest.raises(Unsupported, match="without reason codes"):
                lineup.classifier(plain.tag, explained=True).check(a_call(), 1, 1)
            found.registry.promote(second.tag, stage=Stage.CANARY, percent=50)
            await lineup.look()
            assert answers(explained=True) == second.tag
            lineup.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("limit", "asked", "refusal", "told"),
    [
        (255, 4, InvalidRequest, "at most 3"),
        (2, 3, InvalidRequest, "at most 2 .*max_reasons is 2"),
        (2, ALL, InvalidRequest, "3 reasons .* at most 2"),
        (0, 1, Unsupported, "max_reasons is 0"),
    ],
)
def test_more_than_there_are(home: Explained, limit, asked, refusal, told) -> None:
    chosen = Settings(max_reasons=limit)
    with ThreadPoolExecutor(1) as executor:
        model = load(home.classifier, PROVIDER, 1, reasons=limit > 0)
        scorer = Scorer(model, chosen, executor, Observer(chosen))
        with pytest.raises(refusal, match=told) as caught:
            scorer.check(a_call(), 1, asked)
        assert caught.value.field == "reasons"
        scorer.check(a_call(), 1)


def test_the_setting_is_checked() -> None:
    assert Settings().max_reasons == 255
    for wrong in (-1, 65_536):
        with pytest.raises(ValueError, match="max_reasons"):
            Settings(max_reasons=wrong)


# ---- batching


def test_requests_share_runs_and_each_row_gets_its_own_reasons(home: Explained) -> None:
    chosen = Settings(max_batch_rows=64, threads=1)
    observer = Observer(chosen)

    async def scenario() -> None:
        with ThreadPoolExecutor(1) as executor:
            scorer = Scorer(load(home.classifier, PROVIDER, 1), chosen, executor, observer)
            futures = []
            for number, rows in enumerate([1, 3, 200, 64, 5, 1]):
                indices = drawn(rows, number)[1]
                future = asyncio.get_running_loop().create_future()
                submit = scorer.submit if number == 4 else scorer.submit_explained
                submit(indices, rows, a_call(), future.set_result)
                futures.append((indices, future))
            assert scorer.waiting_rows == 274
            for number, (indices, future) in enumerate(futures):
                scores = await asyncio.wait_for(future, 20)
                assert scores.probability.flags.c_contiguous
                expected = 1 / (1 + np.exp(-EXACT.base - EXACT.contributions(indices).sum(axis=1)))
                np.testing.assert_allclose(scores.probability, expected, atol=1e-5)
                if number == 4:
                    assert scores.reasons is None
                    continue
                np.testing.assert_allclose(
                    scores.reasons.contribution, EXACT.contributions(indices), atol=1e-5
                )

    asyncio.run(scenario())
    text = observer.exposition()[0].decode()
    assert 'cipherscore_reason_rows_total{model="other"} 269.0' in text


def test_a_passed_deadline_and_a_full_queue(home: Explained) -> None:
    chosen = Settings(max_queue_rows=10)

    async def scenario() -> None:
        with ThreadPoolExecutor(1) as executor:
            model = load(home.classifier, PROVIDER, 1)
            scorer = Scorer(model, chosen, executor, Observer(chosen))
            answers: list[Any] = []
            indices = drawn(8)[1]
            late = a_call(-1.0)
            scorer.submit_explained(indices, 8, late, answers.append)
            # What waits for reasons counts for a request without, and the other way round.
            with pytest.raises(Overloaded):
                scorer.check(a_call(), 5)
            with pytest.raises(Overloaded):
                scorer.check(a_call(), 5, 1)
            await asyncio.sleep(0.05)
            assert isinstance(answers[0], DeadlinePassed)
            scorer.check(a_call(), 5, 1)
            scorer.submit(indices, 8, a_call(), answers.append)
            with pytest.raises(Overloaded):
                scorer.check(a_call(), 5, 1)
            await asyncio.sleep(0.05)
            assert isinstance(answers[1], Scores)

    asyncio.run(scenario())


def test_the_wait_behind_the_other_batcher_counts() -> None:
    async def scenario() -> None:
        with ThreadPoolExecutor(1) as executor:
            one, other = (
                Batcher(
                    lambda indices: indices[:, 0].astype(np.float32),
                    2,
                    seconds_per_row=0.01,
                    max_batch_rows=64,
                    max_queue_rows=1000,
                    max_queue_seconds=0.5,
                    executor=executor,
                    watcher=lambda *_: None,
                )
                for _ in range(2)
            )
            one.check(50, a_call(), other)
            done = asyncio.Event()
            other.submit(np.zeros((60, 2), np.int32), 60, a_call(), lambda _: done.set())
            assert other.backlog == pytest.approx(0.6)
            with pytest.raises(Overloaded, match=r"0\.60 s"):
                one.check(1, a_call(), other)
            one.check(1, a_call())
            await asyncio.wait_for(done.wait(), 20)

    asyncio.run(scenario())


def test_an_answer_that_is_no_number_is_refused(home: Explained) -> None:
    chosen = Settings()

    async def scenario() -> None:
        with ThreadPoolExecutor(1) as executor:
            model = load(home.classifier, PROVIDER, 1)
            broken = SimpleNamespace(run=lambda *_: [np.full((1, 3), np.nan, np.float32)])
            object.__setattr__(model.explainer, "session", broken)
            scorer = Scorer(model, chosen, executor, Observer(chosen))
            answers: list[Any] = []
            scorer.submit_explained(drawn(1)[1], 1, a_call(), answers.append)
            await asyncio.sleep(0.05)
            assert "no number" in str(answers[0])

    asyncio.run(scenario())


# ---- on the wire


def ranked(rows: int, fields: int, count: int, seed: int = 0) -> Scores:
    random = np.random.default_rng(seed)
    probability = random.random(rows).astype(np.float32)
    values = random.normal(size=(rows, fields)).astype(np.float32)
    names = tuple(f'f"{n}ü' for n in range(fields))
    found = Reasons(names, -1.25, values).largest(count)
    return Scores(probability, probability >= 0.5, "m:1", 0.5, found)


@pytest.mark.parametrize(("fields", "count"), [(3, 1), (20, 20), (256, 4), (257, 3)])
def test_the_message_is_what_protobuf_writes(fields: int, count: int) -> None:
    scores = ranked(5, fields, count)
    answer = pb.ScoreResponse.FromString(score_response(scores))
    assert answer.SerializeToString(deterministic=True) == score_response(scores)
    sent, found = answer.reasons, scores.reasons
    assert found is not None
    assert (sent.per_row, tuple(sent.fields), sent.base) == (count, found.fields, -1.25)
    width = 1 if fields <= 256 else 2
    assert len(sent.indices) == 5 * count * width
    indices = [
        int.from_bytes(sent.indices[at : at + width], "little")
        for at in range(0, len(sent.indices), width)
    ]
    assert indices == found.indices.ravel().tolist()
    np.testing.assert_array_equal(np.float32(sent.contribution), found.contribution.ravel())


def test_the_json_is_whole_and_exact() -> None:
    scores = ranked(3, 4, 2)
    writer = ScoreWriter()
    content = json.loads(writer.write(scores))
    assert content["base"] == -1.25
    for row, result in enumerate(content["results"]):
        assert [reason["field"] for reason in result["reasons"]] == [
            scores.reasons.fields[index] for index in scores.reasons.indices[row]
        ]
        values = [reason["contribution"] for reason in result["reasons"]]
        np.testing.assert_array_equal(np.float32(values), scores.reasons.contribution[row])
    plain = Scores(scores.probability, scores.bad, "m:1", 0.5)
    assert set(json.loads(writer.write(plain))) == {"results", "model", "threshold"}
    for row in content["results"]:
        row.pop("reasons")
    content.pop("base")
    assert json.loads(writer.write(plain)) == content


@pytest.mark.parametrize("rows", [1, 100, 3000])
def test_over_http_in_process(home: Explained, rows: int) -> None:
    """Small answers are written on the loop, large ones ranked and written in threads."""
    target = in_process([home.classifier, home.generator])
    records, indices = drawn(rows)
    texts = [{field: to_text(token) for field, token in row.items()} for row in records]
    body = {"key_id": models.KEY_ID, "records": texts, "reasons": 2}
    reply = asyncio.run(request(target.app, "POST", "/v1/score", json.dumps(body).encode()))
    assert reply.status == 200, reply.body
    expected = EXACT.contributions(indices)
    content = json.loads(reply.body)
    assert content["base"] == pytest.approx(EXACT.base)
    for result, values in zip(content["results"], expected, strict=True):
        order = np.argsort(-values)[:2]
        assert [reason["field"] for reason in result["reasons"]] == [FIELDS[i] for i in order]
        found = [reason["contribution"] for reason in result["reasons"]]
        np.testing.assert_allclose(found, values[order], atol=1e-5)


@pytest.mark.parametrize("wrong", [-1, 4, 1 << 70, 1.0, True, "2", None, []])
def test_wrong_counts_over_http(home: Explained, wrong: object) -> None:
    target = in_process([home.classifier, home.generator])
    records = [{field: to_text(token) for field, token in drawn(1)[0][0].items()}]
    body = {"key_id": models.KEY_ID, "records": records, "reasons": wrong}
    reply = asyncio.run(request(target.app, "POST", "/v1/score", json.dumps(body).encode()))
    content = json.loads(reply.body)
    assert (reply.status, content["code"]) == (400, "invalid-request"), content
    assert content["field"] == "reasons"


# ---- the Open Inference Protocol


def test_the_contribution_tensor_is_given_to_who_asks(home: Explained) -> None:
    host = Host(home, max_rows=1000)  # type: ignore[arg-type]

    async def scenario() -> None:
        for rows in (1, 1, 50):  # the second time by the short way of requests that look alike
            indices = drawn(rows, rows)[1]
            plain = await host.infer(tokens_request(home.classifier.name, indices))
            assert [output.name for output in plain.outputs] == ["probability", "decision"]
            asked = tokens_request(home.classifier.name, indices)
            for name in ("contribution", "probability"):
                asked.outputs.add(name=name)
            answer = await host.infer(asked)
            described = answer.outputs[0]
            assert (described.name, described.datatype) == ("contribution", "FP32")
            assert list(described.shape) == [rows, len(FIELDS)]
            assert len(answer.outputs) == 2
            found = np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(rows, -1)
            np.testing.assert_allclose(found, EXACT.contributions(indices), atol=1e-5)
            assert answer.raw_output_contents[1] == plain.raw_output_contents[0]
        facts = oip.ModelMetadataResponse.FromString(
            await host.unary(
                "ModelMetadata",
                oip.ModelMetadataRequest(name=home.classifier.name).SerializeToString(),
            )
        )
        assert ("contribution", [-1, 3]) in [(o.name, list(o.shape)) for o in facts.outputs]

    asyncio.run(scenario())
    host.close()


def test_a_version_without_them_lists_and_gives_no_contribution(tmp_path: Path) -> None:
    host = Host(models.tiny_models(tmp_path))

    async def scenario() -> None:
        asked = tokens_request(host.classifier, drawn(1)[1])
        asked.outputs.add(name="contribution")
        for _ in range(2):
            with pytest.raises(Unsupported, match="without reason codes"):
                await host.infer(asked)
        listed = await host.http("GET", f"/v2/models/{host.classifier}")
        assert [output["name"] for output in listed.json["outputs"]] == ["probability", "decision"]

    asyncio.run(scenario())
    host.close()


def test_json_tensors_hold_the_contributions_flattened(home: Explained) -> None:
    host = Host(home)  # type: ignore[arg-type]
    indices = drawn(4)[1]
    cells = [to_text(token) for row in drawn(4)[0] for token in row.values()]
    body = {
        "inputs": [{"name": "tokens", "datatype": "BYTES", "shape": [4, 3], "data": cells}],
        "outputs": [{"name": "contribution"}],
    }

    async def scenario() -> None:
        reply = await host.http("POST", f"/v2/models/{host.classifier}/infer", body)
        (output,) = reply.json["outputs"]
        assert (output["name"], output["shape"]) == ("contribution", [4, 3])
        found = np.array(output["data"]).reshape(4, 3)
        np.testing.assert_allclose(found, EXACT.contributions(indices), atol=1e-5)

    asyncio.run(scenario())
    host.close()


def test_a_swapped_out_version_is_freed(home: Explained) -> None:
    """No cycle keeps a model, its sessions and its explainer in memory."""
    import gc
    import weakref

    chosen = Settings()
    with ThreadPoolExecutor(1) as executor:
        model = model_files.load(home.classifier, PROVIDER, 1)
        scorer = Scorer(model, chosen, executor, Observer(chosen))
        watched = [weakref.ref(model), weakref.ref(scorer)]
        gc.disable()
        try:
            del model, scorer
            assert [found() for found in watched] == [None, None]
        finally:
            gc.enable()
