"""The GPU of this machine as its driver describes it; asked through ctypes, nothing is installed.

The driver's own library answers even where no CUDA toolkit is, and says why a card cannot be used.
Initialising it costs memory and may kill the process on a broken set-up: `serving.preflight` does
it in a process of its own.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from cipherscore.errors import DeviceError

Load: TypeAlias = Callable[[str], Any]
"""Opens a shared library by name, as ctypes.CDLL does; raises OSError."""

DRIVER, MANAGEMENT = "libcuda.so.1", "libnvidia-ml.so.1"
_NAME_LENGTH = 256
# cuda.h, CUdevice_attribute
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
# cuda.h, CUresult, where there is more to say than the name
_HINTS = {
    100: "no GPU is visible to this process (in a container: start it with --gpus all, or see "
    "CUDA_VISIBLE_DEVICES)",
    803: "the driver's library does not fit the kernel module; restart the machine after a "
    "driver update, or mount the host's libraries into the container",
    804: "the driver is too old for this card and this CUDA",
    999: "the driver is in a bad state; reload the nvidia_uvm module or restart the machine",
}


@dataclass(frozen=True)
class Card:
    """The first visible GPU.

    Attributes:
        name: Its marketing name.
        driver: Version of the driver, such as "580.65.06"; empty where it does not tell.
        cuda: Newest CUDA that the driver runs, (major, minor).
        capability: Compute capability, (major, minor).
        memory_mib: Its memory in MiB.
    """

    name: str
    driver: str
    cuda: tuple[int, int]
    capability: tuple[int, int]
    memory_mib: int


def find_card(load: Load = ctypes.CDLL) -> Card:
    """Return the first GPU that this process may use.

    Args:
        load: Opens the libraries.

    Raises:
        DeviceError: There is no driver or no usable GPU; the message says which and why.
    """
    try:
        library = load(DRIVER)
    except OSError:
        raise DeviceError(f"no NVIDIA driver ({DRIVER}) on this machine") from None
    driver = _Driver(library)
    driver.call("cuInit", 0)
    count, device, version = ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(0)
    driver.call("cuDeviceGetCount", ctypes.byref(count))
    if not count.value:
        raise DeviceError(f"the NVIDIA driver finds no usable GPU: {_HINTS[100]}")
    driver.call("cuDeviceGet", ctypes.byref(device), 0)
    driver.call("cuDriverGetVersion", ctypes.byref(version))
    name = ctypes.create_string_buffer(_NAME_LENGTH)
    driver.call("cuDeviceGetName", name, _NAME_LENGTH, device)
    memory = ctypes.c_size_t(0)
    driver.call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    return Card(
        name=name.value.decode(errors="replace"),
        driver=_driver_version(load),
        cuda=(version.value // 1000, version.value % 1000 // 10),
        capability=(
            driver.attribute(_CAPABILITY_MAJOR, device),
            driver.attribute(_CAPABILITY_MINOR, device),
        ),
        memory_mib=memory.value >> 20,
    )


class _Driver:
    """The driver's functions, with errors raised."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def call(self, function: str, *arguments: Any) -> None:
        failed = getattr(self._library, function)(*arguments)
        if failed:
            hint = f": {_HINTS[failed]}" if failed in _HINTS else ""
            raise DeviceError(
                f"the NVIDIA driver finds no usable GPU ({function}: {self._name(failed)}){hint}"
            )

    def attribute(self, number: int, device: ctypes.c_int) -> int:
        value = ctypes.c_int(0)
        self.call("cuDeviceGetAttribute", ctypes.byref(value), number, device)
        return value.value

    def _name(self, code: int) -> str:
        name = ctypes.c_char_p()
        if self._library.cuGetErrorName(code, ctypes.byref(name)) or not name.value:
            return f"error {code}"
        return name.value.decode(errors="replace")


def _driver_version(load: Load) -> str:
    """Return the driver's version; libcuda tells only that of CUDA."""
    text = ctypes.create_string_buffer(_NAME_LENGTH)
    try:
        management = load(MANAGEMENT)
        if management.nvmlInit_v2():
            return ""
        failed = management.nvmlSystemGetDriverVersion(text, _NAME_LENGTH)
        management.nvmlShutdown()
    except (OSError, AttributeError):
        return ""
    return "" if failed else text.value.decode(errors="replace")
