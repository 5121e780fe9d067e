"""Synthetic rows, for both transports: requests are checked and answered here, chunk by chunk."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cipherscore.errors import (
    BatchTooLarge,
    EmptyBatch,
    InvalidNoise,
    InvalidRequest,
    ModelUnavailable,
)
from serving.models import LoadedModel
from serving.scorer import check_key

CHUNK_ROWS = 4096
"""Rows made at a time.  Part of what makes a seed reproducible: both transports use it."""

GOOD, BAD = 0, 1
_SEED_BITS = 53
"""Bits of a seed the server draws; any JSON reader keeps them exactly."""
_CLASS_STREAM = 1
_EVEN = 0.5


@dataclass(frozen=True)
class GenerateOrder:
    """A request for synthetic rows.

    Args:
        key_id: Key under which the rows are wanted.
        count: Number of rows.
        credit_class: `GOOD`, `BAD`, one of them per row as int32 [count], or None to draw each
            row's at the training prevalence.
        seed: Same seed, model and count give the same rows; None lets the server draw one.
        noise: Generator noise float32 [count, noise_width] instead of the seed's, or None; a seed
            then still decides classes that are drawn.
    """

    key_id: str
    count: int
    credit_class: int | np.ndarray | None = None
    seed: int | None = None
    noise: np.ndarray | None = None


@dataclass(frozen=True)
class Chunk:
    """Some of the rows: int32 [rows, fields] vocabulary indices and int32 [rows] classes."""

    indices: np.ndarray
    credit_class: np.ndarray


class Generator:
    """The generator behind both transports.

    Args:
        model: A loaded generator.
        max_rows: Most rows of one request.
    """

    def __init__(self, model: LoadedModel, max_rows: int) -> None:
        self.model = model
        self._max_rows = max_rows
        self._width = int(model.record.noise_width or 0)
        self._sizes = np.array(model.vocabulary.sizes)

    def start(
        self, order: GenerateOrder, max_rows: int | None = None
    ) -> tuple[int, Iterator[Chunk]]:
        """Check ``order``; return its seed and an iterator that makes the rows, chunk by chunk.

        Args:
            order: What is wanted.
            max_rows: A lower limit than the generator's own, for a transport that cannot stream.

        Raises:
            RequestError: The request is refused.  The iterator raises it only for a broken model.
        """
        check_key(self.model, order.key_id)
        limit = self._max_rows if max_rows is None else min(max_rows, self._max_rows)
        if order.count < 1:
            raise EmptyBatch("count must be at least 1", field="count")
        if order.count > limit:
            raise BatchTooLarge(
                f"{order.count} rows in one request; at most {limit} here"
                + ("; gRPC streams more" if limit < self._max_rows else ""),
                field="count",
            )
        if order.noise is not None:
            self._check_noise(order.noise, order.count)
        seed = secrets.randbits(_SEED_BITS) if order.seed is None else order.seed
        if not 0 <= seed < 1 << 64:
            raise InvalidRequest("seed must be within 0 and 2^64 - 1", field="seed")
        return seed, self._chunks(order, seed)

    def _check_noise(self, noise: np.ndarray, count: int) -> None:
        if noise.shape != (count, self._width):
            raise InvalidNoise(
                f"{count} rows need {count} x {self._width} noise values", field="noise"
            )
        finite = np.isfinite(noise).all(axis=1)
        if not finite.all():
            raise InvalidNoise(
                "noise must be finite float32 numbers", field="noise", row=int(np.argmin(finite))
            )

    def _chunks(self, order: GenerateOrder, seed: int) -> Iterator[Chunk]:
        # Two streams, so that the noise does not depend on whether classes are drawn.  Both are
        # read row by row: chunks come out the same whatever their size.
        normal = np.random.Generator(np.random.PCG64(seed))
        uniform = np.random.Generator(np.random.PCG64([seed, _CLASS_STREAM]))
        prior = self.model.record.class_prior
        for start in range(0, order.count, CHUNK_ROWS):
            rows = min(CHUNK_ROWS, order.count - start)
            if order.credit_class is None:
                share = _EVEN if prior is None else prior
                classes = (uniform.random(rows) < share).astype(np.int32)
            elif isinstance(order.credit_class, np.ndarray):
                classes = order.credit_class[start : start + rows]
            else:
                classes = np.full(rows, order.credit_class, dtype=np.int32)
            if order.noise is None:
                noise = normal.standard_normal((rows, self._width), dtype=np.float32)
            else:
                noise = order.noise[start : start + rows]
            indices = self.model.run({"noise": noise, "credit_class": classes})
            if not ((indices >= 0) & (indices < self._sizes)).all():
                raise ModelUnavailable(f"{self.model.tag} gave an index outside its vocabulary")
            yield Chunk(indices, classes)
