"""The one place that touches BentoML's model store: where it is and how a version is described.

A version is an ordinary BentoML model below ``<home>/models``: ``bentoml models list``, ``bentoml
build`` and ``bentoml.models.get`` know it.  BentoML's own ``create`` is not used because it fills
the final folder file by file (a killed process would leave half a version, which makes ``bentoml
models list`` fail) and reports each save to its makers.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cipherscore import files
from registry.integrity import BENTO_FILE
from registry.version import VersionRecord

LATEST_FILE = "latest"


def default_home() -> Path:
    """Return BentoML's home: ``BENTOML_HOME``, else ``bentoml`` in the user's home.

    The variable is read at each call; BentoML itself reads it once, at import.
    """
    given = os.environ.get("BENTOML_HOME")
    return Path(given).expanduser() if given else Path.home() / "bentoml"


def models_folder(home: Path) -> Path:
    """Return the folder of BentoML's model store."""
    return home / "models"


def describe(folder: Path, name: str, version: str, record: VersionRecord, digest: str) -> None:
    """Write BentoML's ``model.yaml`` for the version in ``folder``.

    Labels and metadata repeat what ``bentoml models list`` and ``get`` should show; the registry
    reads none of it.
    """
    # BentoML takes a second to import, and only registering needs it.
    # `bentoml.Model.create` would be the public way to a `ModelInfo`; it also makes a temporary
    # folder, which a killed process leaves behind.
    from bentoml import Tag  # noqa: PLC0415
    from bentoml._internal.models.model import ModelContext, ModelInfo  # noqa: PLC0415

    metadata: dict[str, Any] = {
        "digest": digest,
        "dataset_digest": record.dataset_digest,
        "schema_digest": record.schema_digest,
        "vocabulary_digest": record.vocabulary_digest,
        "code_version": record.code_version,
        "parent": record.parent or "",
        "preset": record.preset,
        "seed": record.seed,
    }
    info = ModelInfo(
        tag=Tag(name, version),
        module="",
        api_version="v1",
        signatures={},
        options={},
        labels={"kind": record.kind, "key_id": record.key_id, "digest": digest[:12]},
        metadata=metadata,
        context=ModelContext(framework_name="onnx", framework_versions={}),
    )
    with (folder / BENTO_FILE).open("w", encoding="utf-8") as target:
        info.dump(target)


def point_latest(name_folder: Path, version: str | None) -> None:
    """Make BentoML's ``name:latest`` mean ``version``.  Raises: OSError."""
    for leftover in name_folder.glob(f".{LATEST_FILE}.*.tmp"):
        leftover.unlink(missing_ok=True)
    if version is None:
        (name_folder / LATEST_FILE).unlink(missing_ok=True)
    else:
        files.write_bytes(name_folder / LATEST_FILE, version.encode())
