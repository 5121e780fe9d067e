"""Runs the gateway: one uvicorn server on the data owner's side, on loopback by default."""

from __future__ import annotations

import logging

import uvicorn

from cipherscore.client.gateway.app import Host, create_app
from cipherscore.client.gateway.body import MAX_BODY_BYTES, MAX_RECORDS
from cipherscore.client.transport import is_loopback
from cipherscore.errors import ConfigurationError

logger = logging.getLogger(__name__)

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8049
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
DRAIN_SECONDS = 10


def create_server(
    client: Host,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    *,
    max_body_bytes: int = MAX_BODY_BYTES,
    max_records: int = MAX_RECORDS,
    draws: int = 1,
) -> uvicorn.Server:
    """Return a server, not started; call its ``run()`` (or await ``serve()``).

    On SIGINT or SIGTERM it finishes what is under way, for at most `DRAIN_SECONDS`.  Its access log
    is off: a caller could put a value into a URL.

    Args:
        client: Encrypts and asks the host; closed when the server stops.
        host: Address to listen on.  Any but a loopback one is warned about: callers would send raw
            values over the network in clear text.
        port: 0 to 65535; 0 takes any free one.
        max_body_bytes: Longest request body.
        max_records: Most records of one request.
        draws: How often the homophones of each record are drawn, see the client's ``score``.

    Raises:
        ConfigurationError: The port is out of range.
    """
    if not 0 <= port < 1 << 16:
        raise ConfigurationError(f"port {port} is not 0 to 65535")
    local = is_loopback(host)
    if not local:
        logger.warning(
            "the gateway listens on %s: raw values cross the network in clear text, and whoever "
            "reaches it can ask for scores; put TLS and access control in front of it",
            host,
        )
    app = create_app(
        client,
        allowed_hosts=(*LOOPBACK_NAMES, host) if local else None,
        max_body_bytes=max_body_bytes,
        max_records=max_records,
        draws=draws,
    )
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    return uvicorn.Server(config)


def run(client: Host, host: str = DEFAULT_HOST, port: int = DEFAULT_PORT) -> None:
    """Serve until SIGINT or SIGTERM; see `create_server`."""
    create_server(client, host, port).run()
