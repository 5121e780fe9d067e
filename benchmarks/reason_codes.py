"""What reason codes cost: rows per second and latency with and without, in one run.

    python -m benchmarks.reason_codes [--home BENTOML_HOME] [--reasons 4]

Three layers, each without a network in between, on one thread: the model alone, gRPC from the bytes
of a request to those of its answer, and HTTP likewise.  With and without take turns, round by
round, so that what else the machine does hits both.  Times are of the best round; beside their
ratio stands the median of the rounds' ratios.
Without ``--home`` the model is the default preset's network on German Credit's fields with random
weights: its cost does not depend on what they are.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.serving.rows import KEY_ID, NAME, SIZES, vocabulary
from cipherscore.proto.v1 import cipherscore_pb2 as pb
from cipherscore.schema import PublicField, PublicSchema
from cipherscore.tokens import to_text
from export import reasons
from export.classifier import to_onnx
from export.onnx_file import IR_VERSION
from registry.store import Registry
from registry.version import MODEL, REASONS, SCHEMA, VOCABULARY, Version, VersionRecord
from serving import grpc_methods
from serving.access import Access
from serving.call import Call
from serving.dataplane import Dataplane
from serving.gate import Gate
from serving.http_api import HttpApi
from serving.models import load
from serving.providers import CPU, Provider
from serving.rpc import Unary
from serving.scorer import Scorer
from serving.settings import Settings
from serving.telemetry.observer import Observer
from serving.work import Workshop
from training.attribution import OneHiddenLayer
from training.network import WideDeepEnsemble
from training.presets import DEFAULT

ROWS = (1, 64, 1000)
ROUNDS = 41
ROUND_SECONDS = 0.02

Ask = Callable[[bool], Awaitable[int]]
"""Asks for an answer, with or without reasons; returns its bytes."""


class OneModel:
    """A lineup of one classifier."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def classifier(self, _: str, *, explained: bool) -> Scorer:  # noqa: ARG002
        """Return it, whatever was asked for."""
        return self._scorer

    def shadows(self) -> tuple[Scorer, ...]:
        """Return none."""
        return ()


def made_up(home: Path) -> Version:
    """Register the default preset's network with random weights and its reason codes."""
    generator = torch.Generator().manual_seed(0)
    sizes = tuple(SIZES.values())
    network = WideDeepEnsemble(sizes, DEFAULT.members, DEFAULT.hidden[0], 0.0).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) / 4)
    mean = np.concatenate([np.full(size, 1 / size) for size in sizes])
    exact = OneHiddenLayer.of(network, sizes, mean)
    why = reasons.to_onnx(exact)
    why.metadata_props.add(key=reasons.BASE, value=repr(exact.base))
    model = to_onnx(network, len(sizes))
    model.ir_version = IR_VERSION
    digest = hashlib.sha256(b"reason codes").hexdigest()
    fields = tuple(PublicField(name, "categorical") for name in SIZES)
    schema = PublicSchema(NAME, digest, fields, "risk", 5.0, 1.0)
    record = VersionRecord(
        kind="classifier", key_id=KEY_ID, dataset_digest=digest, code_version="benchmark",
        preset=DEFAULT.name, seed=0, metrics={}, threshold=0.5,
    )  # fmt: skip
    files: dict[str, Path | bytes] = {
        MODEL: model.SerializeToString(),
        REASONS: why.SerializeToString(),
        VOCABULARY: vocabulary().to_json().encode(),
        SCHEMA: schema.to_json().encode(),
    }
    return Registry(home).register(NAME, files, record)


def drawn(sizes: tuple[int, ...], rows: int) -> np.ndarray:
    """Return random valid rows, int32 [rows, fields]."""
    random = np.random.default_rng(rows)
    return np.stack([random.integers(size, size=rows) for size in sizes], axis=1).astype(np.int32)


@dataclass(frozen=True)
class Layers:
    """What is measured: each gives a coroutine that asks for ``rows`` rows."""

    scorer: Scorer
    dataplane: Dataplane
    http: HttpApi
    count: int

    def model(self, rows: int) -> Ask:
        """Return the model alone, indices in, numbers out."""
        model = self.scorer.model
        indices = drawn(model.vocabulary.sizes, rows)

        async def ask(explained: bool) -> int:
            if explained:
                return model.run_explained(indices).nbytes
            return model.run({"indices": indices}).nbytes

        return ask

    def grpc(self, rows: int) -> Ask:
        """Return ``Score`` from a serialized request to its serialized answer."""
        method = grpc_methods.methods(self.dataplane, *[None] * 2)[  # type: ignore[arg-type]
            f"/{grpc_methods.SERVICE}/Score"
        ]
        assert isinstance(method, Unary)
        contents = {
            explained: self._request(rows, explained).SerializeToString()
            for explained in (False, True)
        }

        async def ask(explained: bool) -> int:
            future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

            def respond(answer: Any) -> None:
                if isinstance(answer, BaseException):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

            now = time.monotonic()
            call = Call("grpc", "Score", "benchmark", now, now + 60)
            method.start(contents[explained], call, respond)
            return len(await future)

        return ask

    def _request(self, rows: int, explained: bool) -> pb.ScoreRequest:
        known = self.scorer.model.vocabulary
        indices = drawn(known.sizes, rows)
        request = pb.ScoreRequest(key_id=known.key_id, reasons=self.count if explained else 0)
        request.table.rows = rows
        for position, (field, tokens) in enumerate(known.tokens.items()):
            used, place = np.unique(indices[:, position], return_inverse=True)
            request.table.columns.add(
                field=field,
                dictionary=[tokens[index] for index in used],
                indices=place.astype(np.uint8).tobytes(),
            )
        return request

    def json(self, rows: int) -> Ask:
        """Return ``POST /v1/score`` from a body to an answer's body."""
        from pydantic_core import to_json  # noqa: PLC0415

        known = self.scorer.model.vocabulary
        columns = [[to_text(token) for token in tokens] for tokens in known.tokens.values()]
        records = [
            {
                field: column[index]
                for field, column, index in zip(known.tokens, columns, row, strict=True)
            }
            for row in drawn(known.sizes, rows).tolist()
        ]
        bodies = {
            explained: to_json(
                {
                    "key_id": known.key_id,
                    "records": records,
                    "reasons": self.count if explained else 0,
                }
            )
            for explained in (False, True)
        }
        return lambda explained: _post(self.http, bodies[explained])


async def _post(app: HttpApi, body: bytes) -> int:
    """Return the bytes of the answer to a body."""
    sent = 0
    status = 0
    parts = [body]

    async def receive() -> dict[str, Any]:
        if parts:
            return {"type": "http.request", "body": parts.pop(), "more_body": False}
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async def send(message: Any) -> None:
        nonlocal sent, status
        status = message.get("status", status)
        sent += len(message.get("body", b""))

    scope = {
        "type": "http", "method": "POST", "path": "/v1/score", "query_string": b"",
        "headers": [(b"content-length", b"%d" % len(body))], "state": {},
    }  # fmt: skip
    await app(scope, receive, send)
    assert status == 200, status
    return sent


async def measure(ask: Ask) -> tuple[float, float, float]:
    """Return the best seconds of an answer without and with reasons, and the median ratio."""
    repeats = 1
    while await _seconds(ask, repeats, explained=False) * repeats < ROUND_SECONDS:
        repeats *= 2
    rounds = [
        (
            await _seconds(ask, repeats, explained=False),
            await _seconds(ask, repeats, explained=True),
        )
        for _ in range(ROUNDS)
    ]
    plain, explained = (min(times) for times in zip(*rounds, strict=True))
    return plain, explained, statistics.median(b / a for a, b in rounds)


async def _seconds(ask: Ask, repeats: int, *, explained: bool) -> float:
    """Return the mean seconds of an answer."""
    started = time.perf_counter()
    for _ in range(repeats):
        await ask(explained)
    return (time.perf_counter() - started) / repeats


async def compare(version: Version, count: int) -> None:
    """Measure every layer and print a line for each."""
    settings, workshop = Settings(threads=1), Workshop()
    observer = Observer(settings)
    model = load(version, Provider(CPU, "a benchmark"), 1)
    scorer = Scorer(model, settings, workshop.executor, observer)
    lineup: Any = OneModel(scorer)
    dataplane = Dataplane(lineup, workshop, observer.compared)
    gate = Gate(Access(settings), observer, settings.max_deadline_seconds)
    http = HttpApi(gate, dataplane, lineup, settings, observer)
    layers = Layers(scorer, dataplane, http, count)
    print(
        f"{version.tag}: {len(model.vocabulary.fields)} fields, {count} reasons a row, one thread"
    )
    print(f"{'layer':<7} {'rows':>5} {'us without':>11} {'us with':>9} {'rows/s without':>15} "
          f"{'rows/s with':>12} {'ratio':>6} {'median':>7}")  # fmt: skip
    for name, layer in {"model": layers.model, "gRPC": layers.grpc, "HTTP": layers.json}.items():
        for rows in ROWS:
            plain, explained, ratio = await measure(layer(rows))
            print(
                f"{name:<7} {rows:>5} {plain * 1e6:>11.1f} {explained * 1e6:>9.1f} "
                f"{rows / plain:>15,.0f} {rows / explained:>12,.0f} "
                f"{explained / plain:>6.2f} {ratio:>7.2f}"
            )
    workshop.close()


def main(
    home: Annotated[Path | None, typer.Option(help="BentoML home with a classifier.")] = None,
    count: Annotated[int, typer.Option("--reasons", help="Reasons for each row.", min=1)] = 4,
) -> None:
    """Measure."""
    torch.set_num_threads(1)
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    with tempfile.TemporaryDirectory(prefix="cipherscore-reasons-") as folder:
        if home is None:
            version = made_up(Path(folder))
        else:
            registry = Registry(home)
            name = next(name for name in registry.names() if name.endswith("-classifier"))
            version = registry.production(name)
        asyncio.run(compare(version, count))


if __name__ == "__main__":
    typer.run(main)
