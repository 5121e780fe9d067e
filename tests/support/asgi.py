"""The HTTP application in this process: real gate, models and telemetry, no server in between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from registry.version import Version
from serving.access import Access
from serving.dataplane import Dataplane
from serving.gate import Gate
from serving.generation import Generator
from serving.http_app import HttpApp
from serving.models import load
from serving.providers import Provider
from serving.scorer import Scorer
from serving.settings import Settings
from serving.status import describe
from serving.telemetry.observer import Observer
from serving.work import Workshop


class FixedLineup:
    """Two versions, for ever; also tells about them as the server's host does."""

    ready = True

    def __init__(self, scorer: Scorer, generator: Generator, settings: Settings) -> None:
        self._members = {"classifier": scorer, "generator": generator}
        self._settings = settings

    def _pick(self, kind: str, wanted: str) -> Any:
        from cipherscore.errors import UnknownModel

        found = self._members.get(kind)
        if found is None or wanted not in {"", found.model.tag, found.model.tag.split(":")[0]}:
            raise UnknownModel("this server has no such model", field="model")
        return found

    def classifier(self, wanted: str = "", *, explained: bool = False) -> Any:
        return self._pick("classifier", wanted)

    def generator(self, wanted: str = "") -> Any:
        return self._pick("generator", wanted)

    def shadows(self) -> tuple[Scorer, ...]:
        return ()

    def facts(self) -> list[Any]:
        return [self.model_facts(kind) for kind in self._members]

    def model_facts(self, kind: str, wanted: str = "") -> Any:
        return describe(self._pick(kind, wanted).model, self._settings.max_rows, "production", "")

    def health(self) -> dict[str, Any]:
        models = {kind: member.model.tag for kind, member in self._members.items()}
        return {
            "status": "serving", "device": "cpu", "device_reason": "test",
            "models": models, "versions": [], "watching": False, "notices": [],
        }  # fmt: skip


async def no_app(scope: Any, receive: Any, send: Any) -> None:
    """Stand for BentoML's application."""
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body", "body": b"bento " + scope["path"].encode()})


@dataclass
class InProcess:
    """The application and its parts."""

    app: HttpApp
    gate: Gate
    observer: Observer
    lineup: FixedLineup
    settings: Settings


def in_process(versions: Iterable[Version], **chosen: Any) -> InProcess:
    """Build the application for a classifier and a generator."""
    settings = Settings(threads=1, **chosen)
    observer = Observer(settings)
    workshop = Workshop()
    provider = Provider("cpu", "test")
    loaded = {version.record.kind: load(version, provider, 1) for version in versions}
    scorer = Scorer(loaded["classifier"], settings, workshop.executor, observer)
    generator = Generator(loaded["generator"], settings.max_generated_rows)
    lineup: Any = FixedLineup(scorer, generator, settings)
    gate = Gate(Access(settings), observer, settings.max_deadline_seconds)
    dataplane = Dataplane(lineup, workshop, observer.compared)
    app = HttpApp(no_app, gate, dataplane, lineup, settings, no_app, observer)
    return InProcess(app, gate, observer, lineup, settings)


@dataclass
class Reply:
    """What the application sent."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False


async def request(
    app: Any,
    method: str,
    path: str,
    body: bytes | Sequence[bytes] = b"",
    headers: Sequence[tuple[bytes, bytes]] = (),
    query: bytes = b"",
    *,
    leave_after: int | None = None,
) -> Reply:
    """Send one request as a server would, and check what comes as a server would.

    Args:
        app: The application.
        method: As in ASGI.
        path: As in ASGI.
        body: In how many parts it arrives.
        headers: As in ASGI.
        query: As in ASGI.
        leave_after: After how many parts of the body the client goes.
    """
    parts = [body] if isinstance(body, bytes) else list(body)
    reply = Reply()
    sent = 0
    gone = asyncio.Event()

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if leave_after is not None and sent >= leave_after:
            return {"type": "http.disconnect"}
        if sent < len(parts):
            sent += 1
            return {
                "type": "http.request", "body": parts[sent - 1], "more_body": sent < len(parts),
            }  # fmt: skip
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            assert not reply.status
            reply.status = message["status"]
            for name, value in message["headers"]:
                assert isinstance(name, bytes)
                assert isinstance(value, bytes)
                assert not {b"\r"[0], b"\n"[0], 0} & set(name + value)
                reply.headers[name.decode()] = value.decode("latin-1")
            return
        assert reply.status
        assert not reply.complete
        reply.body += message.get("body", b"")
        reply.complete = not message.get("more_body", False)

    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode("utf-8", "replace"),
        "query_string": query, "headers": list(headers), "http_version": "1.1", "scheme": "http",
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "root_path": "", "state": {},
    }  # fmt: skip
    try:
        await app(scope, receive, send)
    finally:
        gone.set()
    return reply


def versions_in(home: Path) -> list[Version]:
    """Make tiny models in ``home`` and return them."""
    from tests.support.models import tiny_models

    models = tiny_models(home)
    return [models.classifier, models.generator]
