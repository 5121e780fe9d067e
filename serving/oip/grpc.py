"""``inference.GRPCInferenceService``: the Open Inference Protocol over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from cipherscore.errors import InvalidRequest, RequestError
from cipherscore.proto.inference import grpc_service_pb2 as pb
from serving.call import Call
from serving.dataplane import Dataplane
from serving.futures import settle
from serving.gate import Gate
from serving.oip import scoring
from serving.oip.inference import Inference
from serving.oip.plans import Plan, Plans
from serving.oip.protocol import Answer, Request
from serving.oip.repository import Repository
from serving.oip.wire import request_of, response_of, stream_response
from serving.rpc import Method, Respond, Stream, Unary, log_failure, parse
from serving.scorer import Scores
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.lineup import Lineup

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
FINAL = "triton_final_response"
"""Parameter that tells clients of a stream which response is the last to a request."""


def methods(
    dataplane: Dataplane, lineup: Lineup, settings: Settings, gate: Gate
) -> dict[str, Method]:
    """Return the methods by path."""
    inference = _Inference(Inference(dataplane, lineup, settings), dataplane, gate)
    facts = _Facts(Repository(lineup))
    found: tuple[Method, ...] = (
        Unary("ModelInfer", "score", inference.infer),
        Stream("ModelStreamInfer", "score", inference.stream, client_streaming=True),
        Unary("ServerLive", None, facts.server_live),
        Unary("ServerReady", None, facts.server_ready),
        Unary("ModelReady", None, facts.model_ready),
        Unary("ServerMetadata", None, facts.server_metadata),
        Unary("ModelMetadata", None, facts.model_metadata),
        Unary("ModelConfig", None, facts.model_config),
        Unary("RepositoryIndex", None, facts.index),
        Unary("RepositoryModelLoad", "admin", facts.load),
        Unary("RepositoryModelUnload", "admin", facts.unload),
    )
    return {f"/{SERVICE}/{method.name}": method for method in found}


class _Tasks:
    """Work that goes on beside the loop's callbacks."""

    def __init__(self) -> None:
        # Keeps tasks from being collected while they run.
        self._running: set[asyncio.Task[None]] = set()

    def begin(self, work: Coroutine[Any, Any, bytes], respond: Respond) -> None:
        """Give ``respond`` what ``work`` returns or raises, once it has ended."""

        async def run() -> None:
            answer: bytes | BaseException
            try:
                answer = await work
            except Exception as error:  # noqa: BLE001 - the engine answers it, whatever it is
                answer = error
            respond(answer)

        task = asyncio.get_running_loop().create_task(run())
        self._running.add(task)
        task.add_done_callback(self._running.discard)


class _Inference:
    """The methods that compute."""

    def __init__(self, inference: Inference, dataplane: Dataplane, gate: Gate) -> None:
        self._inference = inference
        self._gate = gate
        self._dataplane = dataplane
        self._plans = Plans()
        self._tasks = _Tasks()

    def infer(self, content: bytes, call: Call, respond: Respond) -> None:
        known = self._plans.find(content)
        if known is not None:
            self._follow(*known, call, respond)
            return
        message = parse(pb.ModelInferRequest(), content)
        request, raw = request_of(message)
        if not scoring.is_scoring(request):
            self._tasks.begin(self._generate(call, request, raw), respond)
            return
        if raw and not scoring.has_indices(request) and not message.parameters:
            # Checks what a plan need not check again.
            scoring.table_of(request)
            plan = Plan(request, scoring.outputs_of(request))
            self._plans.learn(content, message, plan)
            self._follow(plan, message.raw_input_contents[0], call, respond)
            return

        def done(answer: Answer | BaseException) -> None:
            respond(answer if isinstance(answer, BaseException) else response_of(answer, raw=raw))

        self._inference.score(call, request, done)

    def _follow(self, plan: Plan, tensor: bytes, call: Call, respond: Respond) -> None:
        def done(scores: Scores | BaseException) -> None:
            respond(scores if isinstance(scores, BaseException) else plan.respond(scores))

        table = plan.table(tensor)
        self._dataplane.score(call, table, None, plan.model, done, plan.reasons)

    async def _generate(self, call: Call, request: Request, raw: bool) -> bytes:
        return response_of(await self._inference.generate(call, request), raw=raw)

    async def stream(self, contents: AsyncIterator[bytes], call: Call) -> AsyncIterator[bytes]:
        """Answer request after request; a refused one with its reason, which ends nothing."""
        rows = 0
        async for content in contents:
            message = pb.ModelInferRequest()
            # A request may bring a shorter deadline of its own, which does not end the stream.
            one = replace(call, rows=0)
            try:
                self._gate.charge(call)
                async with aclosing(self._answers(content, message, one)) as answers:
                    async for answer, raw in answers:
                        yield stream_response(response_of(answer, raw=raw))
            except RequestError as error:
                yield _refusal(message, error.detail)
            except Exception as error:  # noqa: BLE001 - the last resort; it is logged
                log_failure("gRPC", error)
                yield _refusal(message, "internal error")
            rows += one.rows
            call.rows, call.model = rows, one.model

    async def _answers(
        self, content: bytes, message: pb.ModelInferRequest, call: Call
    ) -> AsyncGenerator[tuple[Answer, bool], None]:
        request, raw = request_of(parse(message, content))
        if not scoring.is_scoring(request):
            async with aclosing(self._inference.stream(call, request)) as parts:
                async for answer, last in parts:
                    yield _marked(answer, last), raw
            return
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._inference.score(call, request, settle(future))
        yield _marked(await future, last=True), raw


def _marked(answer: Answer, last: bool) -> Answer:
    return Answer(answer.tag, answer.id, answer.outputs, {**answer.parameters, FINAL: last})


def _refusal(request: pb.ModelInferRequest, detail: str) -> bytes:
    response = pb.ModelInferResponse(
        model_name=request.model_name, model_version=request.model_version, id=request.id
    )
    response.parameters[FINAL].bool_param = True
    return pb.ModelStreamInferResponse(
        error_message=detail, infer_response=response
    ).SerializeToString()


class _Facts:
    """The methods that tell, and those that load."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._tasks = _Tasks()

    def server_live(self, content: bytes, _: Call, respond: Respond) -> None:
        parse(pb.ServerLiveRequest(), content)
        respond(_bytes(pb.ServerLiveResponse(live=True)))

    def server_ready(self, content: bytes, _: Call, respond: Respond) -> None:
        parse(pb.ServerReadyRequest(), content)
        respond(_bytes(pb.ServerReadyResponse(ready=self._repository.ready)))

    def model_ready(self, content: bytes, _: Call, respond: Respond) -> None:
        request = parse(pb.ModelReadyRequest(), content)
        ready = self._repository.model_ready(request.name, request.version)
        respond(_bytes(pb.ModelReadyResponse(ready=ready)))

    def server_metadata(self, content: bytes, _: Call, respond: Respond) -> None:
        parse(pb.ServerMetadataRequest(), content)
        respond(_bytes(pb.ServerMetadataResponse(**self._repository.server_metadata())))

    def model_metadata(self, content: bytes, _: Call, respond: Respond) -> None:
        request = parse(pb.ModelMetadataRequest(), content)
        facts = self._repository.model_metadata(request.name, request.version)
        respond(_bytes(pb.ModelMetadataResponse(**facts)))

    def model_config(self, content: bytes, _: Call, respond: Respond) -> None:
        request = parse(pb.ModelConfigRequest(), content)
        config = self._repository.model_config(request.name, request.version)
        respond(_bytes(pb.ModelConfigResponse(config=config)))

    def index(self, content: bytes, _: Call, respond: Respond) -> None:
        request = parse(pb.RepositoryIndexRequest(), content)

        async def work() -> bytes:
            models = await self._repository.index(only_ready=request.ready)
            return _bytes(pb.RepositoryIndexResponse(models=models))

        self._tasks.begin(work(), respond)

    def load(self, content: bytes, _: Call, respond: Respond) -> None:
        name = _model_name(parse(pb.RepositoryModelLoadRequest(), content))

        async def work() -> bytes:
            await self._repository.load(name)
            return _bytes(pb.RepositoryModelLoadResponse(model_name=name, isLoaded=True))

        self._tasks.begin(work(), respond)

    def unload(self, content: bytes, _: Call, respond: Respond) -> None:
        name = _model_name(parse(pb.RepositoryModelUnloadRequest(), content))

        async def work() -> bytes:
            await self._repository.unload(name)
            return _bytes(pb.RepositoryModelUnloadResponse(model_name=name, isUnloaded=True))

        self._tasks.begin(work(), respond)


def _model_name(request: Any) -> str:
    name: str = request.model_name or request.repository_name
    if not name:
        raise InvalidRequest("model_name is empty", field="model_name")
    return name


def _bytes(message: Message) -> bytes:
    return message.SerializeToString()
