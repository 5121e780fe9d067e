"""Checkpoint and weights files of the classifier: tensors and plain values, never code."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cipherscore.errors import TrainingError
from cipherscore.files import write_bytes

CHECKPOINT_FILE = "checkpoint.pt"


class Checkpoint:
    """The state of an unfinished training, on disk beside the run.

    Args:
        path: File of the checkpoint.
        identity: What the training depends on; a checkpoint of another training is ignored.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.identity = dict(identity)

    def load(self) -> dict[str, Any] | None:
        """Return the saved state, or nothing if there is none for this very training."""
        if not self.path.is_file():
            return None
        try:
            content = read_tensors(self.path)
        except TrainingError:
            return None
        if content.get("identity") != self.identity:
            return None
        state: dict[str, Any] = content["state"]
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Write ``state`` atomically."""
        write_tensors(self.path, {"identity": self.identity, "state": dict(state)})

    def remove(self) -> None:
        """Delete the file, if there is one."""
        self.path.unlink(missing_ok=True)


def write_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write nested tensors and plain values atomically."""
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    write_bytes(path, buffer.getvalue())


def read_tensors(path: Path) -> dict[str, Any]:
    """Read what `write_tensors` wrote; a file that holds code is refused, not run.

    Raises:
        TrainingError: The file is missing, damaged, or holds anything but tensors and values.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch's reader raises whatever junk bytes lead it to: struct.error, KeyError, ...
        raise TrainingError(f"{path}: cannot be read ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise TrainingError(f"{path}: not a weights file")
    return content
