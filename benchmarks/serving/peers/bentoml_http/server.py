"""A BentoML service as its documentation writes one: an async API, no adaptive batching.

Adaptive batching is off because it answers some requests with errors under load (BentoML issue
5540) and is slower for a model this small.
"""

from __future__ import annotations

import bentoml

from benchmarks.serving.peers.common import Indexer, Model


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Credit:
    """Scores records."""

    def __init__(self) -> None:
        self._indexer, self._model = Indexer(), Model()

    @bentoml.api(route="/v1/score")
    async def score(self, key_id: str, records: list[dict[str, str]]) -> list[float]:
        """Return the probability of each record."""
        del key_id
        return self._model(self._indexer.records(records)).tolist()
