"""Starting, refusing to start, surviving damage and draining: each with its own served process."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cipherscore.errors import DeviceError
from registry.store import Registry
from serving.gpu import find_card
from tests.support.models import KEY_ID, SIZES, register, tiny_models, vocabulary
from tests.support.processes import descendants, parents, wait_for
from tests.support.server import ROOT, START_LIMIT, bentoml, environment, free_port, serving
from tests.support.transports import Grpc, Http, Refused, pb, refused

ROW = {field: vocabulary().tokens[field][0] for field in SIZES}


def has_gpu() -> bool:
    try:
        find_card()
    except DeviceError:
        return False
    return True


def refusal(home: Path, **settings: object) -> str:
    """Return what a server that does not start says."""
    settings.setdefault("grpc_port", free_port())
    done = subprocess.run(
        bentoml("serve", "serving.service:CipherScore", "--port", str(free_port())),
        cwd=ROOT,
        env=environment(home, **settings),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr + done.stdout
    return " ".join(done.stderr.split())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models(tmp_path_factory.mktemp("registry")).home


def test_refuses_an_empty_registry(tmp_path: Path) -> None:
    assert "cipherscore models promote NAME:VERSION" in refusal(tmp_path)


def test_refuses_candidates_alone(tmp_path: Path) -> None:
    register(Registry(tmp_path), "classifier")
    assert "no model is in production" in refusal(tmp_path)


@pytest.mark.skipif(has_gpu(), reason="this machine has a GPU")
def test_refuses_a_device_it_lacks(home: Path) -> None:
    said = refusal(home, device="strict")
    assert "CUDA was asked for (CIPHERSCORE_DEVICE=strict) but does not run here" in said


def test_refuses_a_wrong_setting(home: Path) -> None:
    said = refusal(home, device="tpu", max_rows=0)
    assert "CIPHERSCORE_DEVICE" in said
    assert "CIPHERSCORE_MAX_ROWS" in said


def test_refuses_a_port_in_use(home: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        assert f"127.0.0.1:{port} cannot be bound" in refusal(home, grpc_port=port)


@pytest.mark.parametrize("engine", ["native", "grpcio"])
def test_ends_when_the_port_is_taken_after_it_was_checked(
    home: Path, tmp_path: Path, engine: str
) -> None:
    """BentoML would start a worker that cannot listen again and again."""
    port, log = free_port(), tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            bentoml("serve", "serving.service:CipherScore", "--port", str(free_port())),
            cwd=ROOT,
            env=environment(home, grpc_port=port, grpc_engine=engine),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(lambda: b"models run on" in log.read_bytes(), START_LIMIT, "the check")
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", port))
            holder.listen()
            assert process.wait(START_LIMIT) == 1
    finally:
        process.kill()
        process.wait()
    said = log.read_text()
    assert f"127.0.0.1:{port}" in said
    assert "Traceback" not in said
    assert sum("cannot" in line for line in said.splitlines()) == 1, said


def test_refuses_to_guess_between_two_models(tmp_path: Path) -> None:
    registry = tiny_models(tmp_path).registry
    registry.promote(register(registry, "classifier", name="other-classifier").tag)
    said = refusal(tmp_path)
    assert "several classifiers" in said
    assert "CIPHERSCORE_CLASSIFIER" in said


def test_one_model_alone_is_served_and_the_other_unavailable(tmp_path: Path) -> None:
    home, registry = tmp_path / "home", Registry(tmp_path / "home")
    registry.promote(register(registry, "classifier").tag)
    with serving(home, tmp_path / "log") as server:
        http, client = Http(server.http), Grpc(server.grpc)
        assert http.score([ROW]) == client.score([ROW])
        for transport, status in ((http, 503), (client, "UNAVAILABLE")):
            for attempt in (lambda t: t.generate(1), lambda t: t.model("generator")):
                with pytest.raises(Refused) as caught:
                    attempt(transport)
                assert (caught.value.status, caught.value.code) == (status, "model-unavailable")


def test_a_damaged_version_is_refused_and_the_one_before_is_served(tmp_path: Path) -> None:
    models = tiny_models(tmp_path / "home")
    newer = register(models.registry, "classifier", seed=1)
    models.registry.promote(newer.tag)
    content = bytearray(newer.onnx_path.read_bytes())
    content[len(content) // 2] ^= 1
    newer.onnx_path.chmod(0o644)
    newer.onnx_path.write_bytes(content)
    with serving(tmp_path / "home", tmp_path / "log") as server:
        http = Http(server.http)
        assert http.score([ROW]).model == models.classifier.tag
        assert newer.tag in http.model("classifier")["notice"]
        assert newer.tag in http.checked(http.client.get("/v1/health"))["notices"][0]
        assert Grpc(server.grpc).model("classifier")["notice"]
    assert f"refused {newer.tag}" in server.log.read_text()


def test_a_model_that_does_not_load_is_refused_like_a_damaged_one(tmp_path: Path) -> None:
    models = tiny_models(tmp_path / "home")
    broken = register(models.registry, "classifier", model=b"no model at all")
    models.registry.promote(broken.tag)
    with serving(tmp_path / "home", tmp_path / "log") as server:
        found = Http(server.http).model("classifier")
        assert found["model"] == models.classifier.tag
        assert broken.tag in found["notice"]


def test_refuses_when_the_only_model_does_not_load(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.promote(register(registry, "generator", model=b"no model at all").tag)
    assert "no model" in refusal(tmp_path)


def test_drains_on_sigterm(home: Path, tmp_path: Path) -> None:
    with serving(home, tmp_path / "log", threads=1) as server:
        client = Grpc(server.grpc)
        health = health_pb2_grpc.HealthStub(client.channel)
        states: list[int] = []

        def watch() -> None:
            try:
                answers = health.Watch(health_pb2.HealthCheckRequest(service=""))
                states.extend(answer.status for answer in answers)
            except grpc.RpcError:
                pass

        watcher = threading.Thread(target=watch)
        watcher.start()
        count = 1_000_000
        chunks = client.stub.Generate(pb.GenerateRequest(key_id=KEY_ID, count=count), timeout=60)
        made = next(chunks).table.rows
        server.process.send_signal(signal.SIGTERM)
        made += sum(chunk.table.rows for chunk in chunks)
        assert made == count
        start = time.monotonic()
        assert server.process.wait(30) == 0
        watcher.join()
        # The open watch did not hold the grace period.
        assert time.monotonic() - start < 8
        serving_, not_serving = (
            health_pb2.HealthCheckResponse.SERVING,
            health_pb2.HealthCheckResponse.NOT_SERVING,
        )
        assert states == [serving_, not_serving]
        with pytest.raises(grpc.RpcError) as caught:
            client.stub.Score(pb.ScoreRequest(key_id=KEY_ID), timeout=2)
        assert refused(caught.value).status == "UNAVAILABLE"


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_no_worker_outlives_its_parent(home: Path, tmp_path: Path) -> None:
    with serving(home, tmp_path / "log", workers=2) as server:
        workers = descendants(server.process.pid)
        assert len(workers) >= 2
        server.process.kill()
        server.process.wait()
        wait_for(lambda: not parents().keys() & set(workers), 30, "the workers end")
    for address in (server.grpc, server.http):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", int(address.rpartition(":")[2])))


def test_two_workers_share_the_port(home: Path, tmp_path: Path) -> None:
    with serving(home, tmp_path / "log", workers=2) as server:
        wait_for(lambda: server.log.read_text().count("gRPC on") == 2, 30, "both workers serve")
        for _ in range(20):
            client = Grpc(server.grpc)
            assert client.score([ROW]).probability
            client.channel.close()
