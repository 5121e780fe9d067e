"""A built Bento serves the versions it was built with, here and where it was carried to."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.models import SIZES, TinyModels, register, tiny_models, vocabulary
from tests.support.server import ROOT, bentoml, environment, serving
from tests.support.transports import Grpc, Http

pytestmark = pytest.mark.slow
ROW = {field: vocabulary().tokens[field][0] for field in SIZES}


def run(home: Path, *arguments: str, cwd: Path = ROOT) -> str:
    # BentoML looks for uv, and else installs it, even when it has nothing to lock.
    tools = home / "tools"
    tools.mkdir(parents=True, exist_ok=True)
    (tools / "uv").write_text("#!/bin/sh\nexit 1\n")
    (tools / "uv").chmod(0o755)
    found = environment(home)
    done = subprocess.run(
        bentoml(*arguments),
        cwd=cwd,
        env={**found, "PATH": f"{tools}:{found['PATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    return tiny_models(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def bento(models: TinyModels) -> tuple[str, Path]:
    """Build the Bento; return its tag and folder.  Afterwards newer versions are promoted."""
    out = run(models.home, "build", "-f", "bento/bentofile.yaml", "-o", "tag", ".")
    tag = out.strip().splitlines()[-1].removeprefix("__tag__:")
    name, version = tag.split(":")
    for kind in ("classifier", "generator"):
        models.registry.promote(register(models.registry, kind, seed=5).tag)
    return tag, models.home / "bentos" / name / version


def test_the_bento_records_its_models_and_no_client_code(
    bento: tuple[str, Path], models: TinyModels
) -> None:
    described = yaml.safe_load((bento[1] / "bento.yaml").read_text())
    recorded = {m["tag"] for service in described["services"] for m in service["models"]}
    assert recorded == {models.classifier.tag, models.generator.tag}
    source = bento[1] / "src"
    assert (source / "serving" / "service.py").is_file()
    assert not (source / "cipherscore" / "client").exists()
    assert not list(source.rglob("tests"))
    packages = (bento[1] / "env" / "python" / "requirements.txt").read_text()
    assert "onnxruntime-gpu==" in packages
    assert "torch==" not in packages
    assert not list(source.rglob("*.pyc"))


def test_its_image_has_the_grpc_port_and_replaces_dead_workers(
    bento: tuple[str, Path], models: TinyModels, tmp_path: Path
) -> None:
    """BentoML writes the Dockerfile again when it containerizes; both are from our template."""
    kept = tmp_path / "Dockerfile"
    program = models.home / "tools/buildah"
    program.write_text(
        f"#!{sys.executable}\nimport shutil, sys\n"
        "given = sys.argv[sys.argv.index('--file') + 1] if '--file' in sys.argv else ''\n"
        f"given and shutil.copy(given, {str(kept)!r})\n"
    )
    program.chmod(0o755)
    # Elsewhere BentoML 1.4.39 refuses its own copy of the template, as `make containerize` knows.
    run(models.home, "containerize", bento[0], "--backend", "buildah", cwd=Path("/"))
    for path in (bento[1] / "env/docker/Dockerfile", kept):
        dockerfile = path.read_text()
        exposed = re.findall(r"^EXPOSE (\d+)$", dockerfile, re.MULTILINE)
        assert {"3000", "50051"} <= set(exposed)
        *_, entry = re.findall(r"^ENTRYPOINT (.+)$", dockerfile, re.MULTILINE)
        assert json.loads(entry)[:3] == ["env", "-u", "BENTOML_CONTAINERIZED"]
        assert "serving.healthcheck" in dockerfile
        assert "STOPSIGNAL SIGTERM" in dockerfile
        assert re.search(r"^USER bentoml$", dockerfile, re.MULTILINE)


def test_it_serves_what_it_was_built_with_after_a_newer_promote(
    bento: tuple[str, Path], models: TinyModels, tmp_path: Path
) -> None:
    assert models.registry.production(models.classifier.name).tag != models.classifier.tag
    with serving(models.home, tmp_path / "log", target=bento[0], cwd=tmp_path) as server:
        http, client = Http(server.http), Grpc(server.grpc)
        assert http.score([ROW]) == client.score([ROW])
        assert client.score([ROW]).model == models.classifier.tag
        assert http.generate(1).model == models.generator.tag


def test_an_exported_bento_serves_the_same_elsewhere(
    bento: tuple[str, Path], models: TinyModels, tmp_path: Path
) -> None:
    archive = tmp_path / "cipherscore.bento"
    run(models.home, "export", bento[0], str(archive))
    elsewhere = tmp_path / "elsewhere"
    run(elsewhere, "import", str(archive))
    with serving(elsewhere, tmp_path / "log", target=bento[0], cwd=tmp_path) as server:
        assert Http(server.http).score([ROW]).model == models.classifier.tag


def test_a_bento_folder_with_its_models_inside(
    bento: tuple[str, Path], models: TinyModels, tmp_path: Path
) -> None:
    """In a container the models lie in the Bento's own folder and the home is empty."""
    folder = tmp_path / "bento"
    shutil.copytree(bento[1], folder)
    for version in (models.classifier, models.generator):
        target = folder / "models" / version.name / version.version
        shutil.copytree(version.path, target)
        (target.parent / "latest").write_text(version.version)
    with serving(tmp_path / "empty", tmp_path / "log", target=str(folder), cwd=tmp_path) as server:
        found = Http(server.http).checked(Http(server.http).client.get("/v1/health"))
        assert found["models"]["classifier"] == models.classifier.tag
    assert json.dumps(found)
