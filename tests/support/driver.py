"""An NVIDIA driver that is not there, for tests: the functions `serving.gpu` calls through ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from serving import gpu

NAMES = {100: b"CUDA_ERROR_NO_DEVICE", 803: b"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"}


@dataclass
class FakeDriver:
    """libcuda and libnvidia-ml of one card; ``fails`` maps a function to the error it returns."""

    name: bytes = b"NVIDIA GeForce 940MX"
    capability: tuple[int, int] = (5, 0)
    cuda: int = 12080
    version: bytes = b"570.86.15"
    memory: int = 2 << 30
    count: int = 1
    fails: dict[str, int] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    asked: list[str] = field(default_factory=list)

    def load(self, library: str) -> FakeDriver:
        """Stand in for ctypes.CDLL."""
        if library in self.missing:
            raise OSError(f"{library}: cannot open shared object file")
        return self

    def __getattr__(self, function: str) -> Callable[..., int]:
        answer = getattr(type(self), f"_{function}", None)
        if answer is None:
            raise AttributeError(function)

        def call(*arguments: Any) -> int:
            self.asked.append(function)
            if function in self.fails:
                return self.fails[function]
            answer(self, *arguments)
            return 0

        return call

    def _cuInit(self, flags: int) -> None:
        assert flags == 0

    def _cuDeviceGetCount(self, count: Any) -> None:
        count._obj.value = self.count

    def _cuDeviceGet(self, device: Any, ordinal: int) -> None:
        device._obj.value = ordinal

    def _cuDriverGetVersion(self, version: Any) -> None:
        version._obj.value = self.cuda

    def _cuDeviceGetName(self, name: Any, length: int, device: ctypes.c_int) -> None:
        assert length > len(self.name)
        name.value = self.name

    def _cuDeviceTotalMem_v2(self, memory: Any, device: ctypes.c_int) -> None:
        memory._obj.value = self.memory

    def _cuDeviceGetAttribute(self, value: Any, number: int, device: ctypes.c_int) -> None:
        value._obj.value = dict(zip((75, 76), self.capability, strict=True))[number]

    def _cuGetErrorName(self, code: int, name: Any) -> None:
        name._obj.value = NAMES.get(code)

    def _nvmlInit_v2(self) -> None: ...

    def _nvmlShutdown(self) -> None: ...

    def _nvmlSystemGetDriverVersion(self, text: Any, length: int) -> None:
        assert length > len(self.version)
        text.value = self.version


def card(capability: tuple[int, int] = (5, 0), cuda: tuple[int, int] = (12, 8)) -> gpu.Card:
    """Return a card as `gpu.find_card` gives it."""
    return gpu.Card("NVIDIA Test", "570.86.15", cuda, capability, 2048)
