"""Before the workers start: find out, in a process of its own, what they will serve and on what.

The parent of the workers must not load ONNX Runtime (memory), must survive a CUDA set-up that
kills a process, and must refuse to start when a worker could not: BentoML restarts a worker that
fails, for ever.  So `plan_in_subprocess` loads and runs every model once and hands the resulting
`Plan` to the workers in their environment.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import MutableMapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cipherscore.errors import CipherScoreError, ConfigurationError, DeviceError, IntegrityError
from registry.store import Registry
from registry.version import KINDS
from serving import selection
from serving.providers import CPU, CUDA, Provider, cuda_refusal, first_choice
from serving.selection import NOTHING, Candidate, candidates, reopen
from serving.settings import Settings, load_settings

if TYPE_CHECKING:
    from serving.models import LoadedModel

VARIABLE = "CIPHERSCORE_PLAN"
"""Environment variable in which the parent hands its plan to the workers.  Not for operators."""

_TIME_LIMIT = 120.0
_MARK = "cipherscore-plan "


@dataclass(frozen=True)
class PlannedModel:
    """A version that loaded and ran, by tag, and its notice."""

    tag: str
    notice: str


@dataclass(frozen=True)
class Plan:
    """What to serve on what."""

    provider: Provider
    models: tuple[PlannedModel, ...]

    def to_json(self) -> str:
        """Return the plan as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read what `to_json` wrote."""
        content = json.loads(text)
        models = tuple(PlannedModel(**model) for model in content["models"])
        return cls(Provider(**content["provider"]), models)


def make_plan(settings: Settings, device: str, reason: str = "") -> Plan:
    """Load and run the models; in this process.

    Args:
        settings: The server's settings; their device is not looked at.
        device: auto, cuda or cpu.
        reason: Why it is this device, in place of the usual words.

    Raises:
        ConfigurationError: No model can be served.
        DeviceError: ``device`` is cuda and does not run the models.
        IntegrityError: A version that must be served is damaged.
    """
    provider = first_choice(device)
    if provider.name == CUDA:
        try:
            return Plan(provider, _models(settings, provider))
        except DeviceError as error:
            if device == CUDA:
                raise DeviceError(cuda_refusal(str(error))) from error
            provider = Provider(CPU, f"CUDA was tried and failed: {error}")
    provider = Provider(provider.name, reason or provider.reason)
    return Plan(provider, _models(settings, provider))


def _models(settings: Settings, provider: Provider) -> tuple[PlannedModel, ...]:
    found = [
        model for kind in KINDS if (model := _first_that_runs(settings, provider, kind)) is not None
    ]
    if not found:
        raise ConfigurationError(NOTHING.format(home=Registry().home))
    return tuple(found)


def _first_that_runs(settings: Settings, provider: Provider, kind: str) -> PlannedModel | None:
    notice = ""
    for candidate in candidates(settings, kind):
        tag = candidate.version.tag
        if _runs(candidate, settings, provider):
            return PlannedModel(tag, candidate.notice or notice)
        notice = notice or f"{tag} does not run and was refused"
    return None


def _runs(candidate: Candidate, settings: Settings, provider: Provider) -> bool:
    # The parent imports this module but must not load numpy and more.
    from serving.models import load  # noqa: PLC0415

    try:
        load(candidate.version, provider, settings.session_threads)
    except IntegrityError as error:
        if candidate.required:
            raise
        selection.log_refusal(candidate.version, error)
        return False
    return True


def plan_in_subprocess(settings: Settings) -> Plan:
    """Make the plan in a process of its own.

    Raises:
        CipherScoreError: As `make_plan`, with the same message.
    """
    answer = _ask(settings.device)
    if answer is None and settings.device == "auto":
        answer = _ask(CPU, "the process that tried CUDA died")
    if answer is None:
        raise DeviceError(cuda_refusal("the process that tried it died"))
    if "error" in answer:
        known = {cls.__name__: cls for cls in (ConfigurationError, DeviceError, IntegrityError)}
        raise known.get(answer["kind"], ConfigurationError)(answer["error"])
    return Plan.from_json(answer["plan"])


def _ask(device: str, reason: str = "") -> dict[str, str] | None:
    """Run this module; return its answer, or None when it died without one."""
    command = [sys.executable, "-m", "serving.preflight", device, reason]
    # The packages lie beside this one, in a Bento as in the source tree.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            command,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=Path(__file__).parents[1],
            timeout=_TIME_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    lines = done.stdout.decode(errors="replace").splitlines()
    answer = next((line for line in reversed(lines) if line.startswith(_MARK)), None)
    if answer is None:
        return None
    content: dict[str, str] = json.loads(answer[len(_MARK) :])
    return content


def load_planned(plan: Plan, settings: Settings) -> tuple[LoadedModel, ...]:
    """Load what the plan names; in a worker.

    Raises:
        CipherScoreError: A version was removed or damaged since, or the device is gone.
    """
    from serving.models import load  # noqa: PLC0415

    return tuple(
        load(reopen(model.tag), plan.provider, settings.session_threads, model.notice)
        for model in plan.models
    )


def check_port(settings: Settings) -> None:
    """Refuse a gRPC address that cannot be bound.

    Raises:
        ConfigurationError: It is in use, or not an address of this machine.
    """
    host, port = settings.grpc_host, settings.grpc_port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ConfigurationError(
            f"the gRPC address {host}:{port} cannot be bound ({error.strerror}); "
            "set CIPHERSCORE_GRPC_HOST and CIPHERSCORE_GRPC_PORT"
        ) from error


def publish(plan: Plan, environment: MutableMapping[str, str] = os.environ) -> None:
    """Leave the plan where the workers, which inherit the environment, find it."""
    environment[VARIABLE] = plan.to_json()


def published() -> Plan | None:
    """Return the plan the parent left, if there is one."""
    text = os.environ.get(VARIABLE)
    return Plan.from_json(text) if text else None


def main(device: str, reason: str) -> None:
    """Make the plan and print it, or the error, as one marked line on standard output."""
    logging.basicConfig(format="[%(levelname)s] %(message)s")
    answer: dict[str, str]
    try:
        answer = {"plan": make_plan(load_settings(), device, reason).to_json()}
    except CipherScoreError as error:
        answer = {"kind": type(error).__name__, "error": str(error)}
    sys.stdout.write(f"{_MARK}{json.dumps(answer)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:3])
