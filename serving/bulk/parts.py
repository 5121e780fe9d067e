"""Scoring one part of a bulk job; the same code on one machine and in a Ray worker."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cipherscore import files
from cipherscore.dataset import TokenColumn, iterate_tokens, read_header
from cipherscore.errors import ConfigurationError
from cipherscore.vocabulary import UNSEEN
from registry.store import Registry
from registry.version import CLASSIFIER
from serving.bulk.job import Job, Part
from serving.models import load
from serving.providers import first_choice
from serving.scorer import check_key, decide
from serving.tables import refusal

BATCH_ROWS = 65_536
"""Rows read at a time: what bounds memory."""

_SCHEMA = pa.schema(
    [
        pa.field("probability", pa.float32(), nullable=False),
        pa.field("bad", pa.bool_(), nullable=False),
    ]
)


class PartScorer:
    """A loaded classifier that scores parts.

    Args:
        job: What is scored with what.
        out: The job's output folder.
        device: auto, strict or cpu.
        threads: Threads of one model run.

    Raises:
        RegistryError: There is no such version, or it is damaged.
        ConfigurationError: It is no classifier, or has no variant of the job's precision.
        WrongKey: The table was made under another key than the model's.
    """

    def __init__(self, job: Job, out: Path, device: str, threads: int) -> None:
        self._job = job
        self._out = out
        version = Registry().get(job.model).verify()
        if version.record.kind != CLASSIFIER:
            raise ConfigurationError(f"{version.tag} is a {version.record.kind}, not a classifier")
        self._model = load(
            version, first_choice(device), threads, precision=job.precision, reasons=False
        )
        check_key(self._model, read_header(job.path)[1])

    def score(self, part: Part) -> int:
        """Score ``part`` and write its file; return its rows.

        Raises:
            RequestError: A token or field is refused, as by the server.
            DataError: The table is damaged, or was replaced.
        """
        self._job.check_unchanged()
        groups = range(part.first_group, part.last_group + 1)
        with (
            files.atomic_path(part.file(self._out)) as temporary,
            pq.ParquetWriter(temporary, _SCHEMA, compression="zstd") as writer,
        ):
            row = part.first_row
            for columns in iterate_tokens(self._job.path, BATCH_ROWS, groups):
                indices = self._translate(columns, row)
                writer.write_batch(self._answer(indices))
                row += len(indices)
        return part.rows

    def _translate(self, columns: Mapping[str, TokenColumn], first_row: int) -> np.ndarray:
        """Return int32 [rows, fields].

        Other than a request's, a table's dictionaries may hold tokens that no row here uses.
        """
        vocabulary = self._model.vocabulary
        rows = len(next(iter(columns.values())).indices)
        matrix = np.empty((rows, len(vocabulary.fields)), dtype=np.int32)
        for position, field in enumerate(vocabulary.fields):
            if field not in columns:
                raise ConfigurationError(f"the table lacks field {field!r} of the model")
            column = columns[field]
            known = np.array(vocabulary.encode(field, column.dictionary), dtype=np.int32)
            matrix[:, position] = known[column.indices]
            unseen = np.flatnonzero(matrix[:, position] == UNSEEN)
            if len(unseen):
                token = column.dictionary[column.indices[unseen[0]]]
                raise refusal(vocabulary, field, token, first_row + int(unseen[0]))
        return matrix

    def _answer(self, indices: np.ndarray) -> pa.RecordBatch:
        probability = self._model.run({"indices": indices})
        bad = decide(self._model, probability)
        return pa.RecordBatch.from_arrays([pa.array(probability), pa.array(bad)], schema=_SCHEMA)
