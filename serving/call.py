"""One request, whatever it came in: what admission, scoring, metrics and logs know of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

Scope = Literal["score", "generate", "admin"]
"""What a client may be allowed to do; None (no scope) is open to everybody, as health is."""

Transport = Literal["grpc", "http"]


@dataclass(slots=True, eq=False)
class Call:
    """One request from admission to its answer.

    Attributes:
        transport: What carried it.
        method: Short name for metrics and logs, of a fixed set (``Score``, ``ModelInfer``, ...).
        client: Name of the authenticated client, or ``anonymous``.
        started: `time.monotonic` at admission.
        deadline: `time.monotonic` from which on the answer is of no use; infinite without one.
        request_id: The caller's, if it is short and printable, else empty until a log needs one.
        traceparent: W3C trace context as it was sent, or empty.
        rows: Rows asked for, once known.
        model: "name:version" that answered, once known.
        cancelled: Set by the transport when the caller has gone.
        scopes: What the client may do, for methods whose need shows only in the request.
        slot: What `serving.access` hands back when the call ends.
        span: The open trace span, if this call is traced.
    """

    transport: Transport
    method: str
    client: str
    started: float
    deadline: float = math.inf
    request_id: str = ""
    traceparent: str = ""
    rows: int = 0
    model: str = ""
    cancelled: bool = False
    scopes: frozenset[Scope] = frozenset()
    slot: object = field(default=None, repr=False)
    span: object = field(default=None, repr=False)
