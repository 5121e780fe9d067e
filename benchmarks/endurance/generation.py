"""Millions of synthetic rows in one stream: does the server's memory stay?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.endurance import questions
from benchmarks.endurance.clients import GENERATE, channel
from benchmarks.endurance.host import Host, serving, usage
from benchmarks.endurance.results import Result, mib, say
from benchmarks.serving import rows as known
from cipherscore.proto.v1 import cipherscore_pb2 as pb

GROWTH_BYTES = 8 << 20
"""Growth that still counts as none: allocators keep what they once had."""
_PARTS = 10
_SETTLED = 2
"""Parts of the stream in which buffers fill up."""


def run(out: Path, rows: int, server_core: int) -> Result:
    """Have ``rows`` rows generated in one call, and look at the worker while they come."""
    files = questions.models(out / "model")
    result = Result("generation")
    with serving(files, server_core, out / "scratch") as host:
        parts = list(_parts(host, rows))
    made = sum(part["rows"] for part in parts)
    seconds = parts[-1]["seconds"]
    result.figures = {"rows": made, "seconds": seconds, "parts": parts}
    result.checks[f"{made} rows came, all of known tokens"] = made == rows
    growth = parts[-1]["worker"]["pss"] - parts[_SETTLED - 1]["worker"]["pss"]
    result.figures["growth"] = growth
    result.checks[f"the worker grew by {mib(growth)} MiB since row {_SETTLED * rows // _PARTS}"] = (
        growth <= GROWTH_BYTES
    )
    return result


def _parts(host: Host, rows: int) -> Iterator[dict[str, Any]]:
    """Yield what came, and what the worker takes, after each tenth of the stream."""
    (worker,) = host.workers()
    request = pb.GenerateRequest(key_id=known.KEY_ID, count=rows, seed=1)
    allowed = {field: set(tokens) for field, tokens in known.vocabulary().tokens.items()}
    begun, made, part = time.monotonic(), 0, 0
    with channel(host.grpc) as opened:
        for content in opened.unary_stream(GENERATE)(request.SerializeToString()):
            table = pb.GenerateResponse.FromString(content).table
            if any(not allowed[c.field].issuperset(c.dictionary) for c in table.columns):
                return
            part += table.rows
            made += table.rows
            if part * _PARTS >= rows or made == rows:
                used, seconds = usage(worker), time.monotonic() - begun
                say(f"{made:10} rows, {made / seconds:.0f}/s; worker {mib(used.pss)} MiB (PSS)")
                yield {"rows": part, "seconds": seconds, "worker": asdict(used)}
                part = 0
