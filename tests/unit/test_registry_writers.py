"""Several writers at once, and leftovers of dead ones."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cipherscore.errors import RegistryError
from registry import Registry, locking
from tests.support import registry_samples as samples
from tests.support.registry_samples import NAME

ROOT = Path(__file__).parents[2]


def run_two(action: str, home: Path, count: int) -> list[set[str]]:
    command = [sys.executable, "-m", "tests.support.registry_writer", action, str(home), NAME]
    running = [
        subprocess.Popen([*command, str(count)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=50)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    return [{line.split()[1] for line in text.splitlines()} for text in said]


def test_two_processes_register_at_once(tmp_path: Path) -> None:
    one, two = run_two("register", tmp_path, 6)
    assert one & two == {"warm"}
    registry = Registry(tmp_path)
    assert len(registry.versions(NAME)) == 12
    samples.check(registry)
    assert samples.leftovers(tmp_path) == []


def test_two_processes_promote_at_once(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    for _ in range(3):
        samples.register(registry)
    run_two("promote", tmp_path, 30)
    samples.check(registry)
    assert {v.stage.value for v in registry.versions(NAME)} == {"production", "archived"}
    assert len(registry.previous(NAME)) == 2
    # No change was lost: each one replaced the version that the one before put there.
    changes = registry.changes(NAME)
    for before, after in itertools.pairwise(changes):
        assert after.replaced == before.version
    assert samples.leftovers(tmp_path) == []


def test_a_held_lock_is_waited_for_and_then_reported(tmp_path: Path) -> None:
    path = tmp_path / "demo.lock"
    with (
        locking.exclusive(path),
        pytest.raises(RegistryError, match="'demo'"),
        locking.exclusive(path, timeout=0.05),
    ):
        raise AssertionError
    with locking.exclusive(path, timeout=0.05):
        pass


def test_work_folders_of_the_living_are_kept_and_of_the_dead_removed(tmp_path: Path) -> None:
    (tmp_path / "dead" / "inside").mkdir(parents=True)
    with locking.work_folder(tmp_path) as mine:
        assert not (tmp_path / "dead").exists()
        other = threading.Thread(target=lambda: _open_and_leave(tmp_path))
        other.start()
        other.join(10)
        assert mine.is_dir()
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]


def _open_and_leave(parent: Path) -> None:
    with locking.work_folder(parent):
        pass
