"""Array files of the generator: plain arrays and JSON facts in one ``.npz``, never code."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cipherscore.errors import TrainingError
from cipherscore.files import write_bytes

_FACTS = "facts"
Arrays = Mapping[str, np.ndarray]


def write_arrays(path: Path, arrays: Arrays, facts: Mapping[str, Any]) -> None:
    """Write arrays and JSON facts atomically."""
    text = json.dumps(facts, sort_keys=True).encode()
    buffer = io.BytesIO()
    content = {**arrays, _FACTS: np.frombuffer(text, np.uint8)}
    np.savez(buffer, allow_pickle=False, **content)
    write_bytes(path, buffer.getvalue())


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `write_arrays` wrote.

    Raises:
        TrainingError: The file is missing or damaged, or holds more than plain arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        facts: dict[str, Any] = json.loads(arrays.pop(_FACTS).tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise TrainingError(f"{path}: cannot be read ({type(error).__name__})") from error
    return arrays, facts


class ArrayCheckpoint:
    """The state of an unfinished generator training, on disk beside the run.

    Args:
        path: File of the checkpoint.
        identity: What the training depends on; a checkpoint of another training is ignored.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.identity = json.loads(json.dumps(identity))

    def load(self) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Return arrays and facts, or nothing if there is no checkpoint of this very training."""
        if not self.path.is_file():
            return None
        try:
            arrays, facts = read_arrays(self.path)
        except TrainingError:
            return None
        return (arrays, facts) if facts.pop("identity", None) == self.identity else None

    def save(self, arrays: Arrays, facts: Mapping[str, Any]) -> None:
        """Write the state atomically."""
        write_arrays(self.path, arrays, {**facts, "identity": self.identity})

    def remove(self) -> None:
        """Delete the file, if there is one."""
        self.path.unlink(missing_ok=True)
