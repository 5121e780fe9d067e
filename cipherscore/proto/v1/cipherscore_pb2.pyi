from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreditClass(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CREDIT_CLASS_UNSPECIFIED: _ClassVar[CreditClass]
    CREDIT_CLASS_GOOD: _ClassVar[CreditClass]
    CREDIT_CLASS_BAD: _ClassVar[CreditClass]
CREDIT_CLASS_UNSPECIFIED: CreditClass
CREDIT_CLASS_GOOD: CreditClass
CREDIT_CLASS_BAD: CreditClass

class TokenColumn(_message.Message):
    __slots__ = ("field", "dictionary", "indices")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    DICTIONARY_FIELD_NUMBER: _ClassVar[int]
    INDICES_FIELD_NUMBER: _ClassVar[int]
    field: str
    dictionary: _containers.RepeatedScalarFieldContainer[bytes]
    indices: bytes
    def __init__(self, field: _Optional[str] = ..., dictionary: _Optional[_Iterable[bytes]] = ..., indices: _Optional[bytes] = ...) -> None: ...

class TokenTable(_message.Message):
    __slots__ = ("rows", "columns")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    rows: int
    columns: _containers.RepeatedCompositeFieldContainer[TokenColumn]
    def __init__(self, rows: _Optional[int] = ..., columns: _Optional[_Iterable[_Union[TokenColumn, _Mapping]]] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ("key_id", "table", "model", "reasons")
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    table: TokenTable
    model: str
    reasons: int
    def __init__(self, key_id: _Optional[str] = ..., table: _Optional[_Union[TokenTable, _Mapping]] = ..., model: _Optional[str] = ..., reasons: _Optional[int] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("probability", "decision", "model", "threshold", "reasons")
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    probability: _containers.RepeatedScalarFieldContainer[float]
    decision: _containers.RepeatedScalarFieldContainer[CreditClass]
    model: str
    threshold: float
    reasons: Reasons
    def __init__(self, probability: _Optional[_Iterable[float]] = ..., decision: _Optional[_Iterable[_Union[CreditClass, str]]] = ..., model: _Optional[str] = ..., threshold: _Optional[float] = ..., reasons: _Optional[_Union[Reasons, _Mapping]] = ...) -> None: ...

class Reasons(_message.Message):
    __slots__ = ("per_row", "fields", "indices", "contribution", "base")
    PER_ROW_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    INDICES_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    per_row: int
    fields: _containers.RepeatedScalarFieldContainer[str]
    indices: bytes
    contribution: _containers.RepeatedScalarFieldContainer[float]
    base: float
    def __init__(self, per_row: _Optional[int] = ..., fields: _Optional[_Iterable[str]] = ..., indices: _Optional[bytes] = ..., contribution: _Optional[_Iterable[float]] = ..., base: _Optional[float] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("key_id", "count", "credit_class", "seed", "noise", "model")
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    CREDIT_CLASS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    NOISE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    count: int
    credit_class: CreditClass
    seed: int
    noise: _containers.RepeatedScalarFieldContainer[float]
    model: str
    def __init__(self, key_id: _Optional[str] = ..., count: _Optional[int] = ..., credit_class: _Optional[_Union[CreditClass, str]] = ..., seed: _Optional[int] = ..., noise: _Optional[_Iterable[float]] = ..., model: _Optional[str] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("table", "credit_class", "model", "seed")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    CREDIT_CLASS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    table: TokenTable
    credit_class: _containers.RepeatedScalarFieldContainer[CreditClass]
    model: str
    seed: int
    def __init__(self, table: _Optional[_Union[TokenTable, _Mapping]] = ..., credit_class: _Optional[_Iterable[_Union[CreditClass, str]]] = ..., model: _Optional[str] = ..., seed: _Optional[int] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("kind", "model")
    KIND_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    kind: str
    model: str
    def __init__(self, kind: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("kind", "model", "key_id", "fields", "schema", "schema_digest", "vocabulary_digest", "digest", "threshold", "noise_width", "metrics", "device", "device_reason", "max_rows", "notice", "stage", "precision", "device_details")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class DeviceDetailsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KIND_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_DIGEST_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    NOISE_WIDTH_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_REASON_FIELD_NUMBER: _ClassVar[int]
    MAX_ROWS_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    DEVICE_DETAILS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    model: str
    key_id: str
    fields: _containers.RepeatedScalarFieldContainer[str]
    schema: str
    schema_digest: str
    vocabulary_digest: str
    digest: str
    threshold: float
    noise_width: int
    metrics: _containers.ScalarMap[str, float]
    device: str
    device_reason: str
    max_rows: int
    notice: str
    stage: str
    precision: str
    device_details: _containers.ScalarMap[str, str]
    def __init__(self, kind: _Optional[str] = ..., model: _Optional[str] = ..., key_id: _Optional[str] = ..., fields: _Optional[_Iterable[str]] = ..., schema: _Optional[str] = ..., schema_digest: _Optional[str] = ..., vocabulary_digest: _Optional[str] = ..., digest: _Optional[str] = ..., threshold: _Optional[float] = ..., noise_width: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ..., device: _Optional[str] = ..., device_reason: _Optional[str] = ..., max_rows: _Optional[int] = ..., notice: _Optional[str] = ..., stage: _Optional[str] = ..., precision: _Optional[str] = ..., device_details: _Optional[_Mapping[str, str]] = ...) -> None: ...
