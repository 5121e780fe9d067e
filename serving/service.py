"""What BentoML serves: ``bentoml serve serving.service:CipherScore``.

The parent process imports this module, checks in a process of its own that the models run
(`serving.preflight`), and starts the workers; a worker (`serving.worker`) loads the models, answers
HTTP and runs the gRPC server beside it, on the same event loop.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

# This host handles other people's credit data; BentoML must not report on it to its makers.
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

import bentoml
from _bentoml_sdk import Service
from bentoml.exceptions import BentoMLException
from bentoml.models import BentoModel

from cipherscore.errors import CipherScoreError
from serving import parent, preflight, requested, selection, settings_check, tls
from serving.access import Access
from serving.settings import Settings, load_settings
from serving.telemetry import logs, segment

if TYPE_CHECKING:
    from serving.http_app import Front
    from serving.worker import Worker

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


settings, tags = _prepare()
logs.configure_logging(settings)
if preflight.published() is not None:
    # In a worker, before uvicorn makes its own.
    tls.lend_context_to_uvicorn(settings)


_fronts: list[Front] = []


class Fronted(Service):  # type: ignore[misc]  # untyped
    """BentoML's service, whose application stands behind ours (`serving.http_app`)."""

    def to_asgi(self, is_main: bool = True) -> Front:
        """Return the application; BentoML calls this once in each worker."""
        from serving.http_app import Front  # noqa: PLC0415

        _fronts.append(Front(super().to_asgi(is_main), settings))
        return _fronts[-1]


@bentoml.service(
    name="cipherscore",
    service_class=Fronted,
    workers=settings.workers,
    traffic={"timeout": _REQUEST_SECONDS},
    ssl=tls.bentoml_config(settings),
    # Ours tell more, of both transports; BentoML's hold the paths of requests.
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class CipherScore:
    """Scores encrypted credit records and makes synthetic ones, without a key."""

    worker: Worker

    def __init__(self) -> None:
        # Only workers come here.
        from serving.worker import Worker  # noqa: PLC0415

        parent.end_with_parent()
        plan = preflight.published() or preflight.plan_in_subprocess(settings)
        logs.configure_logging(settings)
        self.worker = Worker(settings, plan)

    @bentoml.on_deployment  # type: ignore[untyped-decorator]  # BentoML's are lazily made
    @staticmethod
    def check() -> None:
        """Once, in the parent, before any worker: refuse to start what could not serve.

        Raises:
            BentoMLException: One line that says why.
        """
        logs.configure_logging(settings)
        try:
            preflight.check_port(settings)
            Access(settings)  # a worker that cannot read its files would be restarted for ever
            tls.server_context(settings, tls.H2)
            plan = preflight.plan_in_subprocess(settings)
            requested.announce()
        except CipherScoreError as error:
            raise BentoMLException(str(error)) from error
        preflight.publish(plan)
        parent.announce()
        for warning in settings_check.warnings(settings):
            logger.warning("%s", warning)
        segment.create_directory()
        logger.info("models run on %s: %s", plan.provider.name, plan.provider.reason)
        for model in plan.models:
            logger.info("serving %s", model.tag)
            if model.notice:
                logger.warning("%s", model.notice)

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    async def start(self) -> None:
        """Load the models and serve, on this worker's event loop."""
        await self.worker.start()
        assert _fronts, "BentoML serves an application it did not ask this service for"
        for front in _fronts:
            front.open(self.worker.wrap)

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def stop(self) -> None:
        """Let running gRPC calls end; HTTP requests have ended by now."""
        await self.worker.stop()


_service: Any = CipherScore
# Recorded in bento.yaml by `bentoml build`, and carried along by export and containerize.
_service.models.extend(BentoModel(tag) for tag in tags)
