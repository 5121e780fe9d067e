"""What both clients are made of: keys, schema, channel, and how input becomes requests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias

from cipherscore.client.context import forwarded
from cipherscore.client.credential import Credential
from cipherscore.client.disguise import Message, disguise_of
from cipherscore.client.encryption import FieldCipher
from cipherscore.client.keys import Keyset
from cipherscore.client.outgoing import Record, score_requests, token_rows
from cipherscore.client.records import RecordCodec
from cipherscore.client.transport import MAX_RETRIES, Address, Tls, Transport
from cipherscore.errors import ConfigurationError
from cipherscore.proto.v1.cipherscore_pb2_grpc import CipherScoreStub
from cipherscore.schema import Schema
from cipherscore.schema_file import load_schema

DEFAULT_TIMEOUT = 10.0
MAX_TIMEOUT = 1e6
DEFAULT_BATCH_ROWS = 8192
IN_FLIGHT = 4
"""Requests of one large input that are under way at once."""

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    Rows: TypeAlias = Iterable[Record] | pd.DataFrame | pa.Table | pa.RecordBatch
    Row = dict[str, str | None]


class Session:
    """What both clients are made of."""

    def __init__(
        self,
        keyset: Keyset | str | Path,
        schema: Schema | str | Path,
        address: str,
        *,
        passphrase: str | None = None,
        key_id: str | None = None,
        tls: Tls | None = None,
        insecure: bool = False,
        api_key: str | Path | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        retries: int = MAX_RETRIES,
        batch_rows: int = DEFAULT_BATCH_ROWS,
        shuffle: bool = False,
        pad_to: int = 0,
        decoys: Rows | None = None,
    ) -> None:
        """Open the keyset and prepare the channel; the host is not called yet.

        Args:
            keyset: The owner's keys, or the path of a keyset file.
            schema: The fitted schema the model was trained with, its file, or a built-in name.
            address: The host, ``host:port``.
            passphrase: Opens the keyset file.
            key_id: Encrypt under this key of the keyset instead of its primary one.
            tls: TLS settings.  Without, only a loopback address is allowed.
            insecure: Allow plain text to another machine.
            api_key: API key or JWT, or the path of a file with it, which is read again when it
                changes.  Sent over TLS and to a loopback address only.
            timeout: Deadline of a call in seconds, retries included.
            retries: Further attempts after UNAVAILABLE and RESOURCE_EXHAUSTED, 0 to 4, after the
                time the host names, else with exponential backoff and jitter.
            batch_rows: Most rows of one message; larger inputs are cut.
            shuffle: Send the rows of each message in random order; answers come in the caller's.
            pad_to: Pad each message with decoys to a multiple of so many rows, and shuffle it; 0
                pads nothing.  docs/defences.md says what either is worth.
            decoys: Raw rows to pad with, as for `score`, of values that the model's training rows
                have: the host refuses others, and with them the request.

        Raises:
            ConfigurationError: A value is out of range, or plain text would leave this machine.
            KeysetError: The keyset file cannot be opened.
            SchemaError: The schema cannot be read or is not fitted.
        """
        if batch_rows < 1:
            raise ConfigurationError(f"batch_rows must be 1 or more, not {batch_rows}")
        self.timeout = timeout
        self._deadline(timeout)
        self.address = address
        self._credential = None if api_key is None else Credential(api_key)
        self._transport = Transport(Address(address), tls, insecure, retries, self._credential)
        self.schema = schema if isinstance(schema, Schema) else load_schema(schema)
        opened = keyset if isinstance(keyset, Keyset) else _open(Path(keyset), passphrase)
        self._codec = RecordCodec(FieldCipher(opened, self.schema, key_id))
        self._disguise, self._batch_rows = disguise_of(
            self._codec, batch_rows, pad_to, decoys, shuffle=shuffle
        )
        self._channel: Any = None
        self._stub: Any = None
        self._lock = Lock()
        self._closed = False

    @property
    def key_id(self) -> str:
        """Id of the key that this client encrypts under."""
        return self._codec.key_id

    def encrypt(self, rows: Any) -> list[dict[str, bytes]]:
        """Return each row's tokens by field, for a host that is asked in another protocol.

        Rows are neither shuffled nor padded here.

        Args:
            rows: As in ``score``.

        Raises:
            DataError: A row is wrong; a `RecordError` names the field and the row.
        """
        requests = score_requests(self._codec, rows, self._batch_rows)
        return [row for request in requests for row in token_rows(request.table)]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address!r}, key {self.key_id})"

    def _connect(self, factory: Any) -> Any:
        """Return the stub; the channel is made by ``factory`` on first use."""
        if self._closed:
            raise ConfigurationError("this client is closed")
        with self._lock:
            if self._stub is None:
                self._channel = self._transport.open(factory)
                self._stub = CipherScoreStub(self._channel)  # type: ignore[no-untyped-call]
        return self._stub

    @property
    def _metadata(self) -> tuple[tuple[str, str], ...] | None:
        """The metadata of a call that begins now."""
        own = () if self._credential is None else self._credential.metadata()
        return (*own, *forwarded()) or None

    def _deadline(self, timeout: float | None) -> float:
        timeout = self.timeout if timeout is None else timeout
        if not 0 < timeout < MAX_TIMEOUT:
            raise ConfigurationError(f"the timeout must be a number of seconds above 0: {timeout}")
        return timeout

    def _messages(self, rows: Any, reasons: int) -> list[Message]:
        requests = score_requests(self._codec, rows, self._batch_rows, reasons)
        return [Message(r) if self._disguise is None else self._disguise.of(r) for r in requests]


def _open(path: Path, passphrase: str | None) -> Keyset:
    if passphrase is None:
        raise ConfigurationError(
            f"give the passphrase of {path}, or a Keyset; there is no default passphrase"
        )
    return Keyset.load(path, passphrase)
