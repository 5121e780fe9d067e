"""Every error CipherScore raises on purpose.

::

    CipherScoreError
    ├── ConfigurationError          a setting, path, address or command option is wrong
    ├── SchemaError                 a schema file is wrong or does not fit the table
    ├── DataError                   a table or record cannot be used
    │   └── RecordError             one raw value of one record is not allowed
    ├── TokenFormatError            bytes that are no CipherScore token
    ├── KeysetError                 a keyset cannot be read, unwrapped or written
    │   └── UnknownKeyId            the keyset has no such key
    ├── DecryptionError             a token is not authentic for this field, schema and key
    ├── TrainingError               training cannot start or did not converge to a usable model
    ├── ExportError                 a model cannot be exported
    │   └── ParityError             the exported model differs from its source
    ├── RegistryError               the model registry refuses an operation
    │   ├── VersionNotFound
    │   └── IntegrityError          a stored version is damaged
    ├── DeviceError                 the requested execution provider does not run
    ├── ServiceError                the host could not be asked, or gave no usable answer
    │   ├── ServiceUnavailable      it cannot be reached, also after retries
    │   └── DeadlineExceeded        it did not answer in time
    └── RequestError                the host refuses a request; one table for HTTP and gRPC
        ├── InvalidRequest          malformed body, wrong type, bad number
        ├── MissingField
        ├── ExtraField
        ├── EmptyBatch
        ├── BatchTooLarge
        ├── MalformedToken
        ├── UnknownToken
        ├── WrongKey
        ├── InvalidNoise
        ├── UnknownClass
        ├── UnknownModel
        ├── ModelUnavailable
        ├── Unauthenticated         no credential, or one the host does not know
        ├── PermissionDenied        the client's credential lacks the scope
        ├── RateLimited             the client is over its own limit
        ├── Overloaded              the server sheds load
        ├── Draining                the server is shutting down
        ├── DeadlinePassed          the request's deadline passed before it was computed
        └── Unsupported             an operation or option this server does not have

A failure raises; no function of this package reports one by returning ``False`` or ``None``.
Messages raised on the host never hold a token, a value or a key.
"""

from __future__ import annotations

from typing import ClassVar

SHOWN_LENGTH = 60
"""Longest part of a caller's text that a message repeats, in characters."""


def shorten(value: object) -> str:
    """Return ``repr(value)`` cut to `SHOWN_LENGTH`, so that a huge input makes no huge message."""
    if isinstance(value, (str, bytes)) and len(value) > SHOWN_LENGTH:
        return f"{value[:SHOWN_LENGTH]!r}… ({len(value)} long)"
    try:
        text = repr(value)
    except ValueError:  # an int of more digits than Python prints
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= SHOWN_LENGTH else f"{text[:SHOWN_LENGTH]}…"


class CipherScoreError(Exception):
    """Base of all errors in this package; ``exit_code`` is what the command line returns."""

    exit_code: ClassVar[int] = 1


class ConfigurationError(CipherScoreError):
    """A setting, path, address or command option is wrong."""

    exit_code = 2


class SchemaError(CipherScoreError):
    """A schema file is wrong, or a table does not fit it."""

    exit_code = 3


class DataError(CipherScoreError):
    """A table or a record cannot be used."""

    exit_code = 3


class RecordError(DataError):
    """One raw value of one record is not allowed.  Raised on the data owner's side only."""

    def __init__(self, field: str, given: object, allowed: str, row: int | None = None) -> None:
        where = f"record {row}, field {field!r}" if row is not None else f"field {field!r}"
        super().__init__(f"{where}: {shorten(given)} is not allowed; allowed: {allowed}")
        self.field = field
        self.given = given
        self.allowed = allowed
        self.row = row

    def shifted(self, rows: int) -> RecordError:
        """Return the error with its row counted from the start of a table ``rows`` earlier."""
        row = None if self.row is None else self.row + rows
        return RecordError(self.field, self.given, self.allowed, row)


class TokenFormatError(CipherScoreError):
    """The bytes are no CipherScore token of a known version."""

    exit_code = 3


class KeysetError(CipherScoreError):
    """A keyset cannot be read, unwrapped or written."""

    exit_code = 4


class UnknownKeyId(KeysetError):
    """The keyset holds no key with this id."""


class DecryptionError(CipherScoreError):
    """A token is not authentic for this field, schema and key (RFC 5297 verification failed)."""

    exit_code = 4


class TrainingError(CipherScoreError):
    """Training cannot start, or gave no usable model."""

    exit_code = 5


class ExportError(CipherScoreError):
    """A model cannot be exported to ONNX."""

    exit_code = 5


class ParityError(ExportError):
    """The exported model differs from its source framework by more than the tolerance."""


class RegistryError(CipherScoreError):
    """The model registry refuses the operation."""

    exit_code = 6


class VersionNotFound(RegistryError):
    """No such model or version in the registry."""


class IntegrityError(RegistryError):
    """A stored model version does not match its digest, or a file of it is missing."""


class DeviceError(CipherScoreError):
    """The requested execution provider does not run on this machine."""

    exit_code = 7


class ServiceError(CipherScoreError):
    """The host could not be asked, or gave no usable answer.  Raised by clients only.

    ``status`` is the name of the ``grpc.StatusCode`` that was seen.
    """

    exit_code = 8

    def __init__(self, detail: str, *, status: str = "UNKNOWN") -> None:
        super().__init__(detail)
        self.status = status


class ServiceUnavailable(ServiceError):
    """The host cannot be reached, or refuses work for now, also after retries."""


class DeadlineExceeded(ServiceError):
    """The host did not answer within the call's deadline."""


class RequestError(CipherScoreError):
    """The host refuses a request.

    Class attributes are the one table from which both transports answer: ``code`` (stable slug,
    the last part of the problem+json ``type``), ``http_status`` and ``grpc_status`` (a member name
    of ``grpc.StatusCode``).  ``field`` names the field at fault, ``row`` its zero-based row,
    ``retry_after`` the seconds after which another try makes sense (None: as it is, never).
    """

    code: ClassVar[str] = "request"
    title: ClassVar[str] = "Request refused"
    http_status: ClassVar[int] = 400
    grpc_status: ClassVar[str] = "INVALID_ARGUMENT"

    def __init__(
        self,
        detail: str,
        *,
        field: str | None = None,
        row: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.row = row
        self.retry_after = retry_after


class InvalidRequest(RequestError):
    """Malformed body, wrong type, or a number outside its range."""

    code = "invalid-request"
    title = "Invalid request"


class MissingField(RequestError):
    """A field the model was trained on is absent."""

    code = "missing-field"
    title = "Missing field"


class ExtraField(RequestError):
    """A field the model does not know was sent."""

    code = "extra-field"
    title = "Extra field"


class EmptyBatch(RequestError):
    """The request holds no row."""

    code = "empty-batch"
    title = "Empty batch"


class BatchTooLarge(RequestError):
    """The request holds more rows than the server's limit."""

    code = "batch-too-large"
    title = "Batch too large"
    http_status = 413


class MalformedToken(RequestError):
    """A cell is no CipherScore token."""

    code = "malformed-token"
    title = "Malformed token"


class UnknownToken(RequestError):
    """A well-formed token of the right key that the model never saw in training."""

    code = "unknown-token"
    title = "Unknown token"
    http_status = 422


class WrongKey(RequestError):
    """The request's key id is not the one the model was trained under."""

    code = "wrong-key"
    title = "Wrong key"
    http_status = 409
    grpc_status = "FAILED_PRECONDITION"


class InvalidNoise(RequestError):
    """Generator noise of the wrong size, or not finite."""

    code = "invalid-noise"
    title = "Invalid noise"


class UnknownClass(RequestError):
    """A credit class the generator does not know."""

    code = "unknown-class"
    title = "Unknown class"


class UnknownModel(RequestError):
    """The server serves no model of this name."""

    code = "unknown-model"
    title = "Unknown model"
    http_status = 404
    grpc_status = "NOT_FOUND"


class ModelUnavailable(RequestError):
    """The model is configured but could not be loaded."""

    code = "model-unavailable"
    title = "Model unavailable"
    http_status = 503
    grpc_status = "UNAVAILABLE"


class Unauthenticated(RequestError):
    """No credential was sent, or one the server does not know."""

    code = "unauthenticated"
    title = "Unauthenticated"
    http_status = 401
    grpc_status = "UNAUTHENTICATED"


class PermissionDenied(RequestError):
    """The client's credential lacks the scope this operation needs."""

    code = "permission-denied"
    title = "Permission denied"
    http_status = 403
    grpc_status = "PERMISSION_DENIED"


class RateLimited(RequestError):
    """The client is over its own rate or concurrency limit."""

    code = "rate-limited"
    title = "Rate limited"
    http_status = 429
    grpc_status = "RESOURCE_EXHAUSTED"


class Overloaded(RequestError):
    """More work waits than the server can do in time; the request was not begun."""

    code = "overloaded"
    title = "Overloaded"
    http_status = 429
    grpc_status = "RESOURCE_EXHAUSTED"


class Draining(RequestError):
    """The server is shutting down and takes no new request; another one may."""

    code = "draining"
    title = "Shutting down"
    http_status = 503
    grpc_status = "UNAVAILABLE"


class DeadlinePassed(RequestError):
    """The request's deadline passed before it was computed."""

    code = "deadline-passed"
    title = "Deadline passed"
    http_status = 504
    grpc_status = "DEADLINE_EXCEEDED"


class Unsupported(RequestError):
    """An operation or option this server does not have."""

    code = "unsupported"
    title = "Unsupported"
    http_status = 501
    grpc_status = "UNIMPLEMENTED"


def request_errors() -> dict[str, type[RequestError]]:
    """Return every concrete request error by its ``code``; clients rebuild the error from it."""
    return {cls.code: cls for cls in RequestError.__subclasses__()}
