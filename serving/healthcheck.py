"""Health check of a container: ``python -m serving.healthcheck`` ends with 0 when it is ready.

Asks the server on this machine over HTTP whether it is ready, and whether its gRPC port is open.
Where clients need a certificate (mutual TLS) it has none to show: being asked for one must do.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import sys
from collections.abc import Mapping

from cipherscore.errors import ConfigurationError
from serving.settings import Settings, load_settings

_SECONDS = 5.0
_HTTP_PORT = 3000
"""BentoML's default."""
_ANYWHERE = ("", "0.0.0.0", "::", "[::]")  # noqa: S104 - compared with, not bound


def failure(settings: Settings, environment: Mapping[str, str] = os.environ) -> str:
    """Return what is wrong with the server on this machine, or nothing.

    Args:
        settings: The server's.
        environment: Where BentoML has its address from.
    """
    host = _reachable(environment.get("BENTOML_HOST", ""))
    port = int(environment.get("BENTOML_PORT") or _HTTP_PORT)
    try:
        status = _readiness(settings, host, port)
    except (OSError, http.client.HTTPException) as error:
        return f"HTTP on port {port}: {type(error).__name__}: {error}"
    if status != http.client.OK:
        return f"HTTP on port {port}: /readyz answered {status}"
    try:
        socket.create_connection(
            (_reachable(settings.grpc_host), settings.grpc_port), _SECONDS
        ).close()
    except OSError as error:
        return f"gRPC on port {settings.grpc_port}: {type(error).__name__}: {error}"
    return ""


def _readiness(settings: Settings, host: str, port: int) -> int:
    """Return the status of ``/readyz``."""
    connection = http.client.HTTPConnection(host, port, timeout=_SECONDS)
    if settings.tls_cert_file is not None:
        # This machine's own server, whose certificate is for another name than the loopback's.
        context = ssl._create_unverified_context()  # noqa: S323, SLF001
        connection = http.client.HTTPSConnection(host, port, timeout=_SECONDS, context=context)
    refused = (ssl.SSLError, ConnectionResetError, BrokenPipeError)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status
    except refused:
        if settings.tls_client_ca_file is None:
            raise
        return http.client.OK
    finally:
        connection.close()


def _reachable(host: str) -> str:
    """Return an address of this machine that a server bound to ``host`` answers on."""
    return "127.0.0.1" if host in _ANYWHERE else host.strip("[]")


def main() -> int:
    """Check and return the exit status."""
    try:
        wrong = failure(load_settings())
    except ConfigurationError as error:
        wrong = str(error)
    if wrong:
        sys.stderr.write(f"unhealthy: {wrong}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
