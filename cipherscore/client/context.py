"""Passing on what ties one request's logs and traces together across processes.

::

    with forwarding(request.headers):
        scores = await client.score(records)

Every call to the host within the block carries the ``traceparent`` (W3C Trace Context) and the
``x-request-id`` that came in.  Nothing else of the headers leaves, and both only in their proper
form: neither is a place for data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

Metadata = tuple[tuple[str, str], ...]

_FORMS = {
    "traceparent": re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"),
    "x-request-id": re.compile(r"[A-Za-z0-9._:-]{1,48}"),
}
_forwarded: ContextVar[Metadata] = ContextVar("forwarded", default=())


@contextmanager
def forwarding(headers: Mapping[str, str]) -> Iterator[None]:
    """Send the request's context along with the calls made in this block.

    Args:
        headers: Of the request that is being answered, names in lower case or in any case if the
            mapping does not care.
    """
    found = ((name, form, headers.get(name, "")) for name, form in _FORMS.items())
    token = _forwarded.set(
        tuple((name, text) for name, form, text in found if form.fullmatch(text))
    )
    try:
        yield
    finally:
        _forwarded.reset(token)


def forwarded() -> Metadata:
    """Return what a call that begins now is to carry."""
    return _forwarded.get()
