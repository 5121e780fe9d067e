"""A small run of the fuzzers of the HTTP application; `make fuzz` makes a long one."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.fuzz.http_bodies import LIMITS, fuzz
from tests.support.asgi import in_process, versions_in

INPUTS = 3_000


def test_no_input_leads_to_an_internal_error(tmp_path: Path) -> None:
    async def run() -> dict[str, int]:
        target = in_process(versions_in(tmp_path), log_requests="none", **LIMITS)
        return await fuzz(target, INPUTS)

    found = asyncio.run(run())
    assert sum(found.values()) == INPUTS
    # The inputs come past the first checks.
    assert {"200", "left", "unknown-token", "invalid-noise", "unsupported-media-type"} <= set(found)
