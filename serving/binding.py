"""Model runs on a GPU with buffers that are made once.

Every batch is padded to one of a few sizes, powers of two, each with input and output buffers of
its own on the device.  So a run allocates nothing there, a card of 2 GB stays within its limit
however requests vary, and CUDA's libraries choose their kernels once per size.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnxruntime

_DEVICE_ID = 0


@dataclass(frozen=True)
class _Bucket:
    """Buffers of one batch size.

    Attributes:
        staging: Arrays on the host that a batch is padded in, by input.
        inputs: The same on the device.
        output: The answer on the device.
        binding: Both, bound to the session.
    """

    staging: Mapping[str, np.ndarray]
    inputs: Mapping[str, onnxruntime.OrtValue]
    output: onnxruntime.OrtValue
    binding: onnxruntime.IOBinding


class BoundRunner:
    """Runs a session through fixed buffers.  Safe to call from several threads; they take turns.

    Args:
        session: A model whose inputs and output all have the batch as first dimension.
        output: Name of the output.
        device: "cuda" or "cpu", as the session's first provider.
        max_rows: Largest batch of one run; more rows are run in several.  Rounded up to a power
            of two.
    """

    def __init__(
        self, session: onnxruntime.InferenceSession, output: str, device: str, max_rows: int
    ) -> None:
        self._session = session
        self._output = output
        self._device = device
        self._most = bucket_of(max_rows)
        self._buckets: dict[int, _Bucket] = {}
        self._turn = threading.Lock()

    def run(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the answer for ``inputs``, as ``session.run`` would give it.

        Args:
            inputs: Per name an array [rows, ...]; all have the same rows.
        """
        rows = len(next(iter(inputs.values())))
        with self._turn:
            if rows <= self._most:
                return self._run(inputs, rows)
            parts = [
                self._run(
                    {name: array[start : start + self._most] for name, array in inputs.items()},
                    min(self._most, rows - start),
                )
                for start in range(0, rows, self._most)
            ]
        return np.concatenate(parts)

    def _run(self, inputs: Mapping[str, np.ndarray], rows: int) -> np.ndarray:
        size = bucket_of(rows)
        bucket = self._buckets.get(size)
        if bucket is None:
            bucket = self._buckets[size] = self._make(size, inputs)
        for name, array in inputs.items():
            # What an earlier batch left behind this one is computed too, and cut off below.
            bucket.staging[name][:rows] = array
            bucket.inputs[name].update_inplace(bucket.staging[name])
        self._session.run_with_iobinding(bucket.binding)
        return np.array(bucket.output.numpy()[:rows])

    def _make(self, size: int, inputs: Mapping[str, np.ndarray]) -> _Bucket:
        import onnxruntime  # noqa: PLC0415

        def on_device(shape: tuple[int, ...], dtype: Any) -> onnxruntime.OrtValue:
            return onnxruntime.OrtValue.ortvalue_from_shape_and_type(
                list(shape), dtype, self._device, _DEVICE_ID
            )

        # Zeros are valid inputs of every model; the run tells the form of the output.
        staging = {
            name: np.zeros((size, *array.shape[1:]), array.dtype) for name, array in inputs.items()
        }
        answer = self._session.run([self._output], staging)[0]
        placed = {name: on_device(array.shape, array.dtype) for name, array in staging.items()}
        output = on_device(answer.shape, answer.dtype)
        binding = self._session.io_binding()
        for name, value in placed.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_ortvalue_output(self._output, output)
        return _Bucket(staging, placed, output, binding)


def bucket_of(rows: int) -> int:
    """Return the smallest power of two that holds ``rows``; 1 for none."""
    return 1 << max(0, rows - 1).bit_length()
