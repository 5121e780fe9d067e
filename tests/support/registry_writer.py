"""A process that changes a registry until it is stopped; each change is announced on stdout.

Usage: ``python -m tests.support.registry_writer promote|register HOME NAME [COUNT]``
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

from registry import Registry
from tests.support import registry_samples


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def promote(registry: Registry, name: str, rounds: range | itertools.count[int]) -> None:
    versions = registry.versions(name)
    for number in rounds:
        wanted = versions[number % len(versions)]
        say(f"start {wanted.version}")
        registry.promote(wanted.tag)
        say(f"done {wanted.version}")


def register(registry: Registry, name: str, rounds: range | itertools.count[int]) -> None:
    for number in rounds:
        version = registry_samples.register(registry, name, str(number).encode() * 1000)
        if number:
            say(f"done {version.version}")
        else:
            say("done warm")


def main() -> None:
    action, home, name, *count = sys.argv[1:]
    rounds = range(int(count[0])) if count else itertools.count()
    {"promote": promote, "register": register}[action](Registry(Path(home)), name, rounds)


if __name__ == "__main__":
    main()
