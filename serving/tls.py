"""TLS of both transports from one set of settings; certificates are exchanged while serving.

The native engine and HTTP share `server_context`, the grpcio engine has `grpc_credentials`.  All
look at the files again when a client connects, at most once a second; new files that are wrong
are logged and not used.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from cipherscore.errors import ConfigurationError
from serving.file_watch import Watched
from serving.settings import Settings

H2 = ("h2",)
HTTP1 = ("http/1.1",)

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Suites of TLS 1.2; those of 1.3 are all good.  RFC 9113 forbids the others for HTTP/2."""


def server_context(settings: Settings, protocols: Sequence[str]) -> ssl.SSLContext | None:
    """Return the context of a server socket; None if TLS is not set up.

    TLS 1.2 or newer.  Where ``tls_client_ca_file`` is set, a client without a certificate of that
    authority does not get past the handshake.

    Args:
        settings: Whose ``tls_*`` are used.
        protocols: What to agree on (ALPN): `H2` or `HTTP1`.

    Raises:
        ConfigurationError: A file is wrong, or key and certificate do not fit.
    """
    if settings.tls_cert_file is None:
        return None
    renewer = _Renewer(settings, lambda: _context(settings, protocols))
    context: ssl.SSLContext = renewer.current

    def at_client_hello(connection: Any, name: str | None, found: ssl.SSLContext) -> None:
        del name, found
        latest = renewer.latest()
        if latest is not context:
            connection.context = latest

    # Called once per handshake, also for a client that names no server.
    context.sni_callback = at_client_hello
    return context


def grpc_credentials(settings: Settings) -> Any:
    """Return ``grpc.ServerCredentials`` for the grpcio engine; None if TLS is not set up.

    Raises:
        ConfigurationError: A file is wrong, or key and certificate do not fit.
    """
    if settings.tls_cert_file is None:
        return None
    import grpc  # noqa: PLC0415 - the native engine does without

    def configuration() -> Any:
        _context(settings, H2)  # gRPC would only fail at each handshake
        assert settings.tls_cert_file is not None
        assert settings.tls_key_file is not None
        roots = settings.tls_client_ca_file
        pair = (settings.tls_key_file.read_bytes(), settings.tls_cert_file.read_bytes())
        return grpc.ssl_server_certificate_configuration(
            [pair], root_certificates=None if roots is None else roots.read_bytes()
        )

    renewer = _Renewer(settings, configuration)
    first = renewer.current

    def fetch() -> Any:  # called at each handshake
        latest = renewer.latest()
        return None if latest is first else latest

    return grpc.dynamic_ssl_server_credentials(
        first, fetch, require_client_authentication=settings.tls_client_ca_file is not None
    )


def bentoml_config(settings: Settings) -> dict[str, Any]:
    """Return the ``ssl`` entry of ``@bentoml.service`` that puts HTTP on TLS."""
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return {"enabled": False}
    config: dict[str, Any] = {
        "enabled": True,
        "certfile": str(settings.tls_cert_file),
        "keyfile": str(settings.tls_key_file),
        "ciphers": CIPHERS,
    }
    if settings.tls_client_ca_file is not None:
        config["ca_certs"] = str(settings.tls_client_ca_file)
        config["cert_reqs"] = int(ssl.CERT_REQUIRED)
    return config


def lend_context_to_uvicorn(settings: Settings) -> None:
    """Have the HTTP server of this process use `server_context`.

    Call it in a worker while the service's module is imported: uvicorn makes its context before
    the service starts.  BentoML hands uvicorn only the files' names, which uvicorn reads once, and
    gives no way to its ``ssl_context_factory``.  Should this ever have no effect, `bentoml_config`
    still gives TLS, without the exchange of certificates.
    """
    import uvicorn.config  # noqa: PLC0415 - not in the parent

    context = server_context(settings, HTTP1)
    if context is None:
        return

    def create_ssl_context(*_: object, **__: object) -> ssl.SSLContext:
        return context

    setattr(uvicorn.config, "create_ssl_context", create_ssl_context)  # noqa: B010 - mypy


# ---- who is at the other end


def certificate_name(certificate: Mapping[str, Any] | None) -> str:
    """Return the name in a verified certificate: its first DNS or URI name, else its common name.

    Args:
        certificate: What ``SSLSocket.getpeercert()`` gives, or None.

    Returns:
        The name, or an empty text if there is none.
    """
    if not certificate:
        return ""
    for kind, value in certificate.get("subjectAltName", ()):
        if kind in ("DNS", "URI"):
            return str(value)
    parts = (part for parts in certificate.get("subject", ()) for part in parts)
    return next((str(value) for kind, value in parts if kind == "commonName"), "")


@lru_cache(maxsize=1024)
def pem_certificate_name(pem: bytes) -> str:
    """Return the same name as `certificate_name`, from a PEM certificate that was verified."""
    certificate = x509.load_pem_x509_certificate(pem)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    for name in names:
        if isinstance(name, (x509.DNSName, x509.UniformResourceIdentifier)):
            return name.value
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(common[0].value) if common else ""


def grpc_certificate(auth_context: Mapping[str, Iterable[bytes]]) -> str:
    """Return the name in the client certificate of a grpcio call, given its ``auth_context()``."""
    return next((pem_certificate_name(pem) for pem in auth_context.get("x509_pem_cert", ())), "")


# ---- files


class _Renewer:
    """Makes something of the TLS files, and again when they change."""

    def __init__(self, settings: Settings, make: Callable[[], Any]) -> None:
        files = (settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
        self._make = make
        self.current: Any = None
        self._watched = Watched([path for path in files if path is not None], self._read)

    def latest(self) -> Any:
        """Return what the files give now, or gave when they were last right."""
        self._watched.refresh()
        return self.current

    def _read(self) -> None:
        self.current = self._make()


def _context(settings: Settings, protocols: Sequence[str]) -> ssl.SSLContext:
    """Make a context of the files as they are now."""
    assert settings.tls_cert_file is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(list(protocols))
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    try:
        context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file, _no_password)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"tls_cert_file {settings.tls_cert_file} and tls_key_file {settings.tls_key_file} "
            f"are no pair of a PEM certificate and its unencrypted key ({_reason(error)})"
        ) from None
    roots = settings.tls_client_ca_file
    if roots is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        # A resumed session is not verified again, also when the authority has been exchanged.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        try:
            context.load_verify_locations(roots)
        except OSError as error:
            raise ConfigurationError(
                f"tls_client_ca_file {roots} holds no PEM certificate ({_reason(error)})"
            ) from None
    return context


def _no_password() -> str:
    """Keep OpenSSL from asking at the terminal for the password of an encrypted key."""
    raise ValueError("the key is encrypted")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
