"""A classifier's inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cipherscore.errors import InvalidRequest
from cipherscore.vocabulary import Vocabulary
from serving.oip.protocol import (
    Answer,
    Classes,
    Floats,
    Output,
    Request,
    Tensor,
    check_inputs,
    choose,
)
from serving.oip.tensors import (
    INDICES,
    INTEGERS,
    TOKENS,
    BytesTable,
    CellTable,
    IndexTable,
    check_shape,
    integers,
)
from serving.reasons import ALL, CONTRIBUTION
from serving.scorer import Scores
from serving.tables import Table

INPUTS = (TOKENS, INDICES)
PROBABILITY, DECISION = "probability", "decision"
OUTPUTS = (PROBABILITY, DECISION)
ON_REQUEST = (CONTRIBUTION,)
"""Outputs that are given to who asks for them by name: they cost more than the answer itself."""


def is_scoring(request: Request) -> bool:
    """Return whether a request brings rows to score; it needs another kind of model else."""
    return bool(request.inputs) and request.inputs[0].name in INPUTS


def has_indices(request: Request) -> bool:
    """Return whether a request to score brings indices: those of one version."""
    return request.inputs[0].name == INDICES


def table_of(request: Request, meant: Vocabulary | None = None) -> Table:
    """Return the rows of a request.

    Args:
        request: It.
        meant: Vocabulary whose indices it brings, if it brings any.

    Raises:
        InvalidRequest: There is not exactly one of `INPUTS`, or it is malformed.
    """
    found = check_inputs(request, INPUTS)
    if len(found) != 1:
        raise InvalidRequest(f"send either {TOKENS!r} or {INDICES!r}")
    (tensor,) = found.values()
    check_shape(tensor.name, tensor.shape, 2)
    rows, width = tensor.shape
    if tensor.name == TOKENS:
        if tensor.datatype != "BYTES":
            raise InvalidRequest(f"{TOKENS!r} is BYTES", field=TOKENS)
        return _tokens(tensor, rows, width)
    assert meant is not None
    raw = tensor.raw
    if raw is None:
        raw = integers(tensor.name, tensor.elements, INTEGERS.get(tensor.datatype))
    return IndexTable(raw, tensor.datatype, rows, width, meant)


def _tokens(tensor: Tensor, rows: int, width: int) -> Table:
    if tensor.raw is not None:
        return BytesTable(tensor.raw, rows, width)
    if all(isinstance(element, (bytes, str)) for element in tensor.elements):
        return CellTable(tensor.elements, rows, width)
    raise InvalidRequest(f"{TOKENS!r} holds something that is no text", field=TOKENS)


def outputs_of(request: Request) -> tuple[str, ...]:
    """Return the outputs to give to a request to score.

    Raises:
        InvalidRequest: A name is no output, or is asked for twice.
    """
    return choose(request.outputs, OUTPUTS, ON_REQUEST)


def reasons_for(names: Sequence[str]) -> int:
    """Return what the outputs ``names`` need of `serving.dataplane.Dataplane.score`."""
    return ALL if CONTRIBUTION in names else 0


def answer(scores: Scores, names: Sequence[str], request_id: str) -> Answer:
    """Return ``scores`` as the outputs ``names``."""
    shape = scores.probability.shape
    outputs = {
        PROBABILITY: lambda: Output(PROBABILITY, "FP32", shape, Floats(scores.probability)),
        DECISION: lambda: Output(DECISION, "BYTES", shape, Classes(np.asarray(scores.bad))),
        CONTRIBUTION: lambda: _contribution(scores),
    }
    return Answer(scores.model, request_id, [outputs[name]() for name in names])


def _contribution(scores: Scores) -> Output:
    assert scores.reasons is not None
    values = scores.reasons.contribution
    return Output(CONTRIBUTION, "FP32", values.shape, Floats(values.reshape(-1)))
