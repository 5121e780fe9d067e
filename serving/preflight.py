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
import signal
import socket
import subprocess
import sys
from collections.abc import MutableMapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cipherscore.errors import CipherScoreError, ConfigurationError, DeviceError, IntegrityError
from registry.store import Registry
from registry.version import KINDS, Version
from serving import gpu_wheels, selection
from serving.providers import CPU, CUDA, STRICT, Probe, Provider, cuda_refusal, first_choice
from serving.selection import NOTHING, Candidate, candidates
from serving.settings import Settings, load_settings

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
        return cls(Provider.from_facts(content["provider"]), models)


def make_plan(settings: Settings, device: str, reason: str = "") -> Plan:
    """Load and run the models; in this process.

    Args:
        settings: The server's settings; their device is not looked at.
        device: auto, strict or cpu.
        reason: Why it is this device, in place of the usual words.

    Raises:
        ConfigurationError: No model can be served.
        DeviceError: ``device`` is strict and CUDA does not run the models.
        IntegrityError: A version that must be served is damaged.
    """
    provider = first_choice(device, settings.gpu_memory_mib)
    if provider.name == CUDA:
        try:
            return _planned(settings, provider)
        except DeviceError as error:
            why = gpu_wheels.explain(str(error), provider.card)
            if device == STRICT:
                raise DeviceError(cuda_refusal(why)) from error
            reason = f"CUDA was tried and failed: {why}"
    return _planned(settings, replace(provider, name=CPU, reason=reason or provider.reason))


def _planned(settings: Settings, provider: Provider) -> Plan:
    """Return the plan for ``provider``; the models ran on it."""
    trial = _Trial(settings, provider)
    planned = [model for kind in KINDS if (model := trial.first_that_runs(kind)) is not None]
    if not planned:
        raise ConfigurationError(NOTHING.format(home=Registry().home))
    for extra in selection.extras(settings):
        trial.runs(extra)
    return Plan(trial.provider(), tuple(planned))


class _Trial:
    """Runs models, and remembers how they did."""

    def __init__(self, settings: Settings, provider: Provider) -> None:
        self._settings = settings
        self._provider = provider
        self._probes: list[Probe] = []

    def provider(self) -> Provider:
        """Return the provider with what was found out."""
        # The parent imports this module but must not load ONNX Runtime and more.
        import onnxruntime  # noqa: PLC0415

        from serving.probe import worst  # noqa: PLC0415

        return replace(self._provider, version=onnxruntime.__version__, probe=worst(self._probes))

    def first_that_runs(self, kind: str) -> PlannedModel | None:
        """Return the best version of ``kind`` that runs."""
        notice = ""
        for candidate in candidates(self._settings, kind):
            tag = candidate.version.tag
            if self.runs(candidate):
                return PlannedModel(tag, candidate.notice or notice)
            notice = notice or f"{tag} does not run and was refused"
        return None

    def runs(self, candidate: Candidate) -> bool:
        """Return whether a version runs.

        Raises:
            DeviceError: It does not run on a GPU, or gives other answers there.
            IntegrityError: It does not run, and must be served.
        """
        try:
            self._try(candidate.version)
        except IntegrityError as error:
            if candidate.required:
                raise
            selection.log_refusal(candidate.version, error)
            return False
        return True

    def _try(self, version: Version) -> None:
        from serving.models import load  # noqa: PLC0415
        from serving.probe import measure  # noqa: PLC0415

        threads, precision = self._settings.session_threads, self._settings.precision
        reasons = self._settings.max_reasons > 0
        model = load(version, self._provider, threads, precision=precision, reasons=reasons)
        reference = None
        if self._provider.name == CUDA:
            cpu = Provider(CPU, "to compare with")
            reference = load(version, cpu, threads, precision=precision, reasons=False)
        try:
            self._probes.append(measure(model, reference))
        except DeviceError:
            raise
        except Exception as error:
            failure = DeviceError if self._provider.name == CUDA else IntegrityError
            said = gpu_wheels.cause(str(error))
            raise failure(f"{version.tag} does not run a batch: {said}") from error


def plan_in_subprocess(settings: Settings) -> Plan:
    """Make the plan in a process of its own.

    Raises:
        CipherScoreError: As `make_plan`, with the same message.
    """
    try:
        plan = _ask(settings.device)
    except _Died as death:
        if settings.device == STRICT:
            raise DeviceError(cuda_refusal(f"the process that tried it {death}")) from None
        if settings.device == CPU:
            raise ConfigurationError(f"the process that tried the models {death}") from None
        try:
            plan = _ask(CPU, f"the process that tried CUDA {death}")
        except _Died as again:
            raise ConfigurationError(f"the process that tried the models {again}") from None
    # It may have been asked for another device than was set.
    return replace(plan, provider=replace(plan.provider, requested=settings.device))


class _Died(Exception):
    """The process ended without an answer; the text says how."""


def _ask(device: str, reason: str = "") -> Plan:
    """Run this module and return its answer.

    Raises:
        _Died: It gave none.
        CipherScoreError: It answered with this error.
    """
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
        raise _Died(f"gave no answer within {_TIME_LIMIT:.0f} s") from None
    lines = done.stdout.decode(errors="replace").splitlines()
    answer = next((line for line in reversed(lines) if line.startswith(_MARK)), None)
    if answer is None:
        raise _Died(_ending(done.returncode))
    content: dict[str, str] = json.loads(answer[len(_MARK) :])
    if "error" in content:
        known = {cls.__name__: cls for cls in (ConfigurationError, DeviceError, IntegrityError)}
        raise known.get(content["kind"], ConfigurationError)(content["error"])
    return Plan.from_json(content["plan"])


def _ending(status: int) -> str:
    """Return how a process ended, for "the process …"."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


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
