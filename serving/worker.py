"""One worker process put together: versions, admission, telemetry and both transports."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Any, Protocol
from weakref import WeakSet

from cipherscore.errors import ConfigurationError
from serving import grpc_methods, parent, tls
from serving.access import Access
from serving.dataplane import Dataplane
from serving.gate import Gate
from serving.generation import Generator
from serving.grpc_standard import Health, reflection_methods
from serving.http_app import HttpApp
from serving.lineup import Lineup
from serving.models import LoadedModel
from serving.oip import grpc as oip_grpc
from serving.oip.http import OipHttp
from serving.preflight import Plan
from serving.rpc import GrpcApp
from serving.scorer import Scorer
from serving.settings import Settings
from serving.status import Host
from serving.telemetry.observer import Observer
from serving.work import Workshop

logger = logging.getLogger("bentoml.cipherscore")


class Engine(Protocol):
    """A gRPC server: `serving.http2.server.NativeServer` or `serving.grpc_server.GrpcServer`."""

    @property
    def connections(self) -> int:
        """Open connections, as far as the engine knows."""

    async def start(self) -> None:
        """Bind and serve."""

    async def drain(self) -> None:
        """Take no new call, let running ones end, then close."""


class Worker:
    """Everything one worker process runs.

    Args:
        settings: The server's settings.
        plan: What to serve on what, as `serving.preflight` found out.
    """

    def __init__(self, settings: Settings, plan: Plan) -> None:
        self._settings = settings
        self._workshop = Workshop()
        self._observer = Observer.of_worker(settings)
        self._scorers: WeakSet[Scorer] = WeakSet()
        access = Access(settings)
        self._gate = Gate(access, self._observer, settings.max_deadline_seconds)
        self._tags = [model.tag for model in plan.models]
        self._lineup = Lineup(
            settings, plan.provider, self._scorer, self._generator, self._observer
        )
        self._host = Host(self._lineup, settings, self._gate)
        dataplane = Dataplane(self._lineup, self._workshop, self._observer.compared)
        methods = {
            **grpc_methods.methods(dataplane, self._host, self._gate),
            **oip_grpc.methods(dataplane, self._lineup, settings, self._gate),
        }
        services = (grpc_methods.SERVICE, oip_grpc.SERVICE)
        self._health = Health(services)
        methods.update(self._health.methods())
        methods.update(reflection_methods(services))
        self._engine = _engine(GrpcApp(methods, self._gate), settings)
        self._http = (dataplane, OipHttp(self._gate, dataplane, self._lineup, settings))
        self._watching: asyncio.Task[None] | None = None

    def wrap(self, bento: Any) -> HttpApp:
        """Return the HTTP application around BentoML's."""
        dataplane, oip = self._http
        return HttpApp(
            bento, self._gate, dataplane, self._host, self._settings, oip, self._observer
        )

    def _scorer(self, model: LoadedModel) -> Scorer:
        scorer = Scorer(model, self._settings, self._workshop.executor, self._observer)
        self._scorers.add(scorer)
        return scorer

    def _generator(self, model: LoadedModel) -> Generator:
        return Generator(model, self._settings.max_generated_rows)

    async def start(self) -> None:
        """Load the versions, serve gRPC on the running loop, and look for promoted versions.

        Raises:
            CipherScoreError: Nothing can be served, or the gRPC address is taken.
        """
        await self._lineup.start(self._tags)
        try:
            await self._engine.start()
        except ConfigurationError as error:
            # Somebody took the address since the parent looked.
            logger.error("%s", error)  # noqa: TRY400 - the text says all
            parent.give_up()
            raise
        self._observer.start(self._waiting_rows, lambda: self._engine.connections)
        self._health.set(serving=True)
        self._watching = asyncio.create_task(self._lineup.watch())
        # What was loaded until now stays.  Without this the collector walks all of it again and
        # again, and every request waits for more than a tenth of a second each time.
        gc.collect()
        gc.freeze()

    def _waiting_rows(self) -> int:
        return sum(scorer.waiting_rows for scorer in self._scorers)

    async def stop(self) -> None:
        """Say so, let what runs end, and close."""
        self._gate.draining = True
        self._health.end()
        if self._watching is not None:
            self._watching.cancel()
        await self._engine.drain()
        self._lineup.close()
        self._workshop.close()
        self._observer.close()


def _engine(app: GrpcApp, settings: Settings) -> Engine:
    """Return the gRPC engine that the settings choose."""
    if settings.grpc_engine == "grpcio":
        from serving.grpc_server import GrpcServer  # noqa: PLC0415

        return GrpcServer(app, settings, tls.grpc_credentials(settings))
    from serving.http2.server import NativeServer  # noqa: PLC0415

    return NativeServer(app, settings, tls.server_context(settings, tls.H2))
