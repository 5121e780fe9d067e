"""A real batch of a real model: how long it takes here, and how far it is from the CPU's answer."""

from __future__ import annotations

import time

import numpy as np

from cipherscore.errors import DeviceError
from registry.version import CLASSIFIER
from serving.models import LoadedModel
from serving.providers import Probe

ROWS = 256
_TOLERANCE = {"classifier": 1e-3, "generator": 0.01}
"""A probability's difference; the share of indices that differ, as ties may fall either way."""


def sample(model: LoadedModel, rows: int = ROWS) -> dict[str, np.ndarray]:
    """Return inputs of ``model`` in the range of real ones; the same ones each time."""
    random = np.random.default_rng(0)
    if model.kind == CLASSIFIER:
        sizes = np.array(model.vocabulary.sizes)
        indices = random.integers(0, sizes, (rows, len(sizes))).astype(np.int32)
        return {"indices": indices}
    noise = random.standard_normal((rows, model.record.noise_width or 0), dtype=np.float32)
    return {"noise": noise, "credit_class": np.arange(rows, dtype=np.int32) % 2}


def measure(model: LoadedModel, reference: LoadedModel | None = None) -> Probe:
    """Run a batch of ``model``, and of the same version on the CPU.

    Args:
        model: What is to be served.
        reference: The same version on the CPU; None if ``model`` is that itself.

    Raises:
        DeviceError: The answers are too far apart.
        Exception: ONNX Runtime cannot run the model; it has no common base class for that.
    """
    inputs = sample(model)
    answer = model.run(inputs)
    started = time.perf_counter()
    model.run(inputs)
    milliseconds = (time.perf_counter() - started) * 1000
    if reference is None:
        return Probe(ROWS, milliseconds)
    expected = reference.run(inputs)
    if model.kind == CLASSIFIER:
        difference = float(np.abs(answer - expected).max())
    else:
        difference = float((answer != expected).mean())
    if not difference <= _TOLERANCE[model.kind]:
        raise DeviceError(
            f"the answers of {model.tag} differ from the CPU's by {difference:.3g}, more than "
            f"{_TOLERANCE[model.kind]}"
        )
    return Probe(ROWS, milliseconds, difference)


def worst(probes: list[Probe]) -> Probe | None:
    """Return the slowest and the furthest off in one; None of none."""
    if not probes:
        return None
    differences = [probe.difference for probe in probes if probe.difference is not None]
    return Probe(
        probes[0].rows,
        max(probe.milliseconds for probe in probes),
        max(differences, default=None),
    )
