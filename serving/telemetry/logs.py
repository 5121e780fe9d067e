"""Log lines: JSON or text, on standard output, the same for this code, BentoML and uvicorn.

A line never holds a payload, a path or an exception's message: any of them may repeat what a caller
sent.  An exception is logged as its kind and where it struck.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import traceback
from typing import Any, Literal

from pythonjsonlogger.json import JsonFormatter

from cipherscore.errors import CipherScoreError, RequestError
from serving.settings import Settings

REQUESTS = "cipherscore.requests"
"""Logger of the lines about requests."""

LINES_PER_SECOND = {"errors": 20.0, "all": 1000.0}
"""Request lines that one worker writes, in the long run; a burst of ten seconds' worth may come
at once.  So a storm of errors fills a disk with at most some hundred megabytes a day."""

OTHER_LINES_PER_SECOND = 20.0
_BURST_SECONDS = 10.0

_TAKEN_OVER = ("bentoml", "uvicorn", "uvicorn.error", "circus", "cipherscore")
"""Loggers that get handlers of their own from BentoML; their lines go to the root's instead."""


def configure_logging(settings: Settings) -> None:
    """Send everything that this process logs to standard output, in one form.

    Called in the parent and again in each worker.  The handlers that BentoML set up are replaced;
    its levels stay, so ``bentoml serve --quiet`` and ``--debug`` do what they say.
    """
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Json() if settings.log_format == "json" else _Text())
    handler.addFilter(_Calm(OTHER_LINES_PER_SECOND))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    for name in _TAKEN_OVER:
        taken = logging.getLogger(name)
        taken.handlers.clear()
        taken.propagate = True
    bentoml = logging.getLogger("bentoml")
    if bentoml.level == logging.NOTSET:
        bentoml.setLevel(logging.INFO)
    logging.getLogger("cipherscore").setLevel(bentoml.level)
    # uvicorn's access lines hold the path; without a handler uvicorn does not even make them.
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.propagate = False


class Limiter:
    """A token bucket: lets ``rate`` events a second pass, after a quiet time a burst of them.

    Attributes:
        withheld: Events that did not pass since the count was last taken.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._most = rate * _BURST_SECONDS
        self._left = self._most
        self._last = time.monotonic()
        self.withheld = 0

    def passes(self) -> bool:
        """Return whether an event may pass now; count it otherwise."""
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._last) * self._rate)
        self._last = now
        if self._left < 1:
            self.withheld += 1
            return False
        self._left -= 1
        return True

    def take_withheld(self) -> int:
        """Return the number of events withheld, and forget it."""
        found, self.withheld = self.withheld, 0
        return found


class _Calm(logging.Filter):
    """Limits the lines of everything but requests, which are limited before they are made."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self._limiter = Limiter(rate)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name == REQUESTS:
            return True
        if record.name == "asyncio":
            # Its further lines show tasks with the exceptions they ended with.
            record.msg, record.args = record.getMessage().partition("\n")[0], ()
        if not self._limiter.passes():
            return False
        if self._limiter.withheld:
            record.suppressed = self._limiter.take_withheld()
        return True


class _Json(JsonFormatter):
    """One JSON object a line: time, level, logger, message, and what the record carries besides."""

    def __init__(self) -> None:
        super().__init__("%(message)s", json_ensure_ascii=True)

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        """Put the fields that every line has first."""
        fields: dict[str, Any] = {}
        super().add_fields(fields, record, message_dict)
        fields.pop("taskName", None)
        log_data["time"] = _time_of(record)
        log_data["level"] = record.levelname.lower()
        log_data["logger"] = record.name
        log_data["message"] = fields.pop("message", None) or record.getMessage()
        log_data.update(fields)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Return kind and place of an exception."""
        return describe(ei[1])


class _Text(logging.Formatter):
    """The same as `_Json` for people: time, level, logger, message, then name=value."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and an exception's place on further ones."""
        pairs = "".join(f" {name}={_plain(value)}" for name, value in _extras(record).items())
        line = (
            f"{_time_of(record)} [{record.levelname}] {record.name}: {record.getMessage()}{pairs}"
        )
        return f"{line}\n{describe(record.exc_info[1])}" if record.exc_info else line


def describe(error: BaseException | None) -> str:
    """Return the kind of ``error`` and where it struck.

    Its message is left out, but for those that cannot repeat what a caller sent: this package's own
    that are no answers to requests, and what the operating system says.
    """
    if error is None:
        return ""
    where = "".join(traceback.format_tb(error.__traceback__))
    kind = type(error).__qualname__
    if isinstance(error, OSError) and error.strerror:
        return f"{where}{kind}: {error.strerror}"
    own = isinstance(error, CipherScoreError) and not isinstance(error, RequestError)
    return f"{where}{kind}: {error}" if own else f"{where}{kind}"


_WORD = re.compile(r"[\w.:/@+-]+\Z", re.ASCII)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _plain(value: object) -> str:
    """Return a value as one word; quoted where it is not."""
    text = str(value)
    return text if _WORD.match(text) else json.dumps(text)


def _time_of(record: logging.LogRecord) -> str:
    """Return a record's time as RFC 3339 writes it, in UTC, to the millisecond."""
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


Which = Literal["none", "errors", "all"]


class RequestLog:
    """Writes the lines about requests.

    Args:
        which: none, errors or all of them.
    """

    def __init__(self, which: Which) -> None:
        self._logger = logging.getLogger(REQUESTS)
        self._limiter = Limiter(LINES_PER_SECOND.get(which, 0.0))
        self.errors = which != "none"
        self.successes = which == "all"

    def due(self) -> bool:
        """Return whether there is room for another line; count it as withheld otherwise."""
        return self._limiter.passes()

    @property
    def withheld(self) -> int:
        """Lines withheld and not yet reported."""
        return self._limiter.withheld

    def write(self, level: int, message: str, fields: dict[str, Any]) -> None:
        """Write one line, with the number of lines withheld before it."""
        self._logger.log(level, message, extra=fields)

    def report(self) -> int:
        """Say how many lines were withheld; return the number."""
        withheld = self._limiter.take_withheld()
        if withheld:
            fields = {"suppressed": withheld}
            self._logger.warning("request lines over the limit were left out", extra=fields)
        return withheld
