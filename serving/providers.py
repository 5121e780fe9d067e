"""Execution providers: which hardware runs the models, and why.

A GPU build of ONNX Runtime lists CUDA on machines without a GPU and logs errors when asked for
it, so the driver is looked for first.  The real proof is a run of the real models, made by
`serving.preflight` in a process of its own, because a broken CUDA set-up may kill the process.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cipherscore.errors import DeviceError

if TYPE_CHECKING:
    import onnxruntime

CPU = "cpu"
CUDA = "cuda"
_EXECUTION_PROVIDERS = {CPU: "CPUExecutionProvider", CUDA: "CUDAExecutionProvider"}
_CUDA_OPTIONS = {"arena_extend_strategy": "kSameAsRequested"}
_FATAL_ONLY = 4


@dataclass(frozen=True)
class Provider:
    """What runs the models ("cpu" or "cuda") and the reason for it, for people."""

    name: str
    reason: str


def first_choice(device: str) -> Provider:
    """Return the provider to try first for the setting ``device`` (auto, cuda or cpu).

    Raises:
        DeviceError: "cuda" was asked for and there is no sign of it.
    """
    if device == CPU:
        return Provider(CPU, "CPU was asked for")
    missing = missing_for_cuda()
    if not missing:
        return Provider(CUDA, "CUDA ran the models")
    if device == CUDA:
        raise DeviceError(cuda_refusal(missing))
    return Provider(CPU, missing)


def cuda_refusal(reason: str) -> str:
    """Return the message for a server that must not start without CUDA."""
    return f"CUDA was asked for but does not run here: {reason}; set CIPHERSCORE_DEVICE=auto or cpu"


def missing_for_cuda() -> str:
    """Return what CUDA lacks here, before anything is run; empty if nothing is known to lack."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver (libcuda.so.1) on this machine"
    count = ctypes.c_int(0)
    failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if failed or not count.value:
        return "the NVIDIA driver finds no usable GPU"
    import onnxruntime  # noqa: PLC0415

    if _EXECUTION_PROVIDERS[CUDA] not in onnxruntime.get_available_providers():
        return "this ONNX Runtime was built without CUDA"
    return ""


def open_session(model: bytes, provider: str, threads: int) -> onnxruntime.InferenceSession:
    """Open an ONNX model on a provider.

    Args:
        model: Content of the ONNX file, already checked against its digest.
        provider: `CPU` or `CUDA`.
        threads: Threads of one run on the CPU.

    Raises:
        DeviceError: ONNX Runtime fell back to another provider.
        Exception: ONNX Runtime cannot load the model; it has no common base class for that.
    """
    import onnxruntime  # noqa: PLC0415

    onnxruntime.set_default_logger_severity(_FATAL_ONLY)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads would take the cores from the transports between two requests.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    wanted: list[Any] = [_EXECUTION_PROVIDERS[CPU]]
    if provider == CUDA:
        if hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()
        wanted.insert(0, (_EXECUTION_PROVIDERS[CUDA], _CUDA_OPTIONS))
    session = onnxruntime.InferenceSession(model, options, providers=wanted)
    active = session.get_providers()[0]
    if active != _EXECUTION_PROVIDERS[provider]:
        raise DeviceError(f"ONNX Runtime fell back to {active}")
    return session
