"""Versions that change under constant load, in real served processes.

CIPHERSCORE_SWAPS sets the number of promotions and rollbacks (default 20).
"""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from registry import Stage, Version
from tests.support.models import KEY_ID, TinyModels, register, tiny_models
from tests.support.processes import command, descendants, wait_for
from tests.support.server import Server, serving
from tests.support.swapping import check, close, draw, rows_of, traffic, until
from tests.support.transports import Grpc, Http, Refused, pb

SWAPS = int(os.environ.get("CIPHERSCORE_SWAPS", "20"))
ADMIN_KEY = "c" * 43
FAST = {"watch_seconds": 0.05, "threads": 1}


@pytest.fixture
def tiny(tmp_path: Path) -> TinyModels:
    return tiny_models(tmp_path / "home")


def promote(tiny: TinyModels, kind: str = "classifier", seed: int = 1) -> Version:
    return tiny.registry.promote(register(tiny.registry, kind, seed=seed).tag)


def health(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{server.http}/v1/health", timeout=30).json()
    return found


def answers(server: Server, count: int) -> set[str]:
    """Versions that answer ``count`` requests over new connections of both transports."""
    indices = draw(np.random.default_rng(0), 1)
    found = set()
    for _ in range(count):
        for transport in (Grpc(server.grpc), Http(server.http)):
            found.add(transport.score(rows_of(indices)).model)
            close(transport)
    return found


def figure(server: Server, name: str) -> float:
    """The sum of a metric's series whose line begins with ``name``."""
    text = httpx.get(f"{server.http}/metrics", timeout=30).text
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["native", "grpcio"])
@pytest.mark.parametrize("workers", [1, 2])
def test_no_request_fails_while_versions_are_promoted_and_rolled_back(
    tiny: TinyModels, tmp_path: Path, workers: int, engine: str
) -> None:
    old, name = tiny.classifier, tiny.classifier.name
    new = register(tiny.registry, "classifier", seed=1)
    seeds = {old.tag: 0, new.tag: 1}
    with (
        serving(tiny.home, tmp_path / "log", workers=workers, grpc_engine=engine, **FAST) as server,
        traffic(server, seeds, clients=2, fresh=workers > 1) as found,
    ):
        until(lambda: found.seen(old.tag), found.failures)
        for number in range(SWAPS):
            if number % 2 == 0:
                wanted = tiny.registry.promote(new.tag)
            else:
                wanted = tiny.registry.rollback(name)
            until(lambda tag=wanted.tag: found.seen(tag), found.failures)
    assert found.failures == []
    for transport in ("grpc", "http"):
        for tag in seeds:
            assert found.answers[transport, tag] >= SWAPS / 2
    print(f"{SWAPS} swaps, {found.answers.total()} answers, none failed: {found.answers}")
    assert "[ERROR]" not in (tmp_path / "log").read_text()


@pytest.mark.slow
def test_many_swaps_in_a_row_lose_nothing(tiny: TinyModels, tmp_path: Path) -> None:
    """Faster than a server can follow: it may skip versions, but ends with the last."""
    new = register(tiny.registry, "classifier", seed=1)
    seeds = {tiny.classifier.tag: 0, new.tag: 1}
    with (
        serving(tiny.home, tmp_path / "log", **FAST) as server,
        traffic(server, seeds, clients=2) as found,
    ):
        until(lambda: found.seen(tiny.classifier.tag), found.failures)
        for _ in range(SWAPS):
            tiny.registry.promote(new.tag)
            tiny.registry.rollback(new.name)
        tiny.registry.promote(new.tag)
        until(lambda: found.seen(new.tag), found.failures)
    assert found.failures == []


def test_a_stream_ends_with_the_version_it_began_with(tiny: TinyModels, tmp_path: Path) -> None:
    count = 2_000_000
    with serving(tiny.home, tmp_path / "log", **FAST) as server:
        client = Grpc(server.grpc)
        chunks = client.stub.Generate(pb.GenerateRequest(key_id=KEY_ID, count=count), timeout=120)
        first = next(chunks)
        assert first.model == tiny.generator.tag
        newer = promote(tiny, "generator")
        wait_for(lambda: client.generate(1).model == newer.tag, 60, "the new version answers")
        made, models = first.table.rows, {first.model}
        for chunk in chunks:
            made += chunk.table.rows
            models.add(chunk.model)
        assert (made, models) == (count, {tiny.generator.tag})


def test_a_version_that_fails_is_told_and_the_old_one_goes_on(
    tiny: TinyModels, tmp_path: Path
) -> None:
    with (
        serving(tiny.home, tmp_path / "log", **FAST) as server,
        traffic(server, {tiny.classifier.tag: 0}, clients=1) as found,
    ):
        broken = tiny.registry.promote(
            register(tiny.registry, "classifier", model=b"no model at all").tag
        )
        until(lambda: health(server)["status"] == "degraded", found.failures)
        assert broken.tag in str(health(server)["notices"])
        assert broken.tag in str(Grpc(server.grpc).model("classifier")["notice"])
        failed = 'cipherscore_swap_total{kind="classifier",outcome="failed"}'
        until(lambda: figure(server, failed) == 1, found.failures)
        assert server.ready()
        tiny.registry.rollback(broken.name)
        until(lambda: health(server)["status"] == "serving", found.failures)
    assert found.failures == []
    assert f"refused {broken.tag}" in server.log.read_text()


def test_canary_shadow_and_pinned_versions(tiny: TinyModels, tmp_path: Path) -> None:
    old, registry = tiny.classifier, tiny.registry
    canary, shadow, extra = [register(registry, "classifier", seed=seed) for seed in (1, 2, 3)]
    seeds = {old.tag: 0, canary.tag: 1, shadow.tag: 2, extra.tag: 3}
    with serving(tiny.home, tmp_path / "log", extra_models=extra.tag, **FAST) as server:
        client, http = Grpc(server.grpc), Http(server.http)
        assert answers(server, 10) == {old.tag}
        registry.promote(canary.tag, Stage.CANARY, 50)
        registry.promote(shadow.tag, Stage.SHADOW)
        wait_for(lambda: len(health(server)["versions"]) == 5, 60, "both are live")
        assert answers(server, 20) == {old.tag, canary.tag}
        random = np.random.default_rng(1)
        for transport in (client, http):
            for tag in seeds:
                indices = draw(random, 3)
                scored = transport.score(rows_of(indices), model=tag)
                assert scored.model == tag
                check(scored, indices, seeds)
            with pytest.raises(Refused) as caught:
                transport.score(rows_of(indices), model=f"{old.name}:20200101-000000-000-0000")
            assert caught.value.code == "unknown-model"
        told = httpx.get(f"{server.http}/v1/models", timeout=30).json()["models"]
        stages = {model["model"]: model["stage"] for model in told}
        assert [stages[tag] for tag in seeds] == ["production", "canary", "shadow", "pinned"]
        rows = 2 * 20 + 2 * len(seeds) * 3  # of the requests above, since the shadow is there
        compared = "cipherscore_shadow_rows_total{"
        wait_for(lambda: figure(server, compared) == rows, 60, "all of them are compared")
        assert figure(server, "cipherscore_shadow_failures_total{") == 0
        assert (
            figure(
                server,
                f'cipherscore_model_requests_total{{code="ok",kind="classifier",model="{canary.tag}"',
            )
            > 0
        )
        registry.unstage(old.name, Stage.CANARY)
        registry.unstage(old.name, Stage.SHADOW)
        wait_for(lambda: len(health(server)["versions"]) == 3, 60, "both have ended")
        assert answers(server, 10) == {old.tag}


def test_a_version_loaded_on_request_is_served_by_every_worker(
    tiny: TinyModels, tmp_path: Path
) -> None:
    version = register(tiny.registry, "classifier", seed=1)
    clients = tmp_path / "clients.toml"
    digest = hashlib.sha256(ADMIN_KEY.encode()).hexdigest()
    clients.write_text(
        f'[[client]]\nname = "operator"\nkey_sha256 = ["{digest}"]\n'
        'scopes = ["score", "generate", "admin"]\n'
    )
    with (
        serving(tiny.home, tmp_path / "log", workers=2, clients_file=clients, **FAST) as server,
        httpx.Client(base_url=server.http, headers={"x-api-key": ADMIN_KEY}, timeout=60) as admin,
    ):
        repository = "/v2/repository/models"

        def served() -> set[int]:
            """Statuses of the version's readiness over new connections, so by all workers."""
            path = f"{server.http}/v2/models/{version.name}/versions/{version.version}/ready"
            return {httpx.get(path, timeout=60).status_code for _ in range(12)}

        assert 200 not in served()
        assert admin.post(f"{repository}/{version.tag}/load").status_code == 200
        wait_for(lambda: served() == {200}, 60, "all workers have it")
        before = workers(server)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: len(workers(server) - before) == 2 and server.ready(), 60, "replacement")
        assert served() == {200}
        assert admin.post(f"{repository}/{version.tag}/unload").status_code == 200
        wait_for(lambda: 200 not in served(), 60, "no worker has it")
        refused = admin.post(f"{repository}/{tiny.classifier.name}/unload")
        assert refused.status_code == 400
        assert "production" in refused.text


def test_a_replaced_worker_serves_what_is_in_production_by_then(
    tiny: TinyModels, tmp_path: Path
) -> None:
    """The version the server was started with has been removed from the registry meanwhile."""
    with serving(tiny.home, tmp_path / "log", workers=2, **FAST) as server:
        newer = promote(tiny)
        tiny.registry.remove(tiny.classifier.tag)
        wait_for(lambda: answers(server, 3) == {newer.tag}, 60, "the workers follow")
        before = workers(server)
        assert len(before) == 2
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: len(workers(server) - before) == 2 and server.ready(), 60, "replacement")
        assert answers(server, 5) == {newer.tag}
        assert health(server)["status"] == "serving"


def workers(server: Server) -> set[int]:
    """Processes that serve."""
    return {pid for pid in descendants(server.process.pid) if "worker" in command(pid)}
