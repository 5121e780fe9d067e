"""Settings of the server, from ``CIPHERSCORE_*`` environment variables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from cipherscore.errors import ConfigurationError

PREFIX = "CIPHERSCORE_"
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


class Settings(BaseSettings):
    """What an operator may set; each field is the variable ``CIPHERSCORE_<FIELD>``.

    The HTTP address is BentoML's (``bentoml serve --host --port``, ``BENTOML_HOST``,
    ``BENTOML_PORT``), the registry is in ``BENTOML_HOME``.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="ignore"
    )

    grpc_host: str = Field(
        "0.0.0.0",  # noqa: S104 - as BentoML's HTTP default; in a container nothing else is reachable
        description="Address the gRPC server binds.",
    )
    grpc_port: int = Field(50051, ge=1, le=65535, description="Port of the gRPC server.")
    device: Literal["auto", "cuda", "cpu"] = Field(
        "auto", description="auto takes CUDA if it really runs the models; cuda insists on it."
    )
    classifier: str = Field(
        "", description="Model name, or name:version; empty: the only one in production."
    )
    generator: str = Field(
        "", description="Model name, or name:version; empty: the only one in production."
    )
    workers: int = Field(1, ge=1, le=256, description="Worker processes.")
    threads: int = Field(
        0, ge=0, le=1024, description="Threads of one model run; 0: the cores present / workers."
    )
    max_rows: int = Field(100_000, ge=1, description="Rows of one scoring request.")
    max_message_bytes: int = Field(
        32 << 20, ge=1 << 10, le=(1 << 31) - 1, description="Bytes of one request, both transports."
    )
    max_generated_rows: int = Field(
        10_000_000, ge=1, description="Rows of one gRPC Generate request; they are streamed."
    )
    max_generated_json_rows: int = Field(
        10_000, ge=1, description="Rows of one JSON generate request; they are held in memory."
    )
    drain_seconds: float = Field(
        10.0, ge=0, le=3600, description="How long running gRPC calls may take to end on shutdown."
    )

    @property
    def session_threads(self) -> int:
        """Threads of one model run: as set, else the cores present shared by the workers."""
        return self.threads or max(1, available_cores() // self.workers)

    def model_of(self, kind: str) -> str:
        """Return what was set for a model kind; empty for automatic."""
        return {"classifier": self.classifier, "generator": self.generator}[kind]


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        ConfigurationError: One is wrong; the message names its variable.
    """
    try:
        return Settings()  # type: ignore[call-arg]  # defaults are given, mypy lacks the plugin
    except ValidationError as error:
        wrong = "; ".join(
            f"{PREFIX}{str(item['loc'][0]).upper()}: {item['msg']}" for item in error.errors()
        )
        raise ConfigurationError(f"wrong setting: {wrong}") from error


def available_cores() -> int:
    """Return the cores this process may use: its CPU affinity, cut to the container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = _CPU_QUOTA.read_text().split()
        return max(1, min(cores or 1, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores or 1
