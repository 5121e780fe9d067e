"""What a run has shown, on the screen and as a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Result:
    """Figures, and whether they are good enough.

    Attributes:
        name: Of the run.
        checks: By sentence whether it holds.
        figures: All that was measured.
    """

    name: str
    checks: dict[str, bool] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether all checks hold."""
        return all(self.checks.values())

    def save(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Write ``NAME.json`` and print the checks."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "name": self.name, "passed": self.passed, "checks": self.checks,
            "figures": self.figures, "machine": dict(facts),
        }  # fmt: skip
        (folder / f"{self.name}.json").write_text(json.dumps(content, indent=1) + "\n")
        for sentence, holds in self.checks.items():
            say(f"{'ok  ' if holds else 'FAIL'} {self.name}: {sentence}")


def say(line: str) -> None:
    """Print at once."""
    print(line, flush=True)


def mib(size: float) -> float:
    """Return bytes as MiB, to a tenth."""
    return round(size / 2**20, 1)


def ms(seconds: float) -> float:
    """Return seconds as milliseconds, to a hundredth."""
    return round(seconds * 1e3, 2)
