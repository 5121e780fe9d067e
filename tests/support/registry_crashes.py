"""Kill each registry operation before each of its file operations in turn, and look what is left.

The operation runs in a fork whose audit hook counts opens, renames, removals and so on, and sends
SIGKILL to itself at the n-th.  Prints the number of kills; a broken state raises.
"""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from registry import Registry, Stage
from registry.stages import Stages
from tests.support import registry_samples as samples

EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "fcntl.flock"}


def dies_at(step: int, operation: Callable[[], object]) -> bool:
    """Run ``operation`` in a fork that kills itself at file operation ``step``."""
    child = os.fork()
    if child == 0:
        left = itertools.count(step, -1)

        def hook(event: str, _: object) -> None:
            if event in EVENTS and next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        operation()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


def state(registry: Registry) -> tuple[object, ...]:
    """Versions and stages; versions registered by the operation itself count by number only."""
    stages: Stages = registry._state(samples.NAME)
    known = [v.version for v in registry.versions(samples.NAME)]
    beside = stages.canary, stages.percent, stages.shadow
    return len(known), known[:3], stages.production, stages.previous, stages.retired, beside


def sweep(prepared: Path, operation: Callable[[Registry], object]) -> int:
    """Kill ``operation`` at every step; each time old or new state, and all works afterwards."""
    with tempfile.TemporaryDirectory(dir=samples.MEMORY) as folder:
        after_home = Path(folder) / "after"
        shutil.copytree(prepared, after_home)
        before = state(Registry(after_home))
        operation(Registry(after_home))
        after = state(Registry(after_home))
        assert before != after
        for step in itertools.count():
            home = Path(folder) / str(step)
            shutil.copytree(prepared, home)
            registry = Registry(home)
            died = dies_at(step, lambda registry=registry: operation(registry))
            samples.check(registry)
            assert state(registry) in ((before, after) if died else (after,))
            if not died:
                return step
            newest = samples.register(registry)
            registry.promote(newest.tag)
            samples.check(registry)
            assert samples.leftovers(home) == []
            shutil.rmtree(home)
    raise AssertionError


def main() -> None:
    with tempfile.TemporaryDirectory(dir=samples.MEMORY) as folder:
        registry = Registry(Path(folder))
        first, second, third = [samples.register(registry) for _ in range(3)]
        registry.promote(first.tag)
        registry.promote(second.tag)
        gc.freeze()  # forks share the imported libraries untouched
        kills = {
            "promote": sweep(registry.home, lambda r: r.promote(third.tag)),
            "rollback": sweep(registry.home, lambda r: r.rollback(samples.NAME)),
            "remove": sweep(registry.home, lambda r: r.remove(first.tag)),
            "register": sweep(registry.home, samples.register),
            "canary": sweep(registry.home, lambda r: r.promote(third.tag, Stage.CANARY, percent=5)),
        }
        registry.promote(third.tag, Stage.SHADOW)
        kills["promote shadow"] = sweep(registry.home, lambda r: r.promote(third.tag))
        kills["unstage"] = sweep(registry.home, lambda r: r.unstage(samples.NAME, Stage.SHADOW))
        print(sum(kills.values()), "kills:", kills)


if __name__ == "__main__":
    main()
