"""One request by an ordinary client (grpcio, urllib), to see that a server answers right."""

from __future__ import annotations

import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

import grpc
import numpy as np

from benchmarks.serving.payloads import PATHS, Body, read

TOLERANCE = {"fp32": 1e-5, "int8": 1e-3}
"""Largest accepted difference to the reference run of the same file, per precision: an activation
on the edge of two int8 codes may fall to either side."""
_REQUEST_SECONDS = 60.0


class ProbeError(Exception):
    """A server does not answer, or answers wrongly; the message says which."""


@dataclass(frozen=True)
class Probe:
    """What a right answer looks like.

    Attributes:
        length: Bytes of its HTTP body, a gRPC message's prefix among them.
        difference: Largest difference of a probability to the reference.
    """

    length: int
    difference: float


def ask(port: int, body: Body, expected: np.ndarray, tolerance: float) -> Probe:
    """Send one request and check its answer.

    Raises:
        ProbeError: No answer, an error, or a wrong probability.
    """
    try:
        content = _grpc(port, body) if body.grpc else _http(port, body)
    except grpc.RpcError as error:
        raise ProbeError(f"{error.code().name}: {error.details()}") from error
    except (urllib.error.URLError, OSError) as error:
        raise ProbeError(str(error)) from error
    try:
        found = read(body.protocol, content).ravel()
    except Exception as error:
        raise ProbeError(f"the answer cannot be read: {type(error).__name__}") from error
    if found.shape != expected.shape:
        raise ProbeError(f"{len(found)} probabilities for {len(expected)} rows")
    difference = float(np.abs(found - expected).max())
    if not difference <= tolerance:
        raise ProbeError(f"a probability differs from the reference by {difference:.2g}")
    return Probe(len(content) + (5 if body.grpc else 0), difference)


def await_ready(
    process: subprocess.Popen[bytes],
    port: int,
    body: Body,
    expected: np.ndarray,
    tolerance: float,
    limit: float,
) -> Probe:
    """Ask until there is a right answer.

    Raises:
        ProbeError: The server ended, or there was no right answer within ``limit`` seconds.
    """
    end = time.monotonic() + limit
    while True:
        try:
            return ask(port, body, expected, tolerance)
        except ProbeError as error:
            if process.poll() is not None:
                raise ProbeError(f"the server ended with code {process.returncode}") from error
            if time.monotonic() > end:
                raise ProbeError(f"not ready after {limit:g} s: {error}") from error
        time.sleep(0.1)


def _grpc(port: int, body: Body) -> bytes:
    options = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        call = channel.unary_unary(PATHS[body.protocol], None, None)
        answer: bytes = call(body.content[5:], timeout=_REQUEST_SECONDS)
        return answer


def _http(port: int, body: Body) -> bytes:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{PATHS[body.protocol]}",
        body.content,
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=_REQUEST_SECONDS) as answer:  # noqa: S310
        content: bytes = answer.read()
        return content
