"""A bulk scoring job: a token table cut into parts, each answered by one file.

The output folder holds ``job.json`` (what is scored with what) and one ``part-NNNNNN.parquet`` per
part, written under a temporary name first.  What is there is done: a job that was killed, or whose
worker was, goes on with the missing parts, and gives the same files.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow.parquet as pq

from cipherscore import files
from cipherscore.dataset import read_header
from cipherscore.errors import ConfigurationError, DataError

JOB_FILE = "job.json"
PART_ROWS = 1_000_000
"""Rows of a part, about: parts end where a row group of the table ends."""

_FORMAT = "cipherscore-bulk"
_FOOTER = 1 << 16


@dataclass(frozen=True)
class Part:
    """Consecutive row groups of the table, the first row in them, and their rows."""

    number: int
    first_group: int
    last_group: int
    first_row: int
    rows: int

    def file(self, out: Path) -> Path:
        """Return where the part's answers go."""
        return out / f"part-{self.number:06d}.parquet"


@dataclass(frozen=True)
class Job:
    """What is scored with what; all of it decides the answers.

    Attributes:
        table: Path of the token table.
        fingerprint: SHA-256 of its size and footer, which holds every column chunk's place and
            statistics; hashing all of a huge table would cost as much as scoring it.
        model: "name:version" of the classifier.
        precision: "fp32" or "int8".
        part_rows: Rows of a part, about.
    """

    table: str
    fingerprint: str
    model: str
    precision: str
    part_rows: int

    @classmethod
    def of(cls, table: Path, model: str, precision: str, part_rows: int = PART_ROWS) -> Job:
        """Return the job that scores ``table``.

        Raises:
            DataError: The file is no token table.
        """
        read_header(table)
        return cls(str(table.resolve()), _fingerprint(table), model, precision, part_rows)

    @property
    def path(self) -> Path:
        """Path of the token table."""
        return Path(self.table)

    def parts(self) -> list[Part]:
        """Return the job's parts, in the order of the rows."""
        metadata = pq.ParquetFile(self.path).metadata
        found: list[Part] = []
        first, start, rows = 0, 0, 0
        for group in range(metadata.num_row_groups):
            rows += metadata.row_group(group).num_rows
            if rows >= self.part_rows or group == metadata.num_row_groups - 1:
                found.append(Part(len(found), first, group, start, rows))
                first, start, rows = group + 1, start + rows, 0
        return found

    def begin(self, out: Path) -> list[Part]:
        """Make or check the output folder; return the parts that are missing in it.

        Raises:
            ConfigurationError: The folder holds the answers of another job, or other files.
        """
        out.mkdir(parents=True, exist_ok=True)
        description = out / JOB_FILE
        if description.exists():
            if _read(description) != self:
                raise ConfigurationError(
                    f"{out}: holds the answers of another table, model or precision; "
                    "give another folder, or remove this one"
                )
        elif any(out.iterdir()):
            raise ConfigurationError(f"{out}: is not empty and holds no bulk job")
        else:
            files.write_json(description, {"format": _FORMAT, **asdict(self)})
        # A killed writer leaves its temporary file, under a name no part has.
        for leftover in out.glob(".part-*.tmp"):
            leftover.unlink(missing_ok=True)
        return [part for part in self.parts() if not part.file(out).exists()]

    def check_unchanged(self) -> None:
        """Refuse to go on when the table was replaced since the job began.

        Raises:
            DataError: It was.
        """
        if _fingerprint(self.path) != self.fingerprint:
            raise DataError(f"{self.table}: changed while it was being scored; start again")


def _read(path: Path) -> Job | None:
    try:
        content = json.loads(path.read_text())
        content.pop("format")
        return Job(**content)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _fingerprint(table: Path) -> str:
    size = table.stat().st_size
    with table.open("rb") as file:
        file.seek(max(0, size - _FOOTER))
        return hashlib.sha256(size.to_bytes(8, "little") + file.read()).hexdigest()
