"""Log lines: their form, which are written, what never stands in them."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherscore.errors import IntegrityError, UnknownModel
from serving.call import Call
from serving.settings import Settings
from serving.telemetry import logs
from serving.telemetry.logs import Limiter, configure_logging, describe
from serving.telemetry.observer import Observer, request_id_of
from tests.support.logging_state import restored_logging
from tests.support.prometheus import Exposed

PLANTED = "cGxhbnRlZC10b2tlbg"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Lines:
    """What the process logs, after `configure_logging`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.stream = io.StringIO()
        monkeypatch.setattr(sys, "stdout", self.stream)
        self.settings = Settings(**settings)
        configure_logging(self.settings)
        self.observer = Observer(self.settings)

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def json(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    def answer(self, code: str = "ok", **attributes: Any) -> None:
        call = Call("grpc", "Score", "bank-a", time.monotonic(), **attributes)
        self.observer.started(call)
        self.observer.finished(call, code)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    with restored_logging():
        yield


class TestRequestLines:
    def test_fields(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lines = Lines(monkeypatch, log_requests="all")
        lines.answer(request_id="abc", rows=3, model="credit:1", traceparent=TRACEPARENT)
        (line,) = lines.json
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
        assert line.pop("seconds") >= 0
        assert line == {
            "level": "info",
            "logger": "cipherscore.requests",
            "message": "request",
            "request_id": "abc",
            "transport": "grpc",
            "method": "Score",
            "code": "ok",
            "client": "bank-a",
            "rows": 3,
            "model": "credit:1",
            "trace_id": TRACEPARENT.split("-")[1],
        }

    def test_text(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lines = Lines(monkeypatch, log_requests="all", log_format="text")
        lines.answer(request_id='a "b"', rows=3, model="credit:1")
        (line,) = lines.text.splitlines()
        assert " [INFO] cipherscore.requests: request " in line
        assert r'request_id="a \"b\""' in line
        assert "model=credit:1" in line

    @pytest.mark.parametrize(
        ("which", "codes"),
        [("none", []), ("errors", ["unknown-token"]), ("all", ["ok", "unknown-token"])],
    )
    def test_which(self, monkeypatch: pytest.MonkeyPatch, which: str, codes: list[str]) -> None:
        lines = Lines(monkeypatch, log_requests=which)
        lines.answer("ok")
        lines.answer("unknown-token")
        assert [line["code"] for line in lines.json] == codes

    def test_a_refused_request(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lines = Lines(monkeypatch)
        lines.observer.refused("http", f"/v1/{PLANTED}", "unauthenticated")
        (line,) = lines.json
        assert (line["code"], line["method"]) == ("unauthenticated", "other")

    def test_a_bug_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lines = Lines(monkeypatch)
        lines.answer("internal")
        assert lines.json[0]["level"] == "error"

    def test_a_storm_of_errors_is_cut_and_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lines = Lines(monkeypatch)
        for _ in range(5000):
            lines.answer("unknown-token")
        lines.observer.close()
        *written, last = lines.json
        assert 200 <= len(written) < 1000
        assert last["suppressed"] == 5000 - len(written)
        found = Exposed(lines.observer.exposition()[0].decode())
        assert found.value("cipherscore_log_lines_suppressed_total") == last["suppressed"]
        assert found.total("cipherscore_requests_total", code="unknown-token") == 5000

    def test_the_end_of_a_storm_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("serving.telemetry.observer.SAMPLE_SECONDS", 0.01)
        lines = Lines(monkeypatch)

        async def storm() -> None:
            lines.observer.start(lambda: 4, lambda: 2)
            for _ in range(1000):
                lines.answer("unknown-token")
            while "left out" not in lines.text:  # noqa: ASYNC110 - it is a log, not an event
                await asyncio.sleep(0.01)
            lines.observer.close()

        asyncio.run(asyncio.wait_for(storm(), 20))
        found = Exposed(lines.observer.exposition()[0].decode())
        assert found.value("cipherscore_queue_rows") == 4
        assert found.value("cipherscore_connections") == 2
        assert found.value("cipherscore_loop_delay_seconds_count") >= 2


class TestOtherLines:
    @pytest.mark.parametrize("name", ["bentoml.service", "uvicorn.error", "circus", "any.other"])
    def test_every_logger_speaks_the_same_form(
        self, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        logger = logging.getLogger(name.partition(".")[0])
        logger.addHandler(logging.StreamHandler(io.StringIO()))
        lines = Lines(monkeypatch)
        logging.getLogger(name).warning("hello %d", 1)
        (line,) = lines.json
        assert (line["level"], line["logger"], line["message"]) == ("warning", name, "hello 1")
        logger.handlers.clear()

    def test_uvicorn_makes_no_access_lines(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lines = Lines(monkeypatch)
        access = logging.getLogger("uvicorn.access")
        assert not access.hasHandlers()  # what uvicorn asks before it makes one
        access.error("GET /%s", PLANTED)
        assert PLANTED not in lines.text

    @pytest.mark.parametrize("form", ["json", "text"])
    def test_an_exception_is_told_without_its_message(
        self, monkeypatch: pytest.MonkeyPatch, form: str
    ) -> None:
        lines = Lines(monkeypatch, log_format=form)
        try:
            raise ValueError(PLANTED)  # noqa: TRY301
        except ValueError:
            logging.getLogger("bentoml").exception("failed")
        assert PLANTED not in lines.text.replace("raise ValueError(PLANTED)", "")
        assert "ValueError" in lines.text
        assert "test_telemetry_logs.py" in lines.text

    @pytest.mark.parametrize(
        ("error", "told"),
        [
            (IntegrityError("credit:2 is damaged"), "IntegrityError: credit:2 is damaged"),
            (OSError(28, "No space left on device", PLANTED), "OSError: No space left on device"),
            (UnknownModel(f"no model {PLANTED}"), "UnknownModel"),
            (ValueError(PLANTED), "ValueError"),
        ],
    )
    def test_messages_that_no_caller_can_write_are_told(self, error: Exception, told: str) -> None:
        assert describe(error) == told

    def test_what_asyncio_says_of_a_lost_task_shows_no_exception(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lines = Lines(monkeypatch)

        async def lose() -> None:
            async def fail() -> None:
                raise ValueError("cGxhbnRlZC" + "10b2tlbg")

            task = asyncio.get_running_loop().create_task(fail())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            del task

        asyncio.run(lose())
        assert "Task exception was never retrieved" in lines.text
        assert PLANTED not in lines.text

    def test_a_chatty_library_is_cut_and_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lines = Lines(monkeypatch)
        clock = [time.monotonic()]
        monkeypatch.setattr(logs.time, "monotonic", lambda: clock[0])
        for _ in range(1000):
            logging.getLogger("chatty").warning("again")
        assert len(lines.json) <= 201
        clock[0] += 5
        logging.getLogger("chatty").warning("again")
        assert lines.json[-1]["suppressed"] >= 799

    @pytest.mark.parametrize(("level", "shown"), [(logging.ERROR, 0), (logging.INFO, 1)])
    def test_quiet_stays_quiet(
        self, monkeypatch: pytest.MonkeyPatch, level: int, shown: int
    ) -> None:
        logging.getLogger("bentoml").setLevel(level)
        lines = Lines(monkeypatch, log_requests="all")
        lines.answer()
        assert len(lines.json) == shown


class TestRequestIds:
    def test_one_is_made_once(self) -> None:
        call = Call("http", "Score", "x", 0.0)
        made = request_id_of(call)
        assert re.fullmatch("[0-9a-f]{32}", made)
        assert request_id_of(call) == made
        assert request_id_of(Call("http", "Score", "x", 0.0)) != made

    def test_the_callers_is_kept(self) -> None:
        assert request_id_of(Call("http", "Score", "x", 0.0, request_id="mine")) == "mine"


@given(st.lists(st.floats(0, 100), max_size=30), st.floats(0.1, 50))
def test_a_limiter_lets_no_more_through_than_its_rate(gaps: list[float], rate: float) -> None:
    clock = [0.0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs.time, "monotonic", lambda: clock[0])
        limiter = Limiter(rate)
        passed = offered = 0
        for gap in gaps:
            clock[0] += gap
            for _ in range(20):
                offered += 1
                passed += limiter.passes()
        assert passed <= rate * (10 + clock[0]) + 1e-6
        assert limiter.take_withheld() == offered - passed
        assert limiter.take_withheld() == 0
