"""The way to the host: address, TLS, channel options, retries; what a failed call means."""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from cryptography.x509 import load_pem_x509_certificates

from cipherscore.client.credential import Credential
from cipherscore.errors import (
    CipherScoreError,
    ConfigurationError,
    DeadlineExceeded,
    RequestError,
    ServiceError,
    ServiceUnavailable,
    request_errors,
    shorten,
)

SERVICE = "cipherscore.v1.CipherScore"
CODE_KEY = "cipherscore-error-code"
FIELD_KEY = "cipherscore-error-field"
PUSHBACK_KEY = "grpc-retry-pushback-ms"

MAX_RETRIES = 4
"""gRPC takes at most five attempts (gRFC A6); a higher number would be cut silently."""

MAX_ANSWER_BYTES = 64 << 20
RETRY_BUFFER_BYTES = 64 << 20
"""A message larger than gRPC's default of 256 KiB would be sent once and never retried."""

DETAIL_LENGTH = 300
_ADDRESS = re.compile(
    r"(?:\[(?P<ip6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>\d{1,5})\Z"
)


@dataclass(frozen=True)
class Tls:
    """How to speak TLS to the host.  PEM, as bytes or as the path of a file.

    Args:
        root_certificates: Authorities to trust; None for the ones that ship with gRPC.
        certificate: The client's certificate chain, where the host asks for one.
        private_key: Its private key.
        server_name: Name to expect in the host's certificate, where it is not the address.
    """

    root_certificates: bytes | str | Path | None = None
    certificate: bytes | str | Path | None = None
    private_key: bytes | str | Path | None = field(default=None, repr=False)
    server_name: str | None = None

    def credentials(self) -> Any:
        """Return ``grpc.ChannelCredentials``.

        Raises:
            ConfigurationError: A file cannot be read or is no PEM, or a certificate comes without
                its key.
        """
        if (self.certificate is None) != (self.private_key is None):
            raise ConfigurationError("TLS: give the client's certificate and private_key together")
        roots = _certificates(self.root_certificates, "root_certificates")
        chain = _certificates(self.certificate, "certificate")
        key = _pem(self.private_key, "private_key")
        return grpc.ssl_channel_credentials(roots, key, chain)


@dataclass(frozen=True)
class Address:
    """``host:port`` of a host; an IPv6 host stands in brackets.

    Raises:
        ConfigurationError: It is none.
    """

    text: str

    def __post_init__(self) -> None:
        found = _ADDRESS.match(self.text)
        if not found or not 0 < int(found["port"]) < 1 << 16:
            raise ConfigurationError(
                f"address {shorten(self.text)} is not host:port, for instance 127.0.0.1:50051"
            )

    @property
    def loopback(self) -> bool:
        """Whether the address stays on this machine."""
        return is_loopback(self.text.rsplit(":", 1)[0].strip("[]"))

    @property
    def target(self) -> str:
        """The address as gRPC takes it, so that a host named ``unix`` is not read as a scheme."""
        return f"dns:///{self.text}"


@dataclass(frozen=True)
class Transport:
    """Everything that a channel to one host needs, checked.

    Args:
        address: ``host:port``.
        tls: TLS settings; None for plain text.
        insecure: Allow plain text to another machine.  The host's answers are then not
            authentic, and whoever listens learns what the host learns.
        retries: Further attempts after UNAVAILABLE and RESOURCE_EXHAUSTED, 0 to `MAX_RETRIES`.
        credential: Shown with every call.

    Raises:
        ConfigurationError: A value is out of range, or plain text would leave this machine, with
            a credential also where that is allowed.
    """

    address: Address
    tls: Tls | None = None
    insecure: bool = False
    retries: int = MAX_RETRIES
    credential: Credential | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.retries <= MAX_RETRIES:
            raise ConfigurationError(f"retries must be 0 to {MAX_RETRIES}, not {self.retries}")
        if self.tls is not None and self.insecure:
            raise ConfigurationError("give either tls or insecure=True, not both")
        if self.tls is None and not self.insecure and not self.address.loopback:
            raise ConfigurationError(
                f"{self.address.text} is another machine: give TLS settings (Tls, --tls-root) "
                "or allow plain text (insecure=True, --insecure)"
            )
        if self.tls is None and self.credential is not None and not self.address.loopback:
            raise ConfigurationError(
                f"an API key is not sent to {self.address.text} in plain text, where others could "
                "read and use it: give TLS settings (Tls, --tls-root)"
            )
        if self.tls is not None:
            self.tls.credentials()  # so that a wrong file is reported now, not at the first call

    def open(self, factory: Any) -> Any:
        """Return a channel made by ``factory``, the module ``grpc`` or ``grpc.aio``."""
        if self.tls is None:
            return factory.insecure_channel(self.address.target, options=self.options())
        credentials = self.tls.credentials()
        return factory.secure_channel(self.address.target, credentials, options=self.options())

    def options(self) -> list[tuple[str, int | str]]:
        """Return the channel options, retries among them."""
        options: list[tuple[str, int | str]] = [
            ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
            ("grpc.per_rpc_retry_buffer_size", RETRY_BUFFER_BYTES),
            ("grpc.enable_retries", int(self.retries > 0)),
            # By default gRPC waits up to two minutes before it connects again, and fails all calls
            # meanwhile; a long-lived client must notice sooner that its host is back.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 5000),
        ]
        if self.retries:
            options.append(("grpc.service_config", service_config(self.retries)))
        if self.address.loopback:
            options.append(("grpc.enable_http_proxy", 0))
        if self.tls is not None and self.tls.server_name:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return options


def service_config(retries: int) -> str:
    """Return gRPC's service config (A6): exponential backoff with jitter.

    Both statuses mean that the request was not begun.  Where the host names a time
    (``grpc-retry-pushback-ms``), gRPC waits for that instead.
    """
    policy = {
        "maxAttempts": retries + 1,
        "initialBackoff": "0.2s",
        "maxBackoff": "3s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
    }
    return json.dumps({"methodConfig": [{"name": [{"service": SERVICE}], "retryPolicy": policy}]})


def is_loopback(host: str) -> bool:
    """Tell whether ``host``, a name or an IP address, is this machine's loopback."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def translate(failure: Any, address: str, timeout: float) -> CipherScoreError:
    """Return what a failed call means, as an error to raise.

    Args:
        failure: ``grpc.RpcError`` of either gRPC API.
        address: The host, for the message.
        timeout: The call's deadline in seconds, for the message.

    Returns:
        The `RequestError` that the host named in the trailing metadata, or else a `ServiceError`.
    """
    status = failure.code().name
    detail = _text(failure.details() or "")
    metadata = {key: _text(value) for key, value in failure.trailing_metadata() or ()}
    if CODE_KEY in metadata:
        cls = request_errors().get(metadata[CODE_KEY], RequestError)
        wait = _seconds(metadata.get(PUSHBACK_KEY, ""))
        return cls(detail, field=metadata.get(FIELD_KEY), retry_after=wait)
    if status == "DEADLINE_EXCEEDED":
        return DeadlineExceeded(f"{address} did not answer within {timeout:g} s", status=status)
    if status == "UNAVAILABLE":
        return ServiceUnavailable(f"{address} is unavailable: {detail}", status=status)
    return ServiceError(f"{address} answered {status}: {detail}", status=status)


def _seconds(milliseconds: str) -> float | None:
    """Return the time a host named; None if it named none, or says not to try again."""
    return int(milliseconds) / 1000 if re.fullmatch(r"[0-9]{1,9}", milliseconds) else None


def _text(value: str | bytes) -> str:
    """Return the host's text, cut and without control characters: it may reach a terminal."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    text = "".join(char if char.isprintable() else " " for char in text[: DETAIL_LENGTH + 1])
    return text if len(text) <= DETAIL_LENGTH else text[:DETAIL_LENGTH] + "…"


def _pem(source: bytes | str | Path | None, name: str) -> bytes | None:
    if source is None or isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"TLS {name}: cannot read {source}: {error.strerror}") from None


def _certificates(source: bytes | str | Path | None, name: str) -> bytes | None:
    """Read certificates and check them here: gRPC would only log that they are wrong."""
    pem = _pem(source, name)
    try:
        if pem is not None:
            load_pem_x509_certificates(pem)
    except ValueError:
        raise ConfigurationError(f"TLS {name}: no certificate in PEM form") from None
    return pem
