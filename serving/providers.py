"""Execution providers: which hardware runs the models, and why.

A GPU build of ONNX Runtime lists CUDA on machines without a GPU and logs errors when asked for
it, so the driver and the card are looked at first.  The real proof is a run of the real models,
made by `serving.preflight` in a process of its own, because a broken CUDA set-up may kill the
process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cipherscore.errors import DeviceError
from serving import cuda_libraries, gpu_wheels
from serving.gpu import Card, find_card

if TYPE_CHECKING:
    import onnxruntime

CPU = "cpu"
CUDA = "cuda"
AUTO, STRICT = "auto", "strict"
_EXECUTION_PROVIDERS = {CPU: "CPUExecutionProvider", CUDA: "CUDAExecutionProvider"}
_CUDA_LIBRARY = "libonnxruntime_providers_cuda.so"
_TF32_OPTION_SINCE = (1, 18)
_MEMORY_MIB = 512
_FATAL_ONLY = 4


@dataclass(frozen=True)
class Probe:
    """A real batch of the real models on the chosen hardware.

    Attributes:
        rows: Rows of the batch.
        milliseconds: How long the slowest model took, warmed up.
        difference: How far the answers are from the CPU's, at most: a classifier's probability,
            and the share of a generator's indices.  None where the CPU itself runs the models.
    """

    rows: int
    milliseconds: float
    difference: float | None = None


@dataclass(frozen=True)
class Provider:
    """What runs the models, and why it and no other.

    Attributes:
        name: "cpu" or "cuda".
        reason: For people.
        requested: The setting: auto, strict or cpu.
        memory_mib: Most GPU memory of one model's session.
        card: The GPU of this machine, where one was looked for and found.
        version: Of ONNX Runtime; empty where nothing was run yet.
        probe: The batch that was run before the start.
    """

    name: str
    reason: str
    requested: str = AUTO
    memory_mib: int = _MEMORY_MIB
    card: Card | None = None
    version: str = ""
    probe: Probe | None = None

    def facts(self) -> dict[str, str | float | None]:
        """Return all of it as health shows it; None for what is not known."""
        card, probe = self.card, self.probe
        return {
            "requested": self.requested,
            "active": self.name,
            "reason": self.reason,
            "gpu": card.name if card else None,
            "driver": card.driver if card else None,
            "driver_cuda": gpu_wheels.dotted(card.cuda) if card else None,
            "compute_capability": gpu_wheels.dotted(card.capability) if card else None,
            "gpu_memory_mib": card.memory_mib if card else None,
            "onnxruntime": self.version or None,
            "probe_rows": probe.rows if probe else None,
            "probe_milliseconds": round(probe.milliseconds, 3) if probe else None,
            "probe_difference": probe.difference if probe else None,
        }

    @classmethod
    def from_facts(cls, content: Mapping[str, Any]) -> Provider:
        """Return the provider whose fields `dataclasses.asdict` made ``content`` of."""
        card, probe = content["card"], content["probe"]
        pairs = {name: tuple(card[name]) for name in ("cuda", "capability")} if card else {}
        return cls(
            **{
                **content,
                "card": Card(**{**card, **pairs}) if card else None,
                "probe": Probe(**probe) if probe else None,
            }
        )


def first_choice(device: str, memory_mib: int = _MEMORY_MIB) -> Provider:
    """Return the provider to try first.

    Args:
        device: auto, strict or cpu.
        memory_mib: Most GPU memory of one model's session.

    Raises:
        DeviceError: ``device`` is strict and there is no usable GPU, or ONNX Runtime cannot use it.
    """
    if device == CPU:
        return Provider(CPU, "the CPU was asked for", device)
    card = None
    try:
        card = find_card()
        check_build(card)
    except DeviceError as error:
        if device == STRICT:
            raise DeviceError(cuda_refusal(str(error))) from error
        return Provider(CPU, str(error), device, card=card)
    return Provider(CUDA, "CUDA ran the models", device, memory_mib, card)


def check_build(card: Card) -> None:
    """Refuse an ONNX Runtime that cannot run on ``card``, before anything is run.

    Raises:
        DeviceError: It has no code for it, needs a newer driver, or was built without CUDA.
    """
    onnxruntime = cuda_libraries.import_onnxruntime()
    if _EXECUTION_PROVIDERS[CUDA] not in onnxruntime.get_available_providers():
        raise DeviceError(
            f"this ONNX Runtime was built without CUDA; {gpu_wheels.advice(card)} in place of it"
        )
    if not _cuda_library().is_file():
        raise DeviceError("this image of ONNX Runtime is for the CPU: its CUDA part was removed")
    if why := gpu_wheels.misfit(onnxruntime.__version__, card):
        raise DeviceError(why)


def _cuda_library() -> Path:
    found = find_spec("onnxruntime")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "capi" / _CUDA_LIBRARY


def cuda_refusal(reason: str) -> str:
    """Return the message for a server that must not start without CUDA."""
    return (
        f"CUDA was asked for (CIPHERSCORE_DEVICE=strict) but does not run here: {reason}; "
        "set CIPHERSCORE_DEVICE=auto or cpu to go on without it"
    )


def cuda_options(memory_mib: int, version: str) -> dict[str, str]:
    """Return the options of a CUDA session.

    Args:
        memory_mib: Most GPU memory it may take.
        version: Of ONNX Runtime.
    """
    options = {
        "device_id": "0",
        "gpu_mem_limit": str(memory_mib << 20),
        # Doubling, the default, soon asks a small card for more than it has.
        "arena_extend_strategy": "kSameAsRequested",
    }
    if gpu_wheels.number(version) >= _TF32_OPTION_SINCE:
        # Ten bits of precision are not what the CPU computes with; older cards have no TF32.
        options["use_tf32"] = "0"
    return options


def open_session(model: bytes, provider: Provider, threads: int) -> onnxruntime.InferenceSession:
    """Open an ONNX model on a provider.

    Args:
        model: Content of the ONNX file, already checked against its digest.
        provider: What runs it.
        threads: Threads of one run on the CPU.

    Raises:
        DeviceError: ONNX Runtime fell back to another provider.
        Exception: ONNX Runtime cannot load the model; it has no common base class for that.
    """
    wanted: list[Any] = [_EXECUTION_PROVIDERS[CPU]]
    if provider.name == CUDA:
        version = cuda_libraries.import_onnxruntime().__version__
        chosen = cuda_options(provider.memory_mib, version)
        wanted.insert(0, (_EXECUTION_PROVIDERS[CUDA], chosen))
    import onnxruntime  # noqa: PLC0415

    onnxruntime.set_default_logger_severity(_FATAL_ONLY)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads would take the cores from the transports between two requests.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options, providers=wanted)
    active = session.get_providers()[0]
    if active != _EXECUTION_PROVIDERS[provider.name]:
        raise DeviceError(f"ONNX Runtime fell back to {active}")
    return session
