"""Lays out a model repository and becomes `tritonserver`, from the wheel of nvidia-pytriton.

Fast settings: dynamic batching without a delay, one instance, HTTP, metrics and logs off, a pool of
128 request objects for gRPC.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytriton

from benchmarks.serving.peers.common import MODEL_NAME, PORT

HERE = Path(__file__).parent


def main() -> None:
    """Replace this process."""
    wheel = Path(pytriton.__file__).parent / "tritonserver"
    folder = Path(tempfile.mkdtemp(prefix="triton-", dir=os.environ["BENCH_SCRATCH"]))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copytree(wheel / "backends", folder / "backends")
    shutil.copy(
        wheel / "python_backend_stubs" / version / "triton_python_backend_stub",
        folder / "backends/python",
    )
    (folder / "models" / MODEL_NAME / "1").mkdir(parents=True)
    shutil.copy(HERE / "model.py", folder / "models" / MODEL_NAME / "1")
    shutil.copy(HERE / "config.pbtxt", folder / "models" / MODEL_NAME)
    paths = [sysconfig.get_paths()["purelib"], str(Path.cwd())]
    libraries = [
        str(Path(sys.base_prefix) / "lib"),
        str(wheel.parent.parent / "nvidia_pytriton.libs"),
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONHOME": sys.base_prefix,
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
    }
    program = str(wheel / "bin/tritonserver")
    arguments = [
        program, f"--model-repository={folder / 'models'}",
        f"--backend-directory={folder / 'backends'}", "--grpc-address=127.0.0.1",
        f"--grpc-port={PORT}", "--allow-http=false", "--allow-metrics=false", "--log-info=false",
        "--grpc-infer-allocation-pool-size=128", "--exit-timeout-secs=2",
    ]  # fmt: skip
    os.execve(program, arguments, environment)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
