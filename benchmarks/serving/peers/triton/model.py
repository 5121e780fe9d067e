"""Triton Python backend: one model run over all requests that the dynamic batcher hands over."""

from __future__ import annotations

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # the backend puts it on the path

from benchmarks.serving.peers.common import Indexer, Model


class TritonPythonModel:
    """Scores tokens."""

    def initialize(self, args: Any) -> None:
        """Load the model."""
        del args
        self._indexer, self._model = Indexer(), Model()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request with the probability of its rows."""
        indices = [
            self._indexer.rows(
                pb_utils.get_input_tensor_by_name(request, "tokens").as_numpy().ravel().tolist()
            )
            for request in requests
        ]
        joined = indices[0] if len(indices) == 1 else np.concatenate(indices)
        probability = self._model(joined)[:, None]
        responses, at = [], 0
        for rows in indices:
            part = probability[at : at + len(rows)]
            at += len(rows)
            tensor = pb_utils.Tensor("probability", part)
            responses.append(pb_utils.InferenceResponse([tensor]))
        return responses
