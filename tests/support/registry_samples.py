"""Small made-up model versions for registry tests."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from cipherscore.schema import PublicField, PublicSchema
from cipherscore.tokens import BLOCK_LENGTH, SIV_LENGTH, header
from cipherscore.vocabulary import Vocabulary
from registry import Registry, Version, VersionRecord

KEY_ID = "0a1b2c3d"
NAME = "demo-classifier"
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Folder for many short-lived registries; neither a kill nor an exception empties a page cache."""
FIELDS = {"colour": 3, "size": 2}


def token(key_id: str, field: str, level: int) -> bytes:
    body = hashlib.sha512(f"{key_id}/{field}/{level}".encode()).digest()
    return header(key_id) + body[: SIV_LENGTH + BLOCK_LENGTH]


def vocabulary(key_id: str = KEY_ID) -> Vocabulary:
    return Vocabulary.build(
        key_id, {f: [token(key_id, f, i) for i in range(n)] for f, n in FIELDS.items()}
    )


def schema() -> PublicSchema:
    fields = tuple(PublicField(name, "categorical") for name in FIELDS)
    return PublicSchema("demo", "ab" * 32, fields, "outcome", 5.0, 1.0)


def record(**changes: object) -> VersionRecord:
    content: dict[str, object] = {
        "kind": "classifier",
        "key_id": KEY_ID,
        "dataset_digest": "cd" * 32,
        "code_version": "0.1.0",
        "preset": "default",
        "seed": 7,
        "metrics": {"auc": {"value": 0.79, "low": 0.75, "high": 0.83}},
        "threshold": 0.17,
        "class_prior": 0.3,
    }
    return VersionRecord(**{**content, **changes})  # type: ignore[arg-type]


def files(model: bytes = b"onnx") -> dict[str, Path | bytes]:
    return {
        "model.onnx": model,
        "vocabulary.json": vocabulary().to_json().encode(),
        "schema.json": schema().to_json().encode(),
    }


def register(registry: Registry, name: str = NAME, model: bytes = b"onnx") -> Version:
    return registry.register(name, files(model), record())


def check(registry: Registry, name: str = NAME) -> None:
    """Assert what must hold at any moment in a registry in which nothing was damaged."""
    versions = registry.versions(name)
    for version in versions:
        version.verify()
        assert version.pinned == version.digest
    production = [v.tag for v in versions if v.stage.value == "production"]
    assert len(production) <= 1
    stages = registry.home / "cipherscore" / "stages" / f"{name}.json"
    if stages.exists() and json.loads(stages.read_text())["production"] is not None:
        assert [registry.production(name).tag] == production
    for previous in registry.previous(name):
        assert previous.verify().stage.value in ("archived", "canary", "shadow")
    staged = registry.staged(name)
    found = (staged.production, staged.canary, staged.shadow)
    for version, stage in zip(found, ("production", "canary", "shadow"), strict=True):
        expected = [] if version is None else [version]
        assert [v for v in versions if v.stage.value == stage] == expected
    assert (staged.canary is None) == (staged.percent == 0)


def leftovers(home: Path) -> list[str]:
    """Files that belong to no finished operation."""
    work = [p for p in (home / "cipherscore" / "work").glob("*") if p.name != ".lock"]
    return sorted(str(p.relative_to(home)) for p in [*work, *home.rglob("*.tmp")])
