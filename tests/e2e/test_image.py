"""The container image, built and run for real.  Minutes, root and a package index: on demand only.

    CIPHERSCORE_IMAGE_TEST=cpu .venv/bin/python -m pytest tests/e2e/test_image.py -s

The variable holds targets of the Dockerfile, separated by commas.  ``maxwell`` needs PYTHON_TREE, the
prefix of a Python 3.10 (see scripts/build_image.sh).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.container import Container, image_config, missing, output, running, wait_until
from tests.support.models import KEY_ID, SIZES, TinyModels, tiny_models, vocabulary
from tests.support.processes import descendants
from tests.support.server import ROOT
from tests.support.transports import Grpc, Http, pb

WANTED = [target for target in os.environ.get("CIPHERSCORE_IMAGE_TEST", "").split(",") if target]
pytestmark = [
    pytest.mark.image,
    pytest.mark.skipif(not WANTED, reason="CIPHERSCORE_IMAGE_TEST is not set"),
    pytest.mark.skipif(bool(WANTED and missing()), reason=missing()),
]
ROW = {field: vocabulary().tokens[field][0] for field in SIZES}
SBOM = "/usr/share/cipherscore/sbom.cdx.json"


@pytest.fixture(scope="module", params=WANTED or ["none"])
def target(request: pytest.FixtureRequest) -> str:
    """A target, after its image was built."""
    environment = dict(os.environ)
    if request.param != "maxwell":
        environment.pop("PYTHON_TREE", None)
    subprocess.run([ROOT / "scripts/build_image.sh", request.param], check=True, env=environment)
    return str(request.param)


@pytest.fixture(scope="module")
def image(target: str) -> str:
    return f"localhost/cipherscore:{target}"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    found = tiny_models(tmp_path_factory.mktemp("registry"))
    output("chmod", "-R", "a+rX", str(found.home))
    return found


@pytest.fixture(scope="module")
def container(
    image: str, models: TinyModels, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Container]:
    folder = tmp_path_factory.mktemp("container")
    with running(image, folder, {models.home: "/var/lib/cipherscore"}) as found:
        yield found


def test_it_scores_over_both_transports(container: Container, models: TinyModels) -> None:
    http, client = Http(container.http), Grpc(container.grpc)
    assert http.score([ROW]) == client.score([ROW])
    assert client.score([ROW]).model == models.classifier.tag
    assert http.generate(3).model == models.generator.tag


def test_it_is_healthy_by_its_own_check(image: str, container: Container) -> None:
    kind, *command = image_config(image)["Healthcheck"]["Test"]
    assert kind == "CMD"
    done = container.run(*command)
    assert done.returncode == 0, done.stderr
    wrong = container.run("env", "CIPHERSCORE_GRPC_PORT=1", *command)
    assert wrong.returncode == 1
    assert "gRPC on port 1" in wrong.stderr


def test_it_is_nobody_and_its_root_is_read_only(container: Container) -> None:
    assert container.run("id", "-u").stdout.strip() == "10001"
    for place in ("/", "/app", "/opt/cipherscore", "/var/lib/cipherscore/models", "/usr/bin"):
        done = container.run("touch", f"{place}/planted")
        assert done.returncode != 0
        assert "Read-only file system" in done.stderr
    assert container.run("touch", "/tmp/fine").returncode == 0
    capabilities = container.run("grep", "CapEff", "/proc/self/status").stdout
    assert int(capabilities.split()[1], 16) == 0


def test_it_holds_what_the_host_needs_and_no_more(container: Container, target: str) -> None:
    packages = container.run("ls", "/app", "/app/cipherscore").stdout.split()
    assert {"serving", "registry", "cipherscore"} <= set(packages)
    assert not {"client", "cli", "tests", "training", "export"} & set(packages)
    for module in ("pip", "torch", "tensorflow", "setuptools", "cipherscore.client"):
        found = container.run("python", "-c", f"import {module}")
        assert "ModuleNotFoundError" in found.stderr, module
    held = container.run("sh", "-c", "ls /build /run/secrets /etc/pip.conf /root/.cache")
    assert not held.stdout.strip()
    libraries = container.run(
        "sh", "-c", "ls /opt/cipherscore/lib/*/site-packages/onnxruntime/capi"
    )
    assert ("libonnxruntime_providers_cuda.so" in libraries.stdout) is (target != "cpu")


def test_its_labels_name_a_bill_of_materials(image: str, container: Container, target: str) -> None:
    config = image_config(image)
    assert config["Labels"]["org.opencontainers.image.title"] == "CipherScore"
    assert config["Labels"]["org.cipherscore.sbom"] == SBOM
    assert set(config["ExposedPorts"]) == {"3000/tcp", "50051/tcp"}
    bill = json.loads(container.run("cat", SBOM).stdout)
    listed = {(part["name"], part["version"]) for part in bill["components"]}
    program = (
        "import importlib.metadata as m, json; "
        "print(json.dumps([(d.metadata['Name'], d.version) for d in m.distributions()]))"
    )
    installed = json.loads(container.run("python", "-c", program).stdout)
    assert listed == {
        (name.lower().replace("_", "-").replace(".", "-"), v) for name, v in installed
    }
    lock = {"cpu": "serve", "cuda": "serve-cuda", "maxwell": "serve-maxwell"}[target]
    locked = (ROOT / "requirements" / f"{lock}.txt").read_text()
    for part in bill["components"]:
        assert f"sha256:{part['hashes'][0]['content']}" in locked


def test_a_worker_that_is_killed_is_replaced(container: Container) -> None:
    client = Grpc(container.grpc)
    assert client.score([ROW]).probability
    before = {pid for pid in descendants(container.pid) if "bentoml" in command_of(pid)}
    assert before
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: container.process.poll() is None and container.ready(), 60, "is replaced")
    after = {pid for pid in descendants(container.pid) if "bentoml" in command_of(pid)}
    assert after
    assert not after & before
    fresh = Grpc(container.grpc)
    assert fresh.score([ROW]).probability


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")


def test_it_drains_and_ends_on_sigterm(image: str, models: TinyModels, tmp_path: Path) -> None:
    with running(image, tmp_path, {models.home: "/var/lib/cipherscore"}) as container:
        count = 300_000
        chunks = Grpc(container.grpc).stub.Generate(
            pb.GenerateRequest(key_id=KEY_ID, count=count), timeout=60
        )
        made = next(chunks).table.rows
        output("runc", "--root", str(container.state), "kill", container.name, "TERM")
        made += sum(chunk.table.rows for chunk in chunks)
        assert made == count
        assert container.process.wait(30) == 0


def test_models_can_be_baked_in(image: str, models: TinyModels, tmp_path: Path) -> None:
    baked = f"{image}-baked"
    output(
        "buildah", "build", "--quiet", "--format", "docker", "--isolation", "chroot",
        "--build-arg", f"IMAGE={image}", "--tag", baked,
        "--file", str(ROOT / "deploy/image/Dockerfile.models"), str(models.home),
    )  # fmt: skip
    try:
        with running(baked, tmp_path, {}) as container:
            assert Http(container.http).score([ROW]).model == models.classifier.tag
    finally:
        output("buildah", "rmi", "--force", baked)
