"""Settings of the server: ``CIPHERSCORE_*`` environment variables and one TOML file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from cipherscore.errors import ConfigurationError
from serving import settings_check
from serving.settings_file import PREFIX, FileSource, Origins

__all__ = ["PREFIX", "Settings", "available_cores", "load_settings"]

_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


class Settings(BaseSettings):
    """What an operator may set.

    Each field is the environment variable ``CIPHERSCORE_<FIELD>``, or the key ``<field>`` of the
    TOML file that ``CIPHERSCORE_SETTINGS_FILE`` names; the environment wins.  No other file is
    looked for.  Secrets are never settings themselves: a setting names the file they are in.

    The HTTP address is BentoML's (``bentoml serve --host --port``, ``BENTOML_HOST``,
    ``BENTOML_PORT``), the registry is in ``BENTOML_HOME``.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="ignore", allow_inf_nan=False
    )

    grpc_host: str = Field(
        "0.0.0.0",  # noqa: S104 - as BentoML's HTTP default; in a container nothing else is reachable
        description="Address the gRPC server binds.",
    )
    grpc_port: int = Field(50051, ge=1, le=65535, description="Port of the gRPC server.")
    grpc_engine: Literal["native", "grpcio"] = Field(
        "native", description="native is the fast one (docs/decisions); grpcio the compatible one."
    )
    device: Literal["auto", "strict", "cpu"] = Field(
        "auto", description="auto takes CUDA if it really runs the models; strict insists on it."
    )
    gpu_memory_mib: int = Field(
        512, ge=64, description="Most GPU memory of one model's session, in MiB."
    )
    precision: Literal["fp32", "int8"] = Field(
        "fp32", description="Variant of the models to run; int8 needs a version registered with it."
    )
    classifier: str = Field(
        "", description="Model name, or name:version; empty: the only one in production."
    )
    generator: str = Field(
        "", description="Model name, or name:version; empty: the only one in production."
    )
    extra_models: Annotated[list[str], NoDecode] = Field(
        default_factory=list,
        description="More versions to serve, name:version; requests pin them by name. "
        "In the environment separated by commas.",
    )
    watch_seconds: float = Field(
        1.0, ge=0, le=3600, description="How often to look for promoted versions; 0: never."
    )
    workers: int = Field(1, ge=1, le=256, description="Worker processes.")
    threads: int = Field(
        0, ge=0, le=1024, description="Threads of one model run; 0: the cores present / workers."
    )
    max_rows: int = Field(100_000, ge=1, description="Rows of one scoring request.")
    max_reasons: int = Field(
        255,
        ge=0,
        le=65_535,
        description="Reason codes for each row of a request; 0: none are given.",
    )
    score_decimals: int | None = Field(
        None,
        ge=0,
        le=6,
        description="Decimals that probabilities and reasons are rounded to; unset: exact.",
    )
    max_batch_rows: int = Field(
        1024, ge=1, le=65_536, description="Rows of one model run that several requests share."
    )
    max_queue_rows: int = Field(
        65_536, ge=1, description="Rows that may wait in one worker; more are refused at once."
    )
    max_queue_seconds: float = Field(
        1.0, gt=0, le=60, description="Estimated wait from which a request is refused at once."
    )
    max_deadline_seconds: float = Field(
        300.0, gt=0, description="Longest deadline of a request; a longer or no deadline gets this."
    )
    max_connections: int = Field(
        1_000, ge=1, description="Open connections of one worker, per transport."
    )
    max_streams: int = Field(256, ge=1, le=10_000, description="Open calls of one connection.")
    tls_cert_file: Path | None = Field(None, description="PEM certificate chain of gRPC and HTTP.")
    tls_key_file: Path | None = Field(None, description="PEM private key of the certificate.")
    tls_client_ca_file: Path | None = Field(
        None, description="PEM roots of client certificates; set: mutual TLS is required."
    )
    clients_file: Path | None = Field(
        None, description="TOML file of clients: digests of API keys, scopes and limits."
    )
    jwt_key_file: Path | None = Field(
        None, description="PEM public keys that JWTs are verified with: RSA, P-256 or Ed25519."
    )
    jwt_issuer: str = Field("", description="Issuer a JWT must name.")
    jwt_audience: str = Field("", description="Audience a JWT must name.")
    rate_per_second: float = Field(
        0.0, ge=0, description="Requests per second of one client in one worker; 0: no limit."
    )
    rate_burst: int = Field(100, ge=1, description="Requests a client may send at once.")
    max_concurrent: int = Field(
        0, ge=0, description="Running requests of one client in one worker; 0: no limit."
    )
    log_format: Literal["json", "text"] = Field("json", description="Form of the log lines.")
    log_requests: Literal["errors", "all", "none"] = Field(
        "errors", description="Which requests get a log line; none holds a payload."
    )
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

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic calls it by name
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return where values come from, the strongest first."""
        return init_settings, env_settings, FileSource(settings_cls)

    @field_validator("extra_models", mode="before")
    @classmethod
    def _split(cls, given: object) -> object:
        """Take what an environment variable can hold: texts separated by commas."""
        if isinstance(given, str):
            return [part.strip() for part in given.split(",") if part.strip()]
        return given

    @property
    def session_threads(self) -> int:
        """Threads of one model run: as set, else the cores present shared by the workers."""
        return self.threads or max(1, available_cores() // self.workers)

    def model_of(self, kind: str) -> str:
        """Return what was set for a model kind; empty for automatic."""
        return {"classifier": self.classifier, "generator": self.generator}[kind]


def load_settings() -> Settings:
    """Read and check the settings.

    Raises:
        ConfigurationError: The file cannot be read, a name is unknown, or a value is wrong; the
            message says which, and where it was set.
    """
    settings_check.check_names(set(Settings.model_fields))
    try:
        settings = Settings()  # type: ignore[call-arg]  # defaults are given, mypy lacks the plugin
    except ValidationError as error:
        origins = Origins.now(Settings.model_fields)
        wrong = "; ".join(
            f"{origins.label(str(item['loc'][0]))}: {item['msg']}" for item in error.errors()
        )
        raise ConfigurationError(f"wrong setting: {wrong}") from None
    settings_check.check(settings)
    return settings


def available_cores() -> int:
    """Return the cores this process may use: its CPU affinity, cut to the container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = _CPU_QUOTA.read_text().split()
        return max(1, min(cores or 1, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores or 1
