"""Who a caller is, what they may do, and how much of it.

A caller shows an API key or a JWT (``authorization: Bearer …``, or a key as ``x-api-key``), or a
client certificate that the TLS handshake verified.  A shown key or token decides alone; a wrong
one is never made good by a certificate.

With neither ``clients_file`` nor ``jwt_key_file`` nor ``tls_client_ca_file`` set, everybody is the
client ``anonymous`` and may score and generate; ``admin`` always needs a credential.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from cipherscore.errors import PermissionDenied, Unauthenticated
from serving import clients_file
from serving.call import Scope
from serving.file_watch import LOOK_SECONDS, Watched
from serving.limiter import Limiter, Limits
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.jwt_tokens import Verifier

_MAX_CREDENTIAL = 8192
_MAX_KNOWN = 1024
"""Headers whose client is remembered, so that a busy client's token is verified once."""
_MAX_LIMITERS = 4096
_ALWAYS = float("inf")
_OPEN: frozenset[Scope] = frozenset({"score", "generate"})
_PUBLIC: frozenset[Scope] = frozenset()


@dataclass(frozen=True, eq=False)
class Client:
    """An authenticated caller.

    Attributes:
        name: As in the clients file; ``jwt:SUBJECT`` or ``cert:NAME`` for those that are not in
            it, which no name in the file can look like; or ``anonymous``.
        scopes: What it may do.
        limiter: How much of it, shared by everything the client shows.
    """

    name: str
    scopes: frozenset[Scope]
    limiter: Limiter


class Access:
    """Identifies callers and holds them to their limits; for one event loop, without locks.

    ``clients_file`` and ``jwt_key_file`` are read again when they change.  A new file that is
    wrong is logged and not used: the old one stays in force.

    Raises:
        ConfigurationError: A file is wrong at start.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._default = Limits(
            settings.rate_per_second, settings.rate_burst, settings.max_concurrent
        )
        self._limiters: dict[str, Limiter] = {}
        self._by_digest: dict[str, Client] = {}
        self._by_certificate: dict[str, Client] = {}
        self._bearers: dict[str, tuple[Client, float]] = {}
        self._keys: dict[str, tuple[Client, float]] = {}
        self._verifier: Verifier | None = None
        self._anonymous = Client("anonymous", _OPEN, self._limiter("anonymous", self._default))
        self._public = Client("anonymous", _PUBLIC, Limiter(Limits()))
        self._files = tuple(self._watch())
        self._open = not self._files and settings.tls_client_ca_file is None
        self._next_look = monotonic() + LOOK_SECONDS if self._files else _ALWAYS

    def identify(
        self, headers: Mapping[str, str], certificate: str = "", *, required: bool = True
    ) -> Client:
        """Return who shows these credentials.

        Args:
            headers: HTTP headers or gRPC metadata, names in lower case.
            certificate: Name in the verified client certificate; empty without one.
            required: Whether an unknown caller is refused; else it is a client without scopes,
                for what is open to everybody.

        Raises:
            Unauthenticated: The caller is unknown; the message holds nothing of what was shown.
        """
        now = monotonic()
        if now >= self._next_look:
            self._look(now)
        if self._open:
            return self._anonymous
        value = headers.get("authorization")
        if value is not None:
            known = self._bearers.get(value)
        else:
            value = headers.get("x-api-key")
            known = None if value is None else self._keys.get(value)
        if known is not None and now < known[1]:
            return known[0]
        try:
            return self._meet(headers, certificate, now)
        except Unauthenticated:
            if required:
                raise
            return self._public

    def enter(self, client: Client, scope: Scope | None) -> Limiter | None:
        """Let a request of ``client`` begin; give what this returns to `leave` when it ends.

        What needs no scope is not limited either: a health watch must not use up a client's share.

        Raises:
            PermissionDenied: The client lacks ``scope``.
            RateLimited: The client is over one of its limits; ``retry_after`` says for how long.
        """
        if scope is None:
            return None
        if scope not in client.scopes:
            if client is self._anonymous:
                raise PermissionDenied(f"{scope} needs a credential, and no client is set up")
            raise PermissionDenied(f"this client may not {scope}")
        limiter = client.limiter
        limiter.enter()
        return limiter

    def leave(self, slot: object) -> None:
        """Take note that a request ended; exactly once."""
        if isinstance(slot, Limiter):
            slot.leave()

    def charge(self, slot: object) -> None:
        """Count one more message of a request that runs, so that a stream is no way round a rate.

        Raises:
            RateLimited: As `enter`.
        """
        if isinstance(slot, Limiter):
            slot.charge()

    # ---- callers not met before

    def _meet(self, headers: Mapping[str, str], certificate: str, now: float) -> Client:
        """Identify a caller the slow way, and remember what it showed."""
        value = headers.get("authorization")
        if value is not None:
            client, until = self._bearer(value, now)
            _remember(self._bearers, value, (client, until))
            return client
        value = headers.get("x-api-key")
        if value is not None:
            client = self._key(value)
            _remember(self._keys, value, (client, _ALWAYS))
            return client
        if certificate:
            return self._certificate(certificate)
        raise Unauthenticated("no credential was sent")

    def _bearer(self, value: str, now: float) -> tuple[Client, float]:
        scheme, _, credential = value.strip().partition(" ")
        credential = credential.strip()
        if scheme.lower() != "bearer" or not credential:
            raise Unauthenticated("the authorization header is not: Bearer CREDENTIAL")
        # A key has no dot, a JWT has two.
        if self._verifier is None or credential.count(".") != 2:
            return self._key(credential), _ALWAYS
        claims = self._verifier.verify(credential)
        name = f"jwt:{claims.subject}"
        client = Client(name, claims.scopes, self._limiter(name, self._default))
        return client, now + (claims.expires - time.time())

    def _key(self, key: str) -> Client:
        """Find the client of a key by the key's digest.

        The comparison need not take constant time: what its duration tells is about the digest,
        and nobody can choose a key by the digest it shall have.
        """
        if len(key) > _MAX_CREDENTIAL:
            raise Unauthenticated("the credential is too long")
        client = self._by_digest.get(clients_file.digest(key))
        if client is None:
            raise Unauthenticated("the credential is not known here")
        return client

    def _certificate(self, name: str) -> Client:
        client = self._by_certificate.get(name)
        if client is not None:
            return client
        if self._files:
            raise Unauthenticated("the client certificate is not known here")
        # Nothing but mutual TLS is set up: a certificate of the authority is the credential.
        name = f"cert:{name}"
        return Client(name, _OPEN, self._limiter(name, self._default))

    # ---- files and limits

    def _watch(self) -> Iterator[Watched]:
        """Read the files and yield them."""
        settings = self._settings
        if (clients := settings.clients_file) is not None:
            yield Watched([clients], partial(self._read_clients, clients))
        if (keys := settings.jwt_key_file) is not None:
            yield Watched([keys], partial(self._read_jwt_keys, keys))

    def _look(self, now: float) -> None:
        self._next_look = now + LOOK_SECONDS
        for file in self._files:
            file.refresh()

    def _read_clients(self, path: Path) -> None:
        entries = clients_file.read(path)
        clients = [(entry, self._client(entry)) for entry in entries]
        self._by_digest = {key: c for entry, c in clients for key in entry.key_sha256}
        self._by_certificate = {name: c for entry, c in clients for name in entry.certificates}
        self._forget()

    def _read_jwt_keys(self, path: Path) -> None:
        from serving.jwt_tokens import Verifier  # noqa: PLC0415 - PyJWT only where it is used

        self._verifier = Verifier(path, self._settings.jwt_issuer, self._settings.jwt_audience)
        self._forget()

    def _forget(self) -> None:
        self._bearers.clear()
        self._keys.clear()

    def _client(self, entry: clients_file.Entry) -> Client:
        usual = self._default
        limits = Limits(
            usual.rate if entry.rate_per_second is None else entry.rate_per_second,
            usual.burst if entry.rate_burst is None else entry.rate_burst,
            usual.concurrent if entry.max_concurrent is None else entry.max_concurrent,
        )
        limiter = self._limiter(entry.name, limits)
        return Client(entry.name, frozenset(entry.scopes), limiter)

    def _limiter(self, name: str, limits: Limits) -> Limiter:
        """Return the limiter of a client, the same one for as long as it matters."""
        limiter = self._limiters.get(name)
        if limiter is not None:
            limiter.change(limits)
            return limiter
        if len(self._limiters) >= _MAX_LIMITERS:
            self._forget_idle(monotonic())
        limiter = self._limiters[name] = Limiter(limits)
        return limiter

    def _forget_idle(self, now: float) -> None:
        """Drop limiters of callers that are in no file and have not come for a while."""
        listed = {client.name for client in self._by_digest.values()}
        listed |= {client.name for client in self._by_certificate.values()}
        self._limiters = {
            name: limiter
            for name, limiter in self._limiters.items()
            if name in listed or not limiter.idle(now)
        }
        self._forget()


def _remember(
    known: dict[str, tuple[Client, float]], value: str, found: tuple[Client, float]
) -> None:
    """Remember what was found, the oldest forgotten first; only valid credentials come here."""
    if len(known) >= _MAX_KNOWN:
        known.pop(next(iter(known)))
    known[value] = found
