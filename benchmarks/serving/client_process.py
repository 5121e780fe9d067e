"""An open-loop client as a process of its own, on a core of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks.serving.payloads import PATHS, Body

_SLACK_SECONDS = 60.0


class ClientError(Exception):
    """The client gave no figures; the message says why."""


def run(module: str, port: int, body: Body, core: int, options: dict[str, object]) -> Any:
    """Run ``module`` and return what it prints, as JSON.

    Args:
        module: A client that takes ``--port``, ``--path``, ``--body`` and ``options``.
        port: Where the server listens.
        body: The request to send again and again.
        core: Core of the client.
        options: More options by name; ``seconds`` and ``warmup`` say how long it may take.

    Raises:
        ClientError: It failed.
    """
    with tempfile.NamedTemporaryFile(suffix=".bin") as content:
        content.write(body.content)
        content.flush()
        command = [
            "taskset", "-c", str(core), sys.executable, "-m", module,
            "--port", str(port), "--path", PATHS[body.protocol], "--body", content.name,
        ]  # fmt: skip
        for name, value in options.items():
            if isinstance(value, bool):
                command.append(f"--{name}" if value else f"--no-{name}")
            else:
                command += [f"--{name}", f"{value:g}" if isinstance(value, float) else str(value)]
        limit = _SLACK_SECONDS + float(str(options["seconds"])) + float(str(options["warmup"]))
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=limit
            )
        except subprocess.TimeoutExpired as error:
            raise ClientError("the client did not end") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise ClientError(lines[-1] if lines else f"exit code {done.returncode}")
    return json.loads(done.stdout)
