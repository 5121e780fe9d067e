"""Reason codes: what each field contributes to the log-odds of bad credit, from a graph of its own.

The graph is in fp32 whatever precision answers with the probability: it says exactly how the fp32
classifier came to its answer, of which int8 is a close copy.  It is loaded and tried with the
version it belongs to; one that fails keeps the whole version from being served.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cipherscore.errors import DeviceError, IntegrityError
from registry.version import REASONS, Version
from serving.binding import BoundRunner
from serving.providers import CUDA, Provider, open_session

if TYPE_CHECKING:
    import onnxruntime

CONTRIBUTION = "contribution"
ALL = -1
"""Asks for the contributions of all fields, in model order."""

_BASE = "base"
_INPUTS = {"indices": "tensor(int32)"}
_FEW = 8
"""Up to this many, taking the largest again and again beats sorting a row."""
_TOLERANCE = 1e-3
"""Largest difference to the classifier's probability in the trial, GPUs included."""


@dataclass(frozen=True)
class Explainer:
    """A version's reason codes, loaded.

    Attributes:
        fields: Names of the fields, in model order.
        base: Log-odds of bad credit of the mean training row.
        bound: Runs the session through fixed buffers, on a GPU.
    """

    fields: tuple[str, ...]
    base: float
    session: onnxruntime.InferenceSession = field(repr=False)
    bound: BoundRunner | None = field(default=None, repr=False)

    def run(self, indices: np.ndarray) -> np.ndarray:
        """Return what each field contributes, float32 [rows, fields], for int32 [rows, fields]."""
        inputs = {"indices": indices}
        if self.bound is not None:
            return self.bound.run(inputs)
        answer: np.ndarray = self.session.run([CONTRIBUTION], inputs)[0]
        return answer


@dataclass(slots=True)
class Reasons:
    """Why the rows of a request got their probability.

    Attributes:
        fields: Names of all fields, in model order.
        base: Log-odds of bad credit of the mean training row.
        contribution: float32 [rows, entries], log-odds towards bad credit.
        indices: Which field each entry is of, int [rows, entries], the largest contribution first;
            None where there is an entry for every field, in model order.
    """

    fields: tuple[str, ...]
    base: float
    contribution: np.ndarray
    indices: np.ndarray | None = None

    def largest(self, count: int) -> Reasons:
        """Return the ``count`` largest contributions of each row; of equal ones the first field's.

        Args:
            count: 1 to the number of fields.
        """
        chosen = _largest(self.contribution, count)
        values = self.contribution[np.arange(len(chosen))[:, None], chosen]
        return Reasons(self.fields, self.base, values, chosen)


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Return int [rows, count], the places of the largest of each row's finite values, in order."""
    if count > _FEW:
        order: np.ndarray = np.argsort(-values, axis=1, kind="stable")[:, :count]
        return order
    left = values.copy()
    rows = np.arange(len(values))
    chosen = np.empty((len(values), count), dtype=np.intp)
    for place in range(count):
        best = left.argmax(axis=1)
        chosen[:, place] = best
        left[rows, best] = -np.inf
    return chosen


def open_explainer(
    version: Version, provider: Provider, threads: int, fields: tuple[str, ...], max_bound_rows: int
) -> Explainer | None:
    """Load a version's reason codes from checked bytes; None if it was registered without.

    Args:
        version: The version.
        provider: What runs it.
        threads: Threads of one run.
        fields: Of its vocabulary.
        max_bound_rows: Rows of one run on a GPU.

    Raises:
        IntegrityError: The file is damaged, or is not what its name says.
        DeviceError: The provider does not run it.
        Exception: ONNX Runtime cannot load it; it has no common base class for that.
    """
    if REASONS not in version.manifest.files:
        return None
    session = open_session(version.read(REASONS), provider, threads)
    found = {item.name: item.type for item in session.get_inputs()}
    if found != _INPUTS or CONTRIBUTION not in {item.name for item in session.get_outputs()}:
        raise IntegrityError(
            f"{version.tag}: {REASONS} takes {found}; it needs {_INPUTS} and an output "
            f"{CONTRIBUTION!r}"
        )
    try:
        base = float(session.get_modelmeta().custom_metadata_map.get(_BASE, ""))
    except ValueError:
        base = math.nan
    if not math.isfinite(base):
        raise IntegrityError(f"{version.tag}: {REASONS} names no finite {_BASE!r}")
    bound = None
    if provider.name == CUDA:
        bound = BoundRunner(session, CONTRIBUTION, CUDA, max_bound_rows)
    return Explainer(fields, base, session, bound)


def check_explained(
    tag: str,
    explainer: Explainer,
    indices: np.ndarray,
    probability: np.ndarray | None,
    *,
    on_gpu: bool,
) -> None:
    """Try the reason codes on some rows.

    Args:
        tag: Name of the version.
        explainer: Its reason codes.
        indices: int32 [rows, fields].
        probability: What the classifier answers, float32 [rows]; None where it is not the fp32
            one, so that they need not add up to it.
        on_gpu: Whether a GPU computed them, which is then the likelier cause of a fault.

    Raises:
        IntegrityError: They have another form, are not finite, or do not add up.
        DeviceError: The same on a GPU.
    """
    found = explainer.run(indices)
    failure = DeviceError if on_gpu else IntegrityError
    if found.shape != indices.shape or found.dtype != np.float32 or not np.isfinite(found).all():
        raise failure(
            f"{tag}: the reason codes of {len(indices)} rows are {found.dtype} "
            f"{list(found.shape)}, or not finite"
        )
    if probability is None:
        return
    added = found.sum(axis=1, dtype=np.float64) + explainer.base
    away = float(np.abs(np.tanh(added / 2) / 2 + 0.5 - probability).max())
    if not away <= _TOLERANCE:
        raise failure(
            f"{tag}: the reason codes add up to a probability that is {away:.3g} from the "
            f"model's, more than {_TOLERANCE}"
        )
