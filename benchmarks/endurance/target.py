"""A request of a form, its right answer, and the server's peak with it."""

from __future__ import annotations

from dataclasses import dataclass

import onnxruntime

from benchmarks.endurance.host import Host
from benchmarks.serving import load, payloads, probe, rows
from benchmarks.serving.load import Shape
from benchmarks.serving.model import Files
from benchmarks.serving.payloads import Body, Protocol

_SEED = 7


@dataclass(frozen=True)
class Target:
    """What load sends, and where to.

    Attributes:
        port: Where the server listens.
        body: The request.
        answer: Bytes of a right answer's body.
    """

    port: int
    body: Body
    answer: int

    def peak(self, shape: Shape, seconds: float, core: int) -> float:
        """Return the requests per second that a closed loop gets.

        Raises:
            LoadError: A request failed.
        """
        found = load.closed(
            self.port, self.body, shape, seconds=seconds, warmup=1.0, core=core,
            answer=self.answer, server_cpu=lambda: 0.0,
        )  # fmt: skip
        return found.per_second


def of(host: Host, files: Files, protocol: Protocol, count: int = 1) -> Target:
    """Return the target of ``count`` rows a request, once the server gave the right answer.

    Raises:
        ProbeError: It did not.
    """
    indices = rows.random_indices(count, _SEED)
    session = onnxruntime.InferenceSession(str(files.fp32), providers=["CPUExecutionProvider"])
    (expected,) = session.run(["probability"], {"indices": indices})
    body = payloads.make(protocol, rows.NAME, rows.vocabulary(), indices)
    port = host.grpc if body.grpc else host.http
    right = probe.ask(port, body, expected, probe.TOLERANCE["fp32"])
    return Target(port, body, right.length)
