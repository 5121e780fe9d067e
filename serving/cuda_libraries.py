"""CUDA's libraries from ``nvidia-*`` wheels, opened before ONNX Runtime looks for them.

ONNX Runtime links to them by name and the loader does not look into site-packages.  Newer versions
bring a function for it; for those with CUDA 11 it is done here.  They look for the libraries when
they are imported: without them every session runs on the CPU without a word, and opened later they
kill the process ("Inconsistency detected by ld.so").  So ONNX Runtime must not be imported before.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import io
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from serving.gpu_wheels import row_of

logger = logging.getLogger("bentoml.cipherscore")

_CUDA_11 = (
    ("cuda_runtime", "libcudart.so.11.0"),
    ("cublas", "libcublasLt.so.11"),
    ("cublas", "libcublas.so.11"),
    ("curand", "libcurand.so.10"),
    ("cufft", "libcufft.so.10"),
    ("cudnn", "libcudnn_ops_infer.so.8"),
    ("cudnn", "libcudnn_cnn_infer.so.8"),
    ("cudnn", "libcudnn.so.8"),
)
"""Folder under ``nvidia/`` and file; each after those it needs."""


def wheel_folders() -> list[Path]:
    """Return the ``nvidia`` folders of site-packages; none where no such wheel is installed."""
    found = importlib.util.find_spec("nvidia")
    return [Path(place) for place in (found.submodule_search_locations or ())] if found else []


def preload(
    folders: Iterable[Path], load: Callable[..., Any] = ctypes.CDLL, wanted: Any = _CUDA_11
) -> list[str]:
    """Open the libraries of CUDA 11 for all that is loaded later; return the files opened.

    One that is missing or does not load is left out: the system may have it, and if not, ONNX
    Runtime says so.

    Args:
        folders: Where to look, as from `wheel_folders`.
        load: Opens a library, as ctypes.CDLL does.
        wanted: Pairs of folder and file.
    """
    places = list(folders)
    opened = []
    for folder, name in wanted:
        for place in places:
            path = place / folder / "lib" / name
            if not path.is_file():
                continue
            with contextlib.suppress(OSError):
                load(str(path), mode=ctypes.RTLD_GLOBAL)
                opened.append(name)
                break
    return opened


def import_onnxruntime() -> Any:
    """Return ONNX Runtime's module, ready for CUDA."""
    if _with_cuda_11(_version()):
        preload(wheel_folders())
    import onnxruntime  # noqa: PLC0415

    if hasattr(onnxruntime, "preload_dlls"):
        # It prints what it does not find.
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            onnxruntime.preload_dlls()
        for line in said.getvalue().splitlines():
            logger.debug("%s", line)
    return onnxruntime


def _version() -> str:
    # Of the package: the module must not be imported yet.
    try:
        return importlib.metadata.version("onnxruntime-gpu")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _with_cuda_11(version: str) -> bool:
    return bool(version) and row_of(version).cuda == 11
