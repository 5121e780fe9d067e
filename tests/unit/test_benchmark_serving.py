"""The parts of `benchmarks.serving` that judge: a benchmark that lets errors pass proves nothing."""

import json

import numpy as np
import pytest
from hpack import Encoder
from typer.testing import CliRunner

from benchmarks.serving import check, frames, load, payloads, report, rows, workloads
from benchmarks.serving.results import Measurement, Store, failures, summary
from benchmarks.serving.servers import BY_NAME

H2LOAD = """
finished in 2.00s, 1000.50 req/s, 92.77KB/s
requests: 2000 total, 2000 started, 2000 done, {succeeded} succeeded, {failed} failed, 0 errored, 0 timeout
status codes: {good} 2xx, 0 3xx, 0 4xx, {bad} 5xx
traffic: 185.55KB (190000) total, 58.59KB (60000) headers (space savings 50.00%), 83.98KB ({data}) data
                     min         max         mean         sd        +/- sd
time for request:       52us      3.21ms       120us        40us    90.00%
"""


def printed(succeeded=2000, failed=0, good=2000, bad=0, data=86_000):
    return H2LOAD.format(succeeded=succeeded, failed=failed, good=good, bad=bad, data=data)


def test_h2load_output_is_read():
    found = load.checked(printed(), answer=43)
    assert found == load.Closed(1000.5, 2000, pytest.approx(120e-6), pytest.approx(3.21e-3))


@pytest.mark.parametrize(
    "output",
    [
        printed(succeeded=1999, failed=1),
        printed(good=1999, bad=1),
        printed(data=86_000 - 43),  # one gRPC error: status 200, no body
        printed(succeeded=0, good=0, data=0),
        "something else",
    ],
)
def test_a_wrong_answer_voids_a_run(output):
    with pytest.raises(load.LoadError):
        load.checked(output, answer=43)


def test_json_may_differ_by_a_digit_but_not_by_more():
    load.checked(printed(data=86_100), answer=43, exact=False)
    with pytest.raises(load.LoadError):
        load.checked(printed(data=43_000), answer=43, exact=False)


GOAL = check.Goal("g", "a/fp32/p", "b/fp32/p", at_least=2.0)


def points(**rounds):
    return {
        f"{server}/fp32/p": {"rounds": values, "details": {}} for server, values in rounds.items()
    }


@pytest.mark.parametrize(
    ("ours", "theirs", "ratio", "passed"),
    [
        ({"0": 200.0}, {"0": 100.0}, 2.0, True),
        ({"0": 199.0}, {"0": 100.0}, 1.99, False),
        # Round by round, so that a machine that slows down for both changes nothing.
        ({"0": 400.0, "1": 40.0, "2": 4.0}, {"0": 100.0, "1": 10.0, "2": 1.0}, 4.0, True),
        ({"0": 300.0, "1": 300.0}, {"1": 100.0}, 3.0, True),
        ({"0": 300.0}, {"1": 100.0}, None, False),
        ({"0": 300.0}, {}, None, False),
    ],
)
def test_goals_compare_the_same_rounds(ours, theirs, ratio, passed):
    verdict = check.judge(GOAL, points(a=ours, b=theirs))
    assert verdict.ratio == (None if ratio is None else pytest.approx(ratio))
    assert verdict.passed is passed


def test_a_missing_figure_is_no_pass():
    assert not check.judge(GOAL, {}).passed
    assert "MISSING" in str(check.judge(GOAL, {}))


def test_a_detail_of_a_figure_can_be_compared():
    goal = check.Goal("g", "a/fp32/p#p99", "a/fp32/p#p50", at_most=3.0)
    found = {"a/fp32/p": {"rounds": {"0": 9.0}, "details": {"0": {"p99": 4.0, "p50": 1.0}}}}
    assert check.judge(goal, found).ratio == pytest.approx(4.0)
    assert not check.judge(goal, found).passed


def test_a_goal_has_one_limit():
    with pytest.raises(ValueError, match="one of"):
        check.Goal("g", "a", "b")
    with pytest.raises(ValueError, match="one of"):
        check.Goal("g", "a", "b", at_least=1.0, at_most=2.0)


def test_the_thresholds_name_figures_that_are_measured():
    measured = {
        f"{server.name}/{precision}/{point.name}"
        for server in BY_NAME.values()
        for precision in server.precisions
        for point in workloads.points(server, precision, 8, first_round=False)
    }
    measured |= {
        f"in-process/{precision}/{name}"
        for precision in ("fp32", "int8")
        for name in ["best", *(f"batch-{b}" for b in workloads.IN_PROCESS_BATCHES)]
    }
    goals = check.load_goals()
    assert goals
    for goal in goals:
        assert goal.figure.partition("#")[0] in measured, goal
        assert goal.against.partition("#")[0] in measured, goal
        assert "{" not in goal.name + goal.figure + goal.against
        # Like for like.
        assert goal.figure.split("/")[1] == goal.against.split("/")[1]


def test_each_server_named_by_a_goal_is_measured_in_every_round():
    named = {key.split("/")[0] for g in check.load_goals() for key in (g.figure, g.against)}
    assert named - {"in-process"} == set(workloads.GOAL_SERVERS)


@pytest.mark.parametrize(("ratio", "code"), [(5.0, 0), (0.5, 1)])
def test_the_script_exits_with_the_verdict(tmp_path, ratio, code):
    import typer

    thresholds = tmp_path / "t.toml"
    thresholds.write_text(
        '[[goal]]\nname="{precision}"\nprecisions=["fp32"]\nfigure="a/{precision}/p"\n'
        'against="b/{precision}/p"\nat_least=2.0\n'
    )
    result = tmp_path / "result.json"
    result.write_text(json.dumps({"points": points(a={"0": ratio}, b={"0": 1.0})}))
    app = typer.Typer()
    app.command()(check.main)
    done = CliRunner().invoke(app, [str(result), "--thresholds", str(thresholds)])
    assert done.exit_code == code
    assert f"{1 - code} of 1 goals met" in done.output


def measurement(value=1.0, turn=0, failure="", server="ours-native"):
    details = (
        {}
        if failure
        else {"client_busy": 0.5, "others_busy_cores": 0.0, "server_cpu_seconds": 42e-6}
    )
    return Measurement(
        server, "fp32", "single-1", turn, value, "requests/s", details, failure
    )  # fmt: skip


def test_a_run_goes_on_where_it_was(tmp_path):
    path = tmp_path / "m.jsonl"
    store = Store(path)
    store.add(measurement(10.0))
    store.add(measurement(0.0, 1, "crashed"))
    with path.open("a") as file:
        file.write('{"server": "tri')  # killed while it wrote
    again = Store(path)
    assert again.measurements == store.measurements
    assert again.has("ours-native", "fp32", "single-1", 0)
    assert not again.has("ours-native", "fp32", "single-1", 1)
    assert again.median("ours-native/fp32/single-1") == 10.0


def test_a_figure_after_a_torn_line_is_kept(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"server": "tri')
    Store(path).add(measurement(10.0))
    assert Store(path).measurements == [measurement(10.0)]


def test_failures_are_told_unless_measured_later():
    made = [measurement(0.0, 0, "down"), measurement(0.0, 1, "down"), measurement(5.0, 1)]
    assert [f.round for f in failures(made)] == [0]
    assert summary(made)["ours-native/fp32/single-1"]["median"] == 5.0


def test_the_summary_has_median_and_spread():
    made = [measurement(v, i) for i, v in enumerate([3.0, 1.0, 2.0])]
    point = summary(made)["ours-native/fp32/single-1"]
    assert (point["median"], point["min"], point["max"]) == (2.0, 1.0, 3.0)


def test_the_report_says_what_is_missing(tmp_path):
    facts = {
        "machine": {
            "cpu": "c", "cores": 2, "cpu_features": [], "memory_gib": 1, "kernel": "k",
            "python": "3", "onnxruntime": "1", "h2load": "h", "server_core": 0, "client_core": 1,
        },
        "settings": {
            "rounds": 1, "other_rounds": 1, "seconds": 1.0, "other_seconds": 1.0, "connections": 8,
        },
        "skipped": {"triton": "no wheel"},
    }  # fmt: skip
    report.write(tmp_path, facts, [measurement(1234.0), measurement(0.0, 1, "down")])
    text = (tmp_path / "result.md").read_text()
    assert "| CipherScore, native engine | fp32 | 1,234 |" in text
    assert "| CipherScore, native engine | fp32 | 42 |" in text
    assert "triton: skipped, no wheel" in text
    assert "ours-native fp32, round 2, single-1: down" in text
    assert "MISSING" in text
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["points"]["ours-native/fp32/single-1"]["rounds"] == {"0": 1234.0}


@pytest.mark.parametrize("protocol", ["oip", "columnar", "json"])
def test_requests_hold_the_rows_and_answers_are_read(protocol):
    from cipherscore.proto.inference import grpc_service_pb2 as oip
    from cipherscore.proto.v1 import cipherscore_pb2 as columnar

    indices = rows.random_indices(3, 0)
    body = payloads.make(protocol, "credit", rows.vocabulary(), indices)
    tokens = list(rows.vocabulary().tokens.values())
    first = tokens[0][indices[0, 0]]
    if protocol == "json":
        assert len(json.loads(body.content)["records"]) == 3
        answer = b'{"probability": [0.5, 0.25, 1]}'
    else:
        assert int.from_bytes(body.content[1:5], "big") == len(body.content) - 5
        assert first in body.content
        expected = np.array([0.5, 0.25, 1], np.float32)
        answer = columnar.ScoreResponse(probability=expected).SerializeToString()
        if protocol == "oip":
            tensor = oip.ModelInferResponse.InferOutputTensor(name="probability", shape=[3])
            answer = oip.ModelInferResponse(
                outputs=[tensor], raw_output_contents=[expected.tobytes()]
            ).SerializeToString()
    assert payloads.read(protocol, answer).tolist() == [0.5, 0.25, 1.0]


def answered(stream, body=b"x" * 43, status="0"):
    encoder = Encoder()
    encoder.header_table_size = 0
    head = encoder.encode([(":status", "200"), ("content-type", "application/grpc")])
    tail = encoder.encode([("grpc-status", status)])
    return (
        frames.frame(frames.HEADERS, frames.END_HEADERS, stream, head)
        + frames.frame(frames.DATA, 0, stream, body)
        + frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, stream, tail)
    )


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_the_open_loop_client_tells_right_from_wrong(size):
    reader = frames.Reader(answer=43)
    stream = (
        frames.frame(frames.SETTINGS, 0, 0)
        + answered(1)
        + answered(3, status="8")
        + answered(5, body=b"x" * 42)
        + frames.frame(frames.RST_STREAM, 0, 7, b"\0\0\0\7")
        + frames.frame(frames.PING, 0, 0, b"12345678")
        + frames.frame(frames.WINDOW_UPDATE, 0, 0, b"\0\0\1\0")
        + answered(9)
    )
    found = []
    for start in range(0, len(stream), size):
        found += reader.feed(stream[start : start + size])
    assert found == [(1, True), (3, False), (5, False), (7, False), (9, True)]
    assert reader.window == 65_535 + 256
    assert reader.reply == frames.frame(frames.SETTINGS, frames.ACK, 0) + frames.frame(
        frames.PING, frames.ACK, 0, b"12345678"
    )
    with pytest.raises(frames.ConnectionBroken):
        reader.feed(frames.frame(frames.GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\1"))


def test_a_request_on_a_stream():
    made = frames.request("/a/B", "127.0.0.1:1", b"body")(5)
    size = int.from_bytes(made[:3], "big")
    assert made[3:9] == bytes([frames.HEADERS, frames.END_HEADERS, 0, 0, 0, 5])
    from hpack import Decoder

    assert Decoder().decode(made[9 : 9 + size])[2:4] == [
        (":path", "/a/B"),
        (":authority", "127.0.0.1:1"),
    ]
    assert made[9 + size :] == frames.frame(frames.DATA, frames.END_STREAM, 5, b"body")
