"""Real processes, killed with SIGKILL while they change a registry.

CIPHERSCORE_KILLS sets the number of kills during promote (default 25).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from registry import Registry
from tests.support import registry_samples as samples

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("CIPHERSCORE_KILLS", "25"))


def writer(action: str, home: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.support.registry_writer", action, str(home)]
    return subprocess.Popen([*command, samples.NAME], cwd=ROOT, stdout=subprocess.PIPE)


def kill_soon(process: subprocess.Popen[bytes], delay: float) -> list[list[str]]:
    """Kill the process ``delay`` seconds after its first line; return all it said."""
    assert process.stdout is not None
    first = process.stdout.readline()
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    said = first + process.stdout.read()
    assert process.wait(10) == -signal.SIGKILL
    process.stdout.close()
    return [line.split() for line in said.decode().splitlines()]


@pytest.mark.slow
def test_a_killed_promote_leaves_the_old_or_the_new_version(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    for number in range(3):
        samples.register(registry, model=bytes([number]) * 300_000)
    registry.promote(registry.versions(samples.NAME)[0].tag)
    chance = random.Random(20260131)
    cut_short = renewed = 0
    for _ in range(KILLS):
        before = registry.production(samples.NAME).version
        said = kill_soon(writer("promote", tmp_path), chance.uniform(0, 0.03))
        done = [version for word, version in said if word == "done"]
        old = done[-1] if done else before
        word, new = said[-1]
        cut_short += word == "start"

        found = registry.production(samples.NAME)
        assert found.version in {old, new}
        renewed += word == "start" and found.version == new
        samples.check(registry)
        other = next(v for v in registry.versions(samples.NAME) if v.version != found.version)
        assert registry.promote(other.tag).version == other.version
        assert registry.rollback(samples.NAME).version == found.version
        assert samples.leftovers(tmp_path) == []
    assert cut_short >= KILLS // 4, "too few kills fell into a promote to mean anything"
    print(f"{KILLS} kills, {cut_short} inside a promote ({renewed} left the new), 0 broken states")


@pytest.mark.slow
def test_a_killed_register_leaves_no_half_version(tmp_path: Path) -> None:
    from bentoml._internal.models.model import ModelStore

    registry = Registry(tmp_path)
    chance = random.Random(7)
    for _ in range(3):
        said = kill_soon(writer("register", tmp_path), chance.uniform(0.05, 0.2))
        known = {version.version for version in registry.versions(samples.NAME)}
        assert {version for _, version in said if version != "warm"} <= known
        samples.check(registry)
        assert {str(m.tag.version) for m in ModelStore(tmp_path / "models").list()} == known
    newest = samples.register(registry)
    assert registry.get(f"{samples.NAME}:latest").version == newest.version
    assert samples.leftovers(tmp_path) == []


@pytest.mark.slow
def test_killed_at_every_step_of_every_operation() -> None:
    """The kill is placed before each file operation in turn; see the script."""
    command = [sys.executable, "-m", "tests.support.registry_crashes"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    assert int(result.stdout.split()[0]) > 60
