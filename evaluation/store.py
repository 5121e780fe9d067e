"""Trainings as tasks, done one after the other, each result kept on disk when it is there.

The file holds figures per fold and, for the method evaluated in depth, the probability of each
test row: no value, no label, no key.  It is the place from which an interrupted study goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from cipherscore.errors import ConfigurationError
from cipherscore.files import write_bytes
from training.progress import Progress, silent

FORMAT = 1
SHOWN = ("auc", "tstr_auc")
"""Figures of a result that the progress tells, where it has them."""

Entry = dict[str, Any]
"""Result of one training."""


class Store:
    """Results by part and key in one JSON file, written atomically after every result.

    A part whose ``identity`` has changed is computed again.

    Raises:
        ConfigurationError: The file is there and is none of ours.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._parts: dict[str, dict[str, Any]] = {}
        if path.is_file():
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                known, parts = content["format"] == FORMAT, content["parts"]
            except (OSError, ValueError, KeyError, TypeError):
                known, parts = False, None
            if not known or not isinstance(parts, dict):
                raise ConfigurationError(
                    f"{path}: no results file of this version; remove it or give another --out"
                )
            self._parts = parts

    def part(self, name: str, identity: Mapping[str, Any]) -> dict[str, Entry]:
        """Return the results of a part by key, empty if they came from anything else."""
        wanted = json.loads(json.dumps(identity))
        part = self._parts.get(name)
        if part is None or part["identity"] != wanted:
            part = self._parts[name] = {"identity": wanted, "results": {}}
        results: dict[str, Entry] = part["results"]
        return results

    def save(self) -> None:
        """Write the file, readable by its owner only."""
        content = json.dumps({"format": FORMAT, "parts": self._parts}, sort_keys=True)
        write_bytes(self.path, content.encode() + b"\n", 0o600)


@dataclass(frozen=True)
class Task:
    """One training: where its result is kept and how it is made."""

    results: dict[str, Entry]
    key: str
    compute: Callable[[], Entry]

    @property
    def done(self) -> bool:
        """Whether the result is there."""
        return self.key in self.results


def run(tasks: Sequence[Task], store: Store, progress: Progress = silent) -> None:
    """Compute what is missing on one thread; an interrupt loses the training under way only.

    Each result also has the ``seconds`` that it took.
    """
    with _one_thread():
        for number, task in enumerate(tasks, 1):
            if not task.done:
                begun = time.perf_counter()
                entry = task.compute()
                entry["seconds"] = round(time.perf_counter() - begun, 3)
                task.results[task.key] = entry
                store.save()
            found = task.results[task.key]
            progress(number, len(tasks), {name: found[name] for name in SHOWN if name in found})


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch, BLAS and OpenMP to one thread, so that seconds can be compared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
