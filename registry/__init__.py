"""The model registry: immutable versions, stages and lineage on BentoML's model store.

The registry lives on the host.  It holds tokens, digests and weights, never a value or a key.
"""

from __future__ import annotations

from registry.reader import Staged
from registry.stages import Change, Stage
from registry.store import Registry
from registry.version import Version, VersionRecord, open_version

__all__ = ["Change", "Registry", "Stage", "Staged", "Version", "VersionRecord", "open_version"]
