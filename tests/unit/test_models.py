"""A loaded model: pieces of a large run are one answer."""

from __future__ import annotations

import numpy as np
import pytest

from serving.models import load
from serving.providers import first_choice
from tests.support.models import SIZES, expected_probability, tiny_models


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rows", [1, 255, 256, 257, 512, 1000, 5000])
def test_a_large_run_is_answered_in_pieces_and_in_order(tmp_path_factory, rows, threads):
    models = tiny_models(tmp_path_factory.mktemp("registry"))
    model = load(models.classifier, first_choice("cpu"), threads)
    random = np.random.default_rng(rows)
    indices = np.stack([random.integers(0, size, rows) for size in SIZES.values()], axis=1)
    sizes: list[int] = []
    session = model.session

    class Counting:
        def run(self, outputs, inputs):
            sizes.append(len(inputs["indices"]))
            return session.run(outputs, inputs)

    object.__setattr__(model, "session", Counting())
    answer = model.run({"indices": indices.astype(np.int32)})
    np.testing.assert_allclose(answer, expected_probability(indices), atol=1e-6)
    assert sum(sizes) == rows
    assert max(sizes) <= 256 * threads
    assert max(sizes) - min(sizes) <= len(sizes)
