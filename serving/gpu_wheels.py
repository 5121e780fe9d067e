"""Which builds of ONNX Runtime have code for which GPU, and what to install for a card.

A build without code for a card opens its session and dies at the first kernel.  The table is of the
``onnxruntime-gpu`` wheels on PyPI, read out of the files; newer than its last row counts as its
last row, and a real batch has the last word in any case.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from serving.gpu import Card

Pair: TypeAlias = tuple[int, int]
"""(major, minor) of a version or of a compute capability."""

_LONGEST = 200
_CUDA_SAYS = re.compile(
    r"(CUDA failure|CUDA error|CUDNN failure|CUDNN error|CUBLAS failure|CUBLAS error)[^;\n]*"
)
_NO_KERNEL = re.compile(r"no kernel image|NoKernelImageForDevice|error 209\b", re.IGNORECASE)


@dataclass(frozen=True)
class Wheels:
    """A range of versions of ``onnxruntime-gpu``.

    Attributes:
        since: First version.
        lowest: Lowest compute capability they have code for.
        cuda: CUDA's major version that they link to.
        install: What to install to run them.
    """

    since: Pair
    lowest: Pair
    cuda: int
    install: str


WHEELS = (
    Wheels(
        (1, 12),
        (3, 7),
        11,
        "onnxruntime-gpu 1.14.1 on Python 3.10 with numpy 1.26.4 and the nvidia-*-cu11 wheels, as "
        "locked in requirements/serve-maxwell.txt (image target maxwell)",
    ),
    Wheels(
        (1, 15),
        (5, 2),
        11,
        "onnxruntime-gpu 1.18.1 with CUDA 11.8 and cuDNN 8.9",
    ),
    Wheels(
        (1, 19),
        (5, 2),
        12,
        "onnxruntime-gpu 1.20.1 with CUDA 12 and cuDNN 9",
    ),
    Wheels(
        (1, 21),
        (6, 0),
        12,
        "'onnxruntime-gpu[cuda,cudnn]>=1.21,<1.27' (CUDA 12 and cuDNN 9)",
    ),
    Wheels(
        (1, 27),
        (7, 5),
        13,
        "'onnxruntime-gpu[cuda,cudnn]>=1.27' (CUDA 13 and cuDNN 9), as locked in "
        "requirements/serve-cuda.txt (image target cuda)",
    ),
)
"""Oldest first."""


def number(version: str) -> Pair:
    """Return (major, minor) of a version's text."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def row_of(version: str) -> Wheels:
    """Return the row of a version of ONNX Runtime; older than all is the first."""
    known = [row for row in WHEELS if row.since <= number(version)]
    return known[-1] if known else WHEELS[0]


def advice(card: Card) -> str:
    """Return what to install for ``card``: the newest wheels that its driver and it itself run."""
    fitting = [row for row in WHEELS if row.lowest <= card.capability]
    if not fitting:
        return f"no wheel has code for {dotted(card.capability)}; set CIPHERSCORE_DEVICE=cpu"
    runnable = [row for row in fitting if row.cuda <= card.cuda[0]]
    if runnable:
        return f"install {runnable[-1].install}"
    return f"update the NVIDIA driver, then install {fitting[-1].install}"


def misfit(version: str, card: Card) -> str:
    """Return why this version of ONNX Runtime cannot run on ``card``; empty if it might.

    Args:
        version: Of ONNX Runtime.
        card: The GPU.
    """
    row = row_of(version)
    if card.capability < row.lowest:
        return (
            f"ONNX Runtime {version} has no code for the {card.name}: its compute capability is "
            f"{dotted(card.capability)}, the lowest of this build is {dotted(row.lowest)}; "
            f"{advice(card)}"
        )
    if card.cuda[0] < row.cuda:
        return (
            f"ONNX Runtime {version} needs CUDA {row.cuda}, the driver {card.driver or '(unknown)'}"
            f" of the {card.name} runs CUDA up to {dotted(card.cuda)}; {advice(card)}, or update "
            "the driver"
        )
    return ""


def cause(failure: str) -> str:
    """Return the part of ONNX Runtime's error text that says what CUDA refused, or its start.

    The text begins with the path and signature of a C++ function and ends with the host's name.
    """
    found = _CUDA_SAYS.search(failure)
    if found is not None:
        return found[0].strip()[:_LONGEST]
    lines = failure.splitlines() or [""]
    return lines[0][:_LONGEST]


def explain(failure: str, card: Card | None) -> str:
    """Return a failure on ``card`` in words; where its code was missing, with what to install."""
    if card is None or not _NO_KERNEL.search(failure):
        return failure
    return (
        f"this ONNX Runtime has no code for the {card.name} (compute capability "
        f"{dotted(card.capability)}): {failure}; {advice(card)}"
    )


def dotted(pair: Pair) -> str:
    """Return "7.5" for (7, 5)."""
    return f"{pair[0]}.{pair[1]}"
