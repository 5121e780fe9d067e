"""What BentoML serves: ``bentoml serve serving.service:CipherScore``.

The parent process imports this module, checks in a process of its own that the models run
(`serving.preflight`), and starts the workers; a worker loads the models, answers HTTP under
``/v1`` and runs the gRPC server beside it.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

# This host handles other people's credit data; BentoML must not report on it to its makers.
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

import bentoml
from bentoml.exceptions import BentoMLException
from bentoml.models import BentoModel

from cipherscore.errors import CipherScoreError
from serving import parent, preflight, selection
from serving.settings import Settings, load_settings

if TYPE_CHECKING:
    from serving.grpc_server import GrpcServer

logger = logging.getLogger("bentoml.cipherscore")

_REQUEST_SECONDS = 300


def _prepare() -> tuple[Settings, tuple[str, ...]]:
    """Return the settings and the tags of the models to record in a Bento.

    Raises:
        BentoMLException: Wrong settings, or nothing to serve; BentoML shows it in one line.
    """
    try:
        settings = load_settings()
        plan = preflight.published()
        if plan is not None:
            return settings, tuple(model.tag for model in plan.models)
        return settings, tuple(c.version.tag for c in selection.choose(settings))
    except CipherScoreError as error:
        raise BentoMLException(str(error)) from error


class LateApp:
    """An ASGI application that is set after it was mounted.

    The real one needs the models, and its framework should not be loaded in the parent process.
    """

    def __init__(self) -> None:
        self.app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on."""
        await self.app(scope, receive, send)


settings, tags = _prepare()
_http = LateApp()


@bentoml.service(
    name="cipherscore",
    workers=settings.workers,
    traffic={"timeout": _REQUEST_SECONDS},
)
@bentoml.asgi_app(_http, path="/v1")
class CipherScore:
    """Scores encrypted credit records and makes synthetic ones, without a key."""

    def __init__(self) -> None:
        # Only workers come here.
        from serving.http_api import build_app  # noqa: PLC0415
        from serving.status import Host  # noqa: PLC0415
        from serving.work import Workshop  # noqa: PLC0415

        parent.end_with_parent()
        plan = preflight.published() or preflight.plan_in_subprocess(settings)
        self._workshop = Workshop()
        self._host = Host(preflight.load_planned(plan, settings), settings)
        _http.app = build_app(self._host, self._workshop)
        self._grpc: GrpcServer | None = None

    @bentoml.on_deployment  # type: ignore[untyped-decorator]  # BentoML's are lazily made
    @staticmethod
    def check() -> None:
        """Once, in the parent, before any worker: refuse to start what could not serve.

        Raises:
            BentoMLException: One line that says why.
        """
        try:
            preflight.check_port(settings)
            plan = preflight.plan_in_subprocess(settings)
        except CipherScoreError as error:
            raise BentoMLException(str(error)) from error
        preflight.publish(plan)
        parent.announce()
        logger.info("models run on %s: %s", plan.provider.name, plan.provider.reason)
        for model in plan.models:
            logger.info("serving %s", model.tag)
            if model.notice:
                logger.warning("%s", model.notice)

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    async def start(self) -> None:
        """Start gRPC in this worker, on its event loop."""
        from serving.grpc_server import GrpcServer  # noqa: PLC0415

        self._grpc = GrpcServer(self._host, self._workshop)
        await self._grpc.start()

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def stop(self) -> None:
        """Let running gRPC calls end; HTTP requests have ended by now."""
        if self._grpc is not None:
            await self._grpc.drain()
        self._workshop.close()


# Recorded in bento.yaml by `bentoml build`, and carried along by export and containerize.
_service: Any = CipherScore
_service.models.extend(BentoModel(tag) for tag in tags)
