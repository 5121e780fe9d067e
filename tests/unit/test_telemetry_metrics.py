"""Metrics: what is counted, and that any worker tells the sum over all of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherscore.errors import request_errors
from serving.telemetry import families, segment
from serving.telemetry.metrics import MAX_MODELS, Metrics
from serving.telemetry.segment import TOTALS, Segment, create_directory
from tests.support.prometheus import Exposed
from tests.support.server import ROOT

TAG = "credit:1"


@pytest.fixture
def metrics() -> Metrics:
    found = Metrics()
    found.serving([("classifier", TAG, "production", "CPUExecutionProvider", "fp32")])
    return found


def read(metrics: Metrics) -> Exposed:
    return Exposed(metrics.exposition().decode())


def answer(
    metrics: Metrics, code: str = "ok", seconds: float = 0.001, rows: int = 3, model: str = TAG
) -> None:
    metrics.started("grpc")
    metrics.finished("grpc", "Score", code, model, rows, seconds)


class TestRequests:
    def test_an_answered_request_is_counted_everywhere(self, metrics: Metrics) -> None:
        answer(metrics, seconds=0.0004)
        answer(metrics, seconds=0.002)
        found = read(metrics)
        where = {"transport": "grpc", "method": "Score"}
        assert found.value("cipherscore_requests_total", code="ok", **where) == 2
        assert found.value("cipherscore_request_seconds_count", **where) == 2
        assert found.value("cipherscore_request_seconds_sum", **where) == pytest.approx(0.0024)
        bucket = "cipherscore_request_seconds_bucket"
        assert found.value(bucket, le="0.0002", **where) == 0
        assert found.value(bucket, le="0.0005", **where) == 1
        # A value on a bound belongs to its bucket: le is "less or equal".
        assert found.value(bucket, le="0.002", **where) == 2
        assert found.value(bucket, le="+Inf", **where) == 2
        of_model = {"kind": "classifier", "model": TAG}
        assert found.value("cipherscore_model_requests_total", code="ok", **of_model) == 2
        assert found.value("cipherscore_rows_total", **of_model) == 6

    def test_rows_of_a_failed_request_are_not_counted(self, metrics: Metrics) -> None:
        answer(metrics, "unknown-token")
        found = read(metrics)
        assert found.total("cipherscore_rows_total") == 0
        assert found.total("cipherscore_model_requests_total", code="unknown-token") == 1

    def test_refusals_are_kept_out_of_the_latencies(self, metrics: Metrics) -> None:
        answer(metrics)
        answer(metrics, "overloaded")
        metrics.refused("http", "Score", "rate-limited")
        found = read(metrics)
        assert found.total("cipherscore_requests_total") == 3
        assert found.total("cipherscore_request_seconds_count") == 1
        assert found.value("cipherscore_refused_total", reason="overloaded") == 1
        assert found.value("cipherscore_refused_total", reason="rate-limited") == 1
        assert found.value("cipherscore_refused_total", reason="draining") == 0

    def test_requests_in_flight(self, metrics: Metrics) -> None:
        metrics.started("http")
        metrics.started("http")
        metrics.finished("http", "Score", "ok", TAG, 1, 0.1)
        assert read(metrics).value("cipherscore_requests_in_flight", transport="http") == 1

    @given(st.text(), st.text(), st.text())
    def test_no_text_of_a_caller_becomes_a_label(self, method: str, code: str, model: str) -> None:
        metrics = Metrics()
        metrics.finished("grpc", method, code, model, 1, 0.1)
        metrics.refused("http", method, code)
        metrics.batch(model, "fp32", 1, 1, 0.0, 0.0)
        metrics.compared(model, 0.5, 1, 1)
        metrics.swap("classifier", code)
        known = families.METHODS | families.CODES | families.SWAPS
        for _, labels in read(metrics).samples:
            found = dict(labels)
            assert found.get("method", families.OTHER) in known
            assert found.get("code", families.OTHER) in known
            assert found.get("outcome", families.OTHER) in known
            assert found.get("model", families.OTHER) == families.OTHER
            assert found.get("shadow", families.OTHER) == families.OTHER

    def test_unknown_names_take_no_memory(self, metrics: Metrics) -> None:
        for number in range(1000):
            metrics.finished("grpc", f"method-{number}", "ok", f"model-{number}", 1, 0.1)
        assert len(metrics._outcomes) == 1
        assert read(metrics).total("cipherscore_requests_total", method="other") == 1000

    def test_every_refusal_is_an_error_of_the_table(self) -> None:
        assert set(request_errors()) > families.REFUSALS


class TestModels:
    def test_a_model_run(self, metrics: Metrics) -> None:
        metrics.batch(TAG, "fp32", 3, 40, 0.0003, 0.002)
        metrics.batch(TAG, "fp32", 1, 1, 0.0, 0.00004)
        found = read(metrics)
        assert found.value("cipherscore_batch_rows_sum", model=TAG) == 41
        assert found.value("cipherscore_batch_rows_bucket", model=TAG, le="32.0") == 1
        assert found.value("cipherscore_batch_rows_bucket", model=TAG, le="64.0") == 2
        assert found.value("cipherscore_batch_requests_sum", model=TAG) == 4
        assert found.value("cipherscore_queue_seconds_sum", model=TAG) == pytest.approx(0.0003)
        run = found.value("cipherscore_run_seconds_sum", model=TAG, precision="fp32")
        assert run == pytest.approx(0.00204)

    def test_only_what_is_served_now_is_shown_as_served(self, metrics: Metrics) -> None:
        metrics.serving([
            ("classifier", "credit:2", "production", "CPUExecutionProvider", "fp32"),
            ("classifier", TAG, "canary", "CPUExecutionProvider", "fp32"),
        ])  # fmt: skip
        shown = {
            (dict(labels)["model"], dict(labels)["stage"]): value
            for (name, labels), value in read(metrics).samples.items()
            if name == "cipherscore_model_info"
        }
        assert shown == {("credit:2", "production"): 1, (TAG, "canary"): 1}

    def test_versions_beyond_the_limit_share_a_series(self) -> None:
        metrics = Metrics()
        for number in range(MAX_MODELS + 10):
            metrics.serving([("classifier", f"credit:{number}", "production", "CPU", "fp32")])
            answer(metrics, model=f"credit:{number}")
        found = read(metrics)
        assert found.total("cipherscore_model_requests_total", model="credit:0") == 1
        assert found.total("cipherscore_model_requests_total", model="other") == 10
        assert found.total("cipherscore_model_requests_total") == MAX_MODELS + 10

    def test_a_shadow_version(self, metrics: Metrics) -> None:
        metrics.serving([("classifier", "credit:2", "shadow", "CPUExecutionProvider", "fp32")])
        metrics.compared("credit:2", 0.03, 1, 10)
        metrics.compared("credit:2", 0.0, 0, 5)
        metrics.compared("credit:2", float("nan"), 0, 5)
        found = read(metrics)
        assert found.value("cipherscore_shadow_rows_total", shadow="credit:2") == 15
        assert found.value("cipherscore_shadow_disagreements_total", shadow="credit:2") == 1
        assert found.value("cipherscore_shadow_failures_total", shadow="credit:2") == 1
        bucket = "cipherscore_shadow_difference_bucket"
        assert found.value(bucket, shadow="credit:2", le="0.01") == 1
        assert found.value(bucket, shadow="credit:2", le="0.1") == 2

    def test_swaps(self, metrics: Metrics) -> None:
        metrics.swap("classifier", "swapped")
        metrics.swap("classifier", "failed")
        found = read(metrics)
        swaps = {"kind": "classifier"}
        assert found.value("cipherscore_swap_total", outcome="swapped", **swaps) == 1
        assert found.value("cipherscore_swap_total", outcome="failed", **swaps) == 1


class TestExposition:
    def test_every_family_is_told_of_from_the_start(self) -> None:
        found = read(Metrics())
        names = {family.name.removesuffix("_total") for family in families.FAMILIES}
        assert set(found.families) == names
        assert all(family.documentation for family in found.families.values())

    def test_names_are_as_prometheus_wants_them(self) -> None:
        for family in families.FAMILIES:
            assert family.name.startswith("cipherscore_")
            assert family.name.endswith("_total") == (family.kind == "counter")
            assert list(family.buckets) == sorted(set(family.buckets))

    def test_buckets_of_requests_reach_from_100_microseconds_to_10_seconds(self) -> None:
        assert families.REQUEST_SECONDS.buckets[0] == 0.0001
        assert families.REQUEST_SECONDS.buckets[-1] == 10.0

    def test_the_process(self, metrics: Metrics) -> None:
        metrics.sample(7, 3, 0.004)
        found = read(metrics)
        assert found.value("cipherscore_queue_rows") == 7
        assert found.value("cipherscore_connections") == 3
        assert found.value("cipherscore_loop_delay_seconds_count") == 1
        assert found.value("cipherscore_workers") == 1
        assert found.value("cipherscore_resident_memory_bytes") > 1 << 20

    def test_series_beyond_the_room_are_left_out_and_harm_no_other(self) -> None:
        found = Segment()
        first = found.slots("first", (), 1)
        found.values[first] = 1
        spare = {found.slots("many", (str(number),), 1000) for number in range(100)}
        for slot in spare:
            found.values[slot] += 1
        numbers, _ = found.merged(frozenset(), frozenset())
        assert numbers["first", ()] == [1]
        assert 0 < sum(name == "many" for name, _ in numbers) < 100


WORKER = textwrap.dedent(
    """
    import sys
    from serving.telemetry.metrics import Metrics
    metrics = Metrics(sys.argv[1])
    metrics.serving([("classifier", "credit:1", "production", "CPUExecutionProvider", "fp32")])
    for line in sys.stdin:
        word, _, count = line.strip().partition(" ")
        if word == "answer":
            for _ in range(int(count)):
                metrics.started("grpc")
                metrics.finished("grpc", "Score", "ok", "credit:1", 1, 0.001)
        elif word == "fly":
            metrics.started("grpc")
        elif word == "scrape":
            text = metrics.exposition().decode()
            print(len(text.splitlines()))
            print(text, end="")
        print("done", flush=True)
    """
)


class Worker:
    """A process that counts."""

    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(directory)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def _in(self) -> IO[str]:
        assert self.process.stdin is not None
        return self.process.stdin

    @property
    def _out(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def tell(self, order: str) -> None:
        self._in.write(f"{order}\n")
        self._in.flush()
        assert self._out.readline() == "done\n"

    def scrape(self) -> Exposed:
        self._in.write("scrape\n")
        self._in.flush()
        lines = int(self._out.readline())
        text = "".join(self._out.readline() for _ in range(lines))
        assert self._out.readline() == "done\n"
        return Exposed(text)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        for pipe in (self._in, self._out):
            pipe.close()


@contextmanager
def workers(directory: Path, count: int) -> Iterator[list[Worker]]:
    running = [Worker(directory) for _ in range(count)]
    try:
        yield running
    finally:
        for worker in running:
            if worker.process.returncode is None:
                worker.kill()


class TestWorkers:
    def test_any_worker_tells_the_sum(self, tmp_path: Path) -> None:
        with workers(tmp_path, 3) as (one, two, three):
            one.tell("answer 5")
            two.tell("answer 7")
            three.tell("fly")
            for scraped in (one, two, three):
                found = scraped.scrape()
                assert found.total("cipherscore_requests_total") == 12
                assert found.total("cipherscore_request_seconds_count") == 12
                assert found.total("cipherscore_requests_in_flight") == 1
                assert found.value("cipherscore_workers") == 3
                assert found.value("cipherscore_worker_starts_total") == 3
                # Each of them serves it; it is one version all the same.
                assert found.total("cipherscore_model_info") == 1

    def test_a_killed_worker_keeps_its_counts_and_loses_its_gauges(self, tmp_path: Path) -> None:
        with workers(tmp_path, 2) as (one, two):
            one.tell("answer 5")
            one.tell("fly")
            two.tell("answer 1")
            one.kill()
            for _ in range(2):
                found = two.scrape()
                assert found.total("cipherscore_requests_total") == 6
                assert found.total("cipherscore_requests_in_flight") == 0
                assert found.value("cipherscore_workers") == 1
                assert found.value("cipherscore_worker_starts_total") == 2
        assert len(list(tmp_path.glob("*.values"))) == 1

    def test_files_of_dead_workers_do_not_pile_up(self, tmp_path: Path) -> None:
        with workers(tmp_path, 1) as (survivor,):
            for number in range(4):
                with workers(tmp_path, 1) as (short,):
                    short.tell("answer 2")
                assert survivor.scrape().total("cipherscore_requests_total") == 2 * (number + 1)
            assert len(list(tmp_path.glob("*.values"))) == 1

    def test_a_worker_killed_while_it_folds_neither_loses_nor_doubles(self, tmp_path: Path) -> None:
        with workers(tmp_path, 1) as (short,):
            short.tell("answer 3")
        dead = {path: path.read_bytes() for path in tmp_path.iterdir()}
        living = Metrics(str(tmp_path))
        assert read(living).total("cipherscore_requests_total") == 3
        for path, content in dead.items():  # as if it had ended right before it removed them
            path.write_bytes(content)
        assert read(living).total("cipherscore_requests_total") == 3
        assert json.loads((tmp_path / TOTALS).read_text())["folded"]
        assert len(list(tmp_path.glob("*.values"))) == 1
        assert read(living).total("cipherscore_requests_total") == 3

    def test_half_a_line_and_a_starting_worker_are_passed_over(self, tmp_path: Path) -> None:
        with workers(tmp_path, 1) as (one,):
            one.tell("answer 2")
            keys = next(tmp_path.glob("*.keys"))
            with keys.open("a") as stream:
                stream.write('[9, 1, "cipherscore_requ[9, 1, "a", []]\n[9, 1, "cipherscore_requ')
            (tmp_path / "1-abc.values").write_bytes(b"")
            assert read(Metrics(str(tmp_path))).total("cipherscore_requests_total") == 2

    def test_without_a_usable_directory_a_worker_counts_for_itself(self, tmp_path: Path) -> None:
        metrics = Metrics(str(tmp_path / "missing"))
        answer(metrics)
        assert read(metrics).total("cipherscore_requests_total") == 1

    def test_a_full_disk_costs_the_sharing_only(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(segment.os, "posix_fallocate", full)
        metrics = Metrics(str(tmp_path))
        answer(metrics)
        assert read(metrics).total("cipherscore_requests_total") == 1

    def test_a_disk_that_fills_up_later_costs_no_request(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        metrics = Metrics(str(tmp_path))
        monkeypatch.setattr(segment.os, "write", full)
        answer(metrics)
        assert read(metrics).total("cipherscore_requests_total") == 1

    def test_a_removed_directory_costs_the_sharing_only(self, tmp_path: Path) -> None:
        directory = tmp_path / "metrics"
        directory.mkdir()
        metrics = Metrics(str(directory))
        answer(metrics)
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()
        assert read(metrics).total("cipherscore_requests_total") == 1

    def test_the_parent_removes_the_directory_when_it_ends(self, tmp_path: Path) -> None:
        program = (
            "import os; from serving.telemetry import segment; segment.create_directory();"
            "print(os.environ[segment.VARIABLE])"
        )
        ended = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert Path(ended.stdout.strip()).parent == tmp_path
        assert not list(tmp_path.iterdir())

    def test_the_directory_is_the_owners_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(segment.tempfile, "tempdir", str(tmp_path))
        environment: dict[str, str] = {}
        create_directory(environment)
        directory = Path(environment[segment.VARIABLE])
        assert directory.stat().st_mode & 0o077 == 0
        Metrics(str(directory))
        assert all(path.stat().st_mode & 0o077 == 0 for path in directory.iterdir())


def test_workers_that_count_while_they_are_scraped(tmp_path: Path) -> None:
    """A scrape sees whole numbers that only grow, whatever the workers are doing."""
    with workers(tmp_path, 2) as (one, two):
        one._in.write("answer 200000\n")
        one._in.flush()
        seen = [0.0]
        end = time.monotonic() + 20
        while seen[-1] < 200_000 and time.monotonic() < end:
            seen.append(two.scrape().total("cipherscore_requests_total"))
        assert seen == sorted(seen)
        assert seen[-1] == 200_000
