"""The data owner's side: the only place that sees raw values and keys."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cipherscore.client.async_sdk import AsyncClient
    from cipherscore.client.incoming import ModelInfo, Score
    from cipherscore.client.reasons import Reason
    from cipherscore.client.sdk import Client
    from cipherscore.client.transport import Tls

__all__ = ["AsyncClient", "Client", "ModelInfo", "Reason", "Score", "Tls"]


def __getattr__(name: str) -> Any:
    """Import the SDK when it is asked for, so that a key tool does not load gRPC."""
    if name in __all__:
        return getattr(import_module("cipherscore.client.sdk"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
