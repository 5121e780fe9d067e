"""The host on Python 3.10 with ONNX Runtime 1.14.1, the last for GPUs of compute capability 5.0.

On the CPU, with that very wheel: what the exporters write today loads there and answers the same, and
the whole service starts and scores.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from export import int8
from export.package import package_run
from registry.store import Registry
from registry.version import CLASSIFIER, GENERATOR, MODEL_INT8
from tests.support import old_python
from tests.support.generator_tables import SMALL_PRESETS, token_dataset
from tests.support.models import SIZES, tiny_models, vocabulary
from tests.support.server import ROOT, serving
from tests.support.token_tables import table
from tests.support.transports import Grpc, Http
from training import classifier, generator
from training.classifier import train_classifier
from training.presets import DEFAULT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(old_python.interpreter() is None, reason="no Python 3.10 on this machine"),
]
RECIPE = replace(DEFAULT, steps=20, members=3, hidden=(4,))
ROW = {field: vocabulary().tokens[field][0] for field in SIZES}

ANSWERS = """
import json, sys
import numpy, onnxruntime
from registry.store import Registry
from serving.models import load
from serving.probe import sample
from serving.providers import first_choice

answers = {"versions": [onnxruntime.__version__, numpy.__version__, *sys.version_info[:2]]}
for tag, precision in json.loads(sys.argv[2]):
    model = load(Registry(sys.argv[1]).get(tag), first_choice("cpu"), 1, precision=precision)
    answers[tag + precision] = model.run(sample(model)).tolist()
print(json.dumps(answers))
"""

IMPORTS = """
import importlib, pkgutil, sys
import cipherscore, registry, serving
failed = []
for package in (cipherscore, registry, serving):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name in ("cipherscore.__main__", "serving.service"):
            continue  # a program, and what needs a registry; both are run below and elsewhere
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name.partition(".")[0] not in ("pyarrow", "ray"):  # whole tables, no server
                failed.append(f"{module.name}: {error!r}")
        except Exception as error:
            failed.append(f"{module.name}: {error!r}")
print("\\n".join(failed))
sys.exit(bool(failed))
"""


def run(python: str, program: str, *arguments: str) -> str:
    done = subprocess.run(
        [python, "-c", program, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python() -> str:
    return old_python.environment()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, str]]]:
    """A registry with a classifier in both precisions and a generator, made by the exporters."""
    folder = tmp_path_factory.mktemp("exported")
    registry = Registry(folder / "registry")
    rows = table()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "classifier_preset", lambda _: RECIPE)
        patch.setattr(generator, "generator_preset", SMALL_PRESETS.__getitem__)
        patch.setattr(int8, "AUC_TOLERANCE", 1.0)
        scored = train_classifier(rows, folder / CLASSIFIER, preset="default", seed=2)
        made = token_dataset()
        preset = next(iter(SMALL_PRESETS))
        generator.train_generator(made, folder / GENERATOR, preset=preset, seed=2)
        one = package_run(scored.folder, rows, registry)
        two = package_run(folder / GENERATOR, made, registry)
    assert MODEL_INT8 in one.manifest.files
    return folder / "registry", [(one.tag, "fp32"), (one.tag, "int8"), (two.tag, "fp32")]


def test_all_of_core_registry_and_server_imports(python: str) -> None:
    run(python, IMPORTS)


def test_the_command_line_starts(python: str) -> None:
    done = run(
        python, "import sys; sys.argv = ['cipherscore', '--help']; import cipherscore.__main__"
    )
    assert "Data owner" in done


def test_exported_models_answer_the_same(
    python: str, exported: tuple[Path, list[tuple[str, str]]]
) -> None:
    import sys

    home, models = exported
    arguments = (str(home), json.dumps(models))
    old, new = (json.loads(run(one, ANSWERS, *arguments)) for one in (python, sys.executable))
    assert old.pop("versions") == ["1.14.1", "1.26.4", 3, 10]
    assert new.pop("versions") != ["1.14.1", "1.26.4", 3, 10]
    assert old.keys() == new.keys()
    for tag, precision in models:
        got, expected = old[tag + precision], new[tag + precision]
        if isinstance(expected[0], float):
            assert got == pytest.approx(expected, abs=1e-5)
        else:
            different = sum(a != b for a, b in zip(got, expected, strict=True))
            assert different <= 0.01 * len(expected)


def test_the_service_scores_over_both_transports(python: str, tmp_path: Path) -> None:
    models = tiny_models(tmp_path / "home")
    with serving(models.home, tmp_path / "log", python=python) as server:
        http, client = Http(server.http), Grpc(server.grpc)
        assert http.score([ROW]) == client.score([ROW])
        assert client.score([ROW]).model == models.classifier.tag
        assert http.generate(5).model == models.generator.tag
