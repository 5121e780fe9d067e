"""What is served on what: settings, devices, plans.  No process is started, no GPU is needed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cipherscore.errors import ConfigurationError, DeviceError, IntegrityError, VersionNotFound
from serving import models, preflight, providers, selection, settings
from serving.providers import CPU, Provider
from serving.settings import Settings, load_settings
from serving.status import flatten
from serving.tables import printable
from tests.support.models import TinyModels, register, tiny_models


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyModels:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    return tiny_models(tmp_path)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIPHERSCORE_MAX_ROWS", "7")
    monkeypatch.setenv("CIPHERSCORE_DEVICE", "")
    found = load_settings()
    assert (found.max_rows, found.device, found.grpc_port) == (7, "auto", 50051)


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIPHERSCORE_GRPC_PORT", "70000")
    with pytest.raises(ConfigurationError, match="CIPHERSCORE_GRPC_PORT"):
        load_settings()


@pytest.mark.parametrize(
    ("quota", "cores"), [("150000 100000", 1), ("max 100000", 8), ("50000 100000", 1), ("x", 8)]
)
def test_cores_are_cut_to_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(settings, "_CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert settings.available_cores() == cores
    assert Settings(workers=2).session_threads == max(1, cores // 2)
    assert Settings(workers=2, threads=3).session_threads == 3


def no_driver() -> None:
    raise DeviceError("no driver")


def test_a_machine_without_a_driver_runs_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "find_card", no_driver)
    assert providers.first_choice("auto") == Provider(CPU, "no driver", "auto")
    assert providers.first_choice("cpu").name == CPU
    with pytest.raises(DeviceError, match="no driver"):
        providers.first_choice("strict")


def test_a_probe_that_dies_is_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = preflight.Plan(Provider(CPU, "x", "cpu"), (preflight.PlannedModel("a:b", ""),))
    asked: list[str] = []

    def ask(device: str, reason: str = "") -> preflight.Plan:
        asked.append(device)
        if device != CPU:
            raise preflight._Died("was killed by SIGBUS")
        assert "SIGBUS" in reason
        return plan

    monkeypatch.setattr(preflight, "_ask", ask)
    found = preflight.plan_in_subprocess(Settings())
    assert asked == ["auto", "cpu"]
    assert found.models == plan.models
    assert found.provider == Provider(CPU, "x", "auto")
    with pytest.raises(DeviceError, match="SIGBUS"):
        preflight.plan_in_subprocess(Settings(device="strict"))


def test_a_plan_survives_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = preflight.Plan(Provider(CPU, "why"), (preflight.PlannedModel("a:b", "note"),))
    monkeypatch.delenv(preflight.VARIABLE, raising=False)
    assert preflight.published() is None
    preflight.publish(plan, environment := {})
    monkeypatch.setenv(preflight.VARIABLE, environment[preflight.VARIABLE])
    assert preflight.published() == plan


def test_a_version_set_by_tag_is_served_or_nothing(tiny: TinyModels) -> None:
    candidate = register(tiny.registry, "classifier", seed=3)
    pinned = Settings(classifier=candidate.tag)
    assert selection.choose(pinned)[0].version.tag == candidate.tag
    broken = register(tiny.registry, "classifier", model=b"junk")
    with pytest.raises(IntegrityError, match="does not load"):
        preflight.make_plan(Settings(classifier=broken.tag), "cpu")


def test_names_that_do_not_fit(tiny: TinyModels) -> None:
    with pytest.raises(ConfigurationError, match="is a generator"):
        selection.choose(Settings(classifier=tiny.generator.name))
    with pytest.raises(ConfigurationError) as caught:
        selection.choose(Settings(classifier="nobody"))
    assert isinstance(caught.value.__cause__, VersionNotFound)


def test_a_model_that_does_not_fit_its_vocabulary_is_refused(tiny: TinyModels) -> None:
    wrong = register(tiny.registry, "classifier", model=tiny.generator.read("model.onnx"))
    with pytest.raises(IntegrityError, match="takes"):
        models.load(wrong, Provider(CPU, ""), 1)


def test_metrics_are_flattened() -> None:
    nested = {"test": {"auc": {"value": 0.5, "low": 0.4}}, "rows": 3, "name": "x", "on": True}
    assert flatten(nested) == {"test.auc.value": 0.5, "test.auc.low": 0.4, "rows": 3.0}


@pytest.mark.parametrize("name", ["a" * 10_000, "ü\n\x00", "\ud800", "日本" * 100])
def test_strange_names_fit_a_header(name: str) -> None:
    shown = printable(name)
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) <= 600
