"""Token tables on disk that fit the tiny models."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cipherscore.dataset import arrow_schema
from serving.bulk.engines import RayWorker
from tests.support.models import KEY_ID, SIZES, public_schema, token


def write_table(
    path: Path, rows: int, *, group: int, key_id: str = KEY_ID, foreign_row: int | None = None
) -> Path:
    """Write ``rows`` random rows in row groups of ``group``; one may hold an unknown token."""
    schema = arrow_schema(public_schema(), key_id, 0, labelled=False)
    random = np.random.default_rng(rows)
    arrays = []
    for field, size in SIZES.items():
        indices = random.integers(0, size, rows)
        dictionary = [token(field, level, key_id) for level in range(size)]
        if field == "alpha" and foreign_row is not None:
            dictionary.append(token(field, size + 1, key_id))
            indices[foreign_row] = size
        kind = schema.field(field).type
        arrays.append(
            pa.DictionaryArray.from_arrays(pa.array(indices, pa.int16()), dictionary).cast(kind)
        )
    pq.write_table(pa.table(arrays, schema=schema), path, row_group_size=group)
    return path


class KilledOnce(RayWorker):
    """A Ray worker that the kernel ends in the middle of the job, once."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        marker = Path(os.environ["CIPHERSCORE_TEST_KILL"])
        if row["number"] == 1 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(row)
