"""An image run as a container, by buildah and runc: what an orchestrator would do, on the host's network."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.server import Server, free_port

NEEDED = ("buildah", "debootstrap", "runc")


def missing() -> str:
    """Return why containers cannot be built and run here; empty if they can."""
    absent = [program for program in NEEDED if shutil.which(program) is None]
    if absent:
        return f"{', '.join(absent)} not installed"
    return "" if os.geteuid() == 0 else "needs root"


def output(*command: str) -> str:
    """Run a command and return what it prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def image_config(image: str) -> dict[str, Any]:
    """Return the configuration part of an image."""
    found = json.loads(output("buildah", "inspect", "--type", "image", image))
    config: dict[str, Any] = found["Docker"]["config"]
    return config


@dataclass
class Container(Server):
    """A running container; also the server in it."""

    name: str = ""
    state: Path = Path()

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as its user."""
        return subprocess.run(
            ["runc", "--root", str(self.state), "exec", self.name, *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    @property
    def pid(self) -> int:
        """Process id, outside, of its first process."""
        found = json.loads(output("runc", "--root", str(self.state), "state", self.name))
        return int(found["pid"])


@contextmanager
def running(
    image: str, folder: Path, mounts: Mapping[Path, str], **settings: object
) -> Iterator[Container]:
    """Run ``image`` with a read-only root, no capabilities and a tmpfs on /tmp, until the block ends.

    Args:
        image: Its name in buildah's store.
        folder: For the bundle and the log.
        mounts: What of this machine to mount where, read-only.
        settings: CIPHERSCORE_* settings.
    """
    http_port, grpc_port = free_port(), free_port()
    held = output("buildah", "from", "--pull-never", image)
    name = f"cipherscore-{uuid.uuid4().hex[:8]}"
    state, log = folder / "runc", folder / "container.log"
    environment = {
        "BENTOML_HOST": "127.0.0.1",
        "BENTOML_PORT": str(http_port),
        "CIPHERSCORE_GRPC_HOST": "127.0.0.1",
        "CIPHERSCORE_GRPC_PORT": str(grpc_port),
        **{f"CIPHERSCORE_{key.upper()}": str(value) for key, value in settings.items()},
    }
    bundle = folder / "bundle"
    bundle.mkdir()
    rootfs = output("buildah", "mount", held)
    # Every container runtime brings this file.
    (folder / "hosts").write_text("127.0.0.1 localhost\n")
    mounts = {**mounts, folder / "hosts": "/etc/hosts"}
    specification = bundle_of(image_config(image), rootfs, environment, mounts)
    (bundle / "config.json").write_text(json.dumps(specification))
    with log.open("wb") as sink:
        process = subprocess.Popen(
            ["runc", "--root", str(state), "run", "--bundle", str(bundle), name],
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    container = Container(
        process=process,
        http=f"http://127.0.0.1:{http_port}",
        grpc=f"127.0.0.1:{grpc_port}",
        log=log,
        name=name,
        state=state,
    )
    try:
        container.wait_ready()
        yield container
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                subprocess.run(["runc", "--root", str(state), "kill", name, "KILL"], check=False)
                process.wait(30)
        output("buildah", "umount", held)
        output("buildah", "rm", held)


def bundle_of(
    config: Mapping[str, Any],
    rootfs: str,
    environment: Mapping[str, str],
    mounts: Mapping[Path, str],
) -> dict[str, Any]:
    """Return the runtime's configuration (OCI) for an image's."""
    user, _, group = config["User"].partition(":")
    small = ["nosuid", "nodev", "noexec"]
    return {
        "ociVersion": "1.0.2",
        "root": {"path": rootfs, "readonly": True},
        "process": {
            "terminal": False,
            "user": {"uid": int(user), "gid": int(group)},
            "args": [*config["Entrypoint"], *(config.get("Cmd") or [])],
            "env": [*config["Env"], *(f"{key}={value}" for key, value in environment.items())],
            "cwd": config["WorkingDir"],
            "capabilities": {kind: [] for kind in ("bounding", "effective", "permitted")},
            "noNewPrivileges": True,
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 4096, "soft": 4096}],
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755"],
            },
            {
                "destination": "/tmp",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": [*small, "mode=1777", "size=256m"],
            },
            *(
                {
                    "destination": where,
                    "type": "bind",
                    "source": str(path),
                    "options": ["rbind", "ro", *small],
                }
                for path, where in mounts.items()
            ),
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]},
    }


def wait_until(check: Any, seconds: float, what: str) -> None:
    """Wait until ``check()`` is true."""
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, what
        time.sleep(0.1)
