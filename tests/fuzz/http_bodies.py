"""Fuzzes the HTTP application in process, down from its ASGI interface.

    python -m tests.fuzz.http_bodies --inputs 500000 --seconds 900

Requests are made from good ones by changing JSON values, bytes, headers, paths and how the body
arrives.  Each must be answered, never by an internal error, refusals in their one form, and nothing
of the request's tokens repeated.  The seed of each input is printed when one fails.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import copy
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cipherscore.tokens import to_text
from serving.generation import CHUNK_ROWS
from tests.support.asgi import InProcess, Reply, in_process, request, versions_in
from tests.support.models import KEY_ID, NOISE_WIDTH, OTHER_KEY_ID, SIZES, token, vocabulary

STATUSES = {200, 204, 400, 404, 405, 409, 413, 415, 422}
LIMITS = {
    "max_rows": 50,
    "max_message_bytes": 20_000,
    "max_generated_rows": 2 * CHUNK_ROWS,
    "max_generated_json_rows": 60,
}
_PATHS = [
    "/v1/score", "/v1/generate", "/v1/models", "/v1/models/classifier", "/v1/models/generator",
    "/v1/models/", "/v1/models/../x", "/v1/health", "/v1/openapi.json", "/v1/docs", "/v1/", "/v1/nothing",
    "/v1/score/", "/v1//score", "/metrics", "/v1/models/\x00\ud7ff\U0001f600",
]  # fmt: skip
_METHODS = [
    "GET",
    "HEAD",
    "PUT",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "get",
    "",
    "\xff",
]
_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 1.5, 10**30, -(10**400), 2**63, 2**64 - 1, 2**64, "", "x", [], {}, [[]],
    [{}], float("nan"), float("inf"), 1e308, "\x00", "\u202e", "😀" * 40, KEY_ID, OTHER_KEY_ID,
    {"alpha": {}}, [None] * 60, {"\x00": "y"}, "good", "bad", "beta", "9" * 5000,
]  # fmt: skip
_HEADERS = [
    (b"content-type", b"text/plain"), (b"content-type", b"application/json; charset=utf-8"),
    (b"content-type", b""), (b"content-type", b"\xff\xfe"), (b"content-type", b"application/json"),
    (b"content-encoding", b"gzip"), (b"content-encoding", b"identity"),
    (b"content-length", b"999999999999999999999"), (b"content-length", b"-1"), (b"content-length", b"x"),
    (b"content-length", b"\xb2"), (b"content-length", b"5"), (b"accept", b"application/x-ndjson"),
    (b"accept", b"application/x-ndjson;q=0, */*"), (b"accept", b",;,=\xff"), (b"x-request-id", b"id-1"),
    (b"x-request-id", b"a\tb"), (b"x-request-id", b"\xe9" * 10), (b"x-request-id", b"x" * 500),
    (b"x-request-timeout-ms", b"1000"), (b"x-request-timeout-ms", b"0"), (b"x-request-timeout-ms", b"-5"),
    (b"x-request-timeout-ms", b"\xb2"), (b"x-request-timeout-ms", b"1_0"), (b"x-request-timeout-ms", b"9" * 40),
    (b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"), (b"traceparent", b"\xff" * 55),
    (b"authorization", b"Bearer nobody"), (b"x-api-key", b"\xff"), (b"expect", b"100-continue"), (b"", b""),
]  # fmt: skip


@dataclass(frozen=True)
class Input:
    """One request."""

    method: str
    path: str
    parts: Sequence[bytes]
    headers: Sequence[tuple[bytes, bytes]]
    query: bytes
    leave_after: int | None


class Maker:
    """Makes inputs."""

    def __init__(self) -> None:
        self._tokens = vocabulary().tokens
        strange = [token("beta", 99), token("beta", 1, OTHER_KEY_ID), b"\x01abc", b"\x02" * 37, b""]
        self._strange = [to_text(one) for one in strange] + ["AAA=", "A", "!", "é" * 50, "A" * 2000]

    def make(self, seed: int) -> Input:
        """Return the input of ``seed``."""
        random_ = random.Random(seed)
        path = random_.choice(_PATHS[:2]) if random_.random() < 0.9 else random_.choice(_PATHS)
        body = self._generate(random_) if path == "/v1/generate" else self._score(random_)
        for _ in range(random_.choice((0, 0, 0, 0, 1, 1, 2, 5))):
            body = self._change(body, random_)
        content = json.dumps(body, ensure_ascii=random_.random() < 0.5).encode("utf-8", "replace")
        if random_.random() < 0.15:
            content = _mutate(content, random_)
        headers = random_.sample(_HEADERS, random_.choice((0, 0, 0, 0, 0, 1, 1, 3)))
        method = "POST" if path in _PATHS[:2] else "GET"
        if random_.random() < 0.04:
            method = random_.choice(_METHODS)
        query = random_.choice(
            (b"", b"", b"model=x", b"model=%ff&model=", b"&&=%zz\xff", b"a" * 3000)
        )
        parts = [content]
        if random_.random() < 0.3:
            cuts = sorted(
                random_.randrange(len(content) + 1) for _ in range(random_.randrange(1, 5))
            )
            parts = [content[a:b] for a, b in zip([0, *cuts], [*cuts, len(content)], strict=True)]
        leave = random_.randrange(len(parts) + 1) if random_.random() < 0.03 else None
        return Input(method, path, parts, headers, query, leave)

    def _score(self, random_: random.Random) -> Any:
        records: list[Any] = [
            {field: to_text(random_.choice(column)) for field, column in self._tokens.items()}
            for _ in range(random_.choice((0, 1, 1, 1, 2, 3, 50, 51)))
        ]
        body: dict[str, Any] = {"key_id": KEY_ID, "records": records}
        if records and random_.random() < 0.4:
            record = random_.choice(records)
            field = random_.choice([*SIZES, "delta", "ü\n"])
            record[field] = random_.choice(self._strange)
        if random_.random() < 0.1:
            body["model"] = random_.choice(("", "x", "tiny-credit-classifier", "a:b:c", "\x00"))
        return body

    @staticmethod
    def _generate(random_: random.Random) -> Any:
        count = random_.choice((1, 1, 2, 3, 60, 61, 0, -1, 2 * CHUNK_ROWS + 1))
        body: dict[str, Any] = {"key_id": KEY_ID, "count": count}
        if random_.random() < 0.5:
            body["seed"] = random_.choice((0, 7, 2**53, 2**64 - 1, 2**64, -1))
        if random_.random() < 0.5:
            body["credit_class"] = random_.choice(("good", "bad", "ugly", None))
        if random_.random() < 0.3:
            width = random_.choice((NOISE_WIDTH, NOISE_WIDTH, 0, 1, NOISE_WIDTH + 1))
            body["noise"] = [
                [random_.choice((0, 0.5, -1e30, 1e300, float("nan"))) for _ in range(width)]
                for _ in range(max(0, min(count, 5)))
            ]
        return body

    def _change(self, value: Any, random_: random.Random) -> Any:
        """Replace, add or remove something somewhere inside."""
        if isinstance(value, dict) and value and random_.random() < 0.8:
            name = random_.choice(list(value))
            kind = random_.randrange(4)
            if kind == 0:
                del value[name]
            elif kind == 1:
                value[random_.choice(("model", "x", "", "\x00", "count", "ü" * 99))] = (
                    copy.deepcopy(random_.choice(_VALUES))
                )
            else:
                value[name] = self._change(value[name], random_)
            return value
        if isinstance(value, list) and value and random_.random() < 0.8:
            position = random_.randrange(len(value))
            if random_.random() < 0.2:
                value.insert(position, copy.deepcopy(random_.choice(_VALUES)))
            else:
                value[position] = self._change(value[position], random_)
            return value
        return copy.deepcopy(random_.choice(_VALUES))


def _mutate(content: bytes, random_: random.Random) -> bytes:
    found = bytearray(content)
    for _ in range(random_.choice((1, 1, 2, 8))):
        at = random_.randrange(len(found) + 1)
        kind = random_.randrange(5)
        if kind == 0 and at < len(found):
            found[at] = random_.randrange(256)
        elif kind == 1:
            del found[at : at + random_.randrange(1, 20)]
        elif kind == 2:
            found[at:at] = random_.choice(
                (
                    b"\xff",
                    b"\\ud800",
                    b'"',
                    b"{",
                    b"[" * 300,
                    b"]",
                    b",",
                    b"\x00",
                    b" " * 99,
                    b"1e999",
                    b"NaN",
                )
            )
        elif kind == 3:
            found[at:at] = found[at : at + random_.randrange(1, 200)]
        else:
            del found[at:]
    return bytes(found)


def check(one: Input, reply: Reply) -> str:
    """Return what the input led to; fail where that is wrong."""
    if one.leave_after is not None and not reply.complete:
        return "left"
    assert reply.complete
    if one.path == "/metrics":
        assert reply.status == 200
        return "metrics"
    assert reply.status in STATUSES, reply
    assert reply.headers["x-request-id"]
    if reply.status == 200:
        if one.path == "/v1/score":
            answer = json.loads(reply.body)
            assert len(answer["results"]) == len(json.loads(b"".join(one.parts))["records"])
            assert all(0 <= result["probability"] <= 1 for result in answer["results"])
        return "200"
    if reply.status == 204:
        return "204"
    problem = json.loads(reply.body)
    assert reply.headers["content-type"] == "application/problem+json"
    assert problem["status"] == reply.status
    assert problem["type"] == f"urn:cipherscore:error:{problem['code']}"
    assert len(reply.body) < 1000, reply.body
    assert b"AQqrjX" not in reply.body, "a token is repeated"
    return str(problem["code"])


async def fuzz(
    target: InProcess,
    inputs: int,
    seed: int = 0,
    seconds: float = 600.0,
    told: Callable[[str], None] = lambda _: None,
) -> collections.Counter[str]:
    """Send ``inputs`` requests; return how often what came out."""
    maker, found, end = Maker(), collections.Counter[str](), time.monotonic() + seconds
    for number in range(inputs):
        one = maker.make(seed + number)
        try:
            reply = await asyncio.wait_for(
                request(
                    target.app,
                    one.method,
                    one.path,
                    one.parts,
                    one.headers,
                    one.query,
                    leave_after=one.leave_after,
                ),
                30,
            )
            found[check(one, reply)] += 1
            assert target.gate.running == 0
        except BaseException:
            told(f"input {seed + number} failed: {one}"[:4000])
            raise
        if number % 50_000 == 49_999:
            told(f"{number + 1} inputs: {dict(found)}")
        if time.monotonic() > end:
            break
    return found  # fmt: skip


def main() -> None:
    """See the module."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--inputs", type=int, default=100_000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--seconds", type=float, default=600.0)
    chosen = options.parse_args()

    def tell(text: str) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        print(f"{text} [{pages * 4 // 1024} MiB]", file=sys.stderr, flush=True)

    async def run() -> collections.Counter[str]:
        with tempfile.TemporaryDirectory() as home:
            target = in_process(versions_in(Path(home)), log_requests="none", **LIMITS)
            return await fuzz(target, chosen.inputs, chosen.seed, chosen.seconds, tell)

    found = asyncio.run(run())
    print(f"{sum(found.values())} inputs, no failure: {json.dumps(found, sort_keys=True)}")


if __name__ == "__main__":
    main()
