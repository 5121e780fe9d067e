"""Inference for both transports: a request is scored, or answered with synthetic rows."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TYPE_CHECKING, TypeAlias

from cipherscore.errors import InvalidRequest, PermissionDenied, UnknownModel
from registry.version import CLASSIFIER
from serving.call import Call
from serving.dataplane import Dataplane
from serving.generation import Chunk, Generator
from serving.oip import generating, scoring
from serving.oip.protocol import Answer, Request, choose, limit_time
from serving.scorer import Scorer, Scores
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.lineup import Lineup

Done: TypeAlias = Callable[["Answer | BaseException"], None]


class Inference:
    """Answers inference requests.

    Args:
        dataplane: What has the work done.
        lineup: The live versions.
        settings: Limits.
    """

    def __init__(self, dataplane: Dataplane, lineup: Lineup, settings: Settings) -> None:
        self._dataplane = dataplane
        self._lineup = lineup
        self._settings = settings

    def score(self, call: Call, request: Request, done: Done) -> None:
        """Score a request; ``done`` gets the answer or the error, once, now or later.

        Raises:
            RequestError: The request is refused at once; ``done`` is then not called.
        """
        limit_time(call, request.parameters)
        names = scoring.outputs_of(request)
        model, request_id = request.model, request.id
        if scoring.has_indices(request):
            # Never the canary: whoever sends indices took them from the version in production.
            steady: Scorer = self._lineup.crew(CLASSIFIER).steady(model)
            model = steady.model.tag
            table = scoring.table_of(request, steady.model.vocabulary)
        else:
            table = scoring.table_of(request)

        def answered(scores: Scores | BaseException) -> None:
            if isinstance(scores, BaseException):
                done(scores)
            else:
                done(scoring.answer(scores, names, request_id))

        reasons = scoring.reasons_for(names)
        self._dataplane.score(call, table, None, model, answered, reasons)

    async def generate(self, call: Call, request: Request) -> Answer:
        """Return all rows a request asks for.

        Raises:
            RequestError: The request is refused.
        """
        limit = self._settings.max_generated_json_rows
        seed, chunks, generator, names = self._begin(call, request, limit)
        parts = [chunk async for chunk in chunks]
        return generating.answer(parts, generator, seed, names, request.id)

    async def stream(
        self, call: Call, request: Request
    ) -> AsyncGenerator[tuple[Answer, bool], None]:
        """Yield the rows in parts, made as they are taken, each with whether it is the last.

        Raises:
            RequestError: The request is refused.
        """
        limit = self._settings.max_generated_rows
        seed, chunks, generator, names = self._begin(call, request, limit)
        made = 0
        async for chunk in chunks:
            made += len(chunk.indices)
            answer = generating.answer([chunk], generator, seed, names, request.id)
            yield answer, made == call.rows

    def _begin(
        self, call: Call, request: Request, limit: int
    ) -> tuple[int, AsyncIterator[Chunk], Generator, tuple[str, ...]]:
        if "generate" not in call.scopes:
            raise PermissionDenied("this client may not generate")
        limit_time(call, request.parameters)
        try:
            generator = self._lineup.generator(request.model)
        except UnknownModel:
            self._lineup.classifier(request.model)
            raise InvalidRequest(
                f"the model needs one of the inputs {', '.join(scoring.INPUTS)}"
            ) from None
        names = choose(request.outputs, generating.OUTPUTS)
        order = generating.order_of(request, generator, limit)
        seed, chunks, generator = self._dataplane.start_generation(
            call, order, generator.model.tag, limit
        )
        return seed, chunks, generator, names
