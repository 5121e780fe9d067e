"""Values planted in every place a caller can write to are not in logs, metrics or spans."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator

import pytest

from cipherscore.errors import InvalidRequest, RequestError, Unauthenticated, UnknownToken
from cipherscore.tokens import to_text
from serving.access import Access
from serving.gate import Gate
from serving.rpc import log_failure
from serving.settings import Settings
from serving.telemetry.logs import configure_logging
from serving.telemetry.observer import Observer
from serving.telemetry.tracing import Tracer
from tests.support.collector import Collector, collecting
from tests.support.logging_state import restored_logging
from tests.support.models import token

TAG = "tiny-credit:1"
TOKEN = token("alpha", 1)
PLANTED = to_text(TOKEN)
HEADERS = {
    "authorization": f"Bearer {PLANTED}",
    "x-api-key": PLANTED,
    "x-request-id": PLANTED,
    "traceparent": PLANTED[:55],
    "tracestate": f"vendor={PLANTED}",
    "user-agent": PLANTED,
    "cookie": PLANTED,
}
FORMS = {PLANTED, TOKEN.hex(), repr(TOKEN)[2:-1], str(list(TOKEN))[1:-1]}
"""How a token could be written out."""


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    with restored_logging():
        yield


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as found:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.address)
        yield found


def clients(path: object) -> str:
    return f'[[client]]\nname = "bank-a"\nscopes = ["score"]\nkey_sha256 = ["{"0" * 64}"]\n'


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("closed", [False, True])
def test_planted_values(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    collector: Collector,
    form: str,
    closed: bool,
) -> None:
    options: dict[str, object] = {"log_requests": "all", "log_format": form}
    if closed:
        path = tmp_path_factory.mktemp("clients") / "clients.toml"
        path.write_text(clients(path))
        path.chmod(0o600)
        options["clients_file"] = path
    settings = Settings(**options)  # type: ignore[arg-type]
    output = io.StringIO()
    monkeypatch.setattr(sys, "stdout", output)
    configure_logging(settings)
    observer = Observer.of_worker(settings)
    assert isinstance(observer._tracer, Tracer)
    observer.serving([("classifier", TAG, "production", "CPUExecutionProvider", "fp32")])
    gate = Gate(Access(settings), observer, 60.0)
    gate.pressure._began = 1.0  # as within a turn of the loop, of which there is none here
    failures: list[Exception | None] = [
        None,
        UnknownToken(f"{PLANTED} is not known"),
        InvalidRequest(PLANTED, field=PLANTED),
        ValueError(PLANTED),
    ]
    refused = 0
    for transport in ("grpc", "http"):
        for method in ("Score", "ModelInfer", f"/{PLANTED}"):
            for failure in failures:
                try:
                    call = gate.admit(transport, method, "score", HEADERS, PLANTED)  # type: ignore[arg-type]
                except Unauthenticated:
                    refused += 1
                    continue
                call.rows, call.model = 1, TAG
                run = observer.traced(TAG, precision="fp32")
                assert run is not None
                run([call], 1, 0.0, 0.001)
                if isinstance(failure, RequestError):
                    gate.finish(call, failure.code)
                elif failure is not None:
                    log_failure(transport, failure)
                    gate.finish(call, "internal")
                else:
                    gate.finish(call, "ok")
    observer.close()
    assert refused == (24 if closed else 0)
    exposed = observer.exposition()[0].decode()
    spans = b"".join(collector.bodies)
    for planted in FORMS:
        assert planted not in output.getvalue()
        assert planted not in exposed
        assert planted.encode() not in spans
    assert TOKEN not in spans
    # The search finds what is there.
    assert "Score" in output.getvalue()
    assert 'method="Score"' in exposed
    assert 'method="other"' in exposed
    if not closed:
        assert TAG in output.getvalue()
        assert TAG in exposed
        assert TAG.encode() in spans
        assert b"cipherscore.model_infer" in spans
        assert "unknown-token" in output.getvalue()
        assert "ValueError" in output.getvalue()
