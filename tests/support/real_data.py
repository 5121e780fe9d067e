"""Where tests find real public tables: the folder in CIPHERSCORE_DATA, or one beside the checkout.

The folder is laid out as the schemas' ``source.path`` says.  Tests skip where it is absent.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).parents[3] / "shared/data"


def real_table(relative: str) -> Path:
    """Return the path of a real table; skips the test where there is none."""
    folder = Path(os.environ.get("CIPHERSCORE_DATA") or _BESIDE)
    path = folder / relative
    if not path.is_file():
        pytest.skip(f"no {relative}: set CIPHERSCORE_DATA to a folder that has it")
    return path


def german_credit() -> Path:
    """Return the path of the original ``german.data``."""
    return real_table("german_credit/german.data")
