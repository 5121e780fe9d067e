"""Answers laid out by hand are what protobuf itself would write."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cipherscore.proto.v1 import cipherscore_pb2 as pb
from serving.grpc_methods import score_response
from serving.scorer import Scores

probabilities = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=400)


@given(probabilities, st.floats(0, 1), st.text("abcdefghij:-0123456789", max_size=200))
def test_a_response_is_byte_for_byte_what_protobuf_writes(
    values: list[float], threshold: float, model: str
) -> None:
    probability = np.array(values, dtype=np.float32)
    bad = probability >= np.float32(threshold)
    written = score_response(Scores(probability, bad, model, threshold))
    expected = pb.ScoreResponse(
        probability=values,
        decision=np.where(bad, pb.CREDIT_CLASS_BAD, pb.CREDIT_CLASS_GOOD).tolist(),
        model=model,
        threshold=threshold,
    )
    parsed = pb.ScoreResponse.FromString(written)
    assert parsed == expected
    # An empty model name is left out by protobuf, but no version has one.
    if model:
        assert written == expected.SerializeToString(deterministic=True)
