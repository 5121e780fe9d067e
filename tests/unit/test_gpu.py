"""Which GPU is there, what it can run, and how it is used; a real GPU is used where there is one."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cipherscore.errors import ConfigurationError, DeviceError
from serving import cuda_libraries, gpu, gpu_wheels, models, preflight, probe, providers
from serving.binding import BoundRunner, bucket_of
from serving.providers import CPU, CUDA, Provider
from serving.settings import Settings
from tests.support.driver import FakeDriver, card
from tests.support.models import NOISE_WIDTH, SIZES, TinyModels, classifier, generator, tiny_models

NO_KERNEL = (
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Gather node. "
    + "x" * 300
    + "CUDA failure 209: no kernel image is available for execution on the device ; GPU=0 ; "
    "hostname=secret-host ; file=cuda_call.cc ; expr=cudaGetLastError();"
)


def real_card() -> gpu.Card | None:
    try:
        return gpu.find_card()
    except DeviceError:
        return None


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyModels:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    return tiny_models(tmp_path)


# ---- the driver


def test_a_card_is_described() -> None:
    assert gpu.find_card(FakeDriver().load) == gpu.Card(
        "NVIDIA GeForce 940MX", "570.86.15", (12, 8), (5, 0), 2048
    )


@pytest.mark.parametrize(
    ("driver", "said"),
    [
        (FakeDriver(missing=(gpu.DRIVER,)), "no NVIDIA driver (libcuda.so.1)"),
        (FakeDriver(count=0), "--gpus all"),
        (FakeDriver(fails={"cuInit": 100}), "CUDA_ERROR_NO_DEVICE): no GPU is visible"),
        (FakeDriver(fails={"cuInit": 803}), "SYSTEM_DRIVER_MISMATCH): the driver's library"),
        (FakeDriver(fails={"cuInit": 804}), "too old"),
        (FakeDriver(fails={"cuInit": 999}), "nvidia_uvm"),
        (FakeDriver(fails={"cuInit": 7}), "(cuInit: error 7)"),
        (FakeDriver(fails={"cuInit": 7, "cuGetErrorName": 1}), "(cuInit: error 7)"),
        (FakeDriver(fails={"cuDeviceGetCount": 100}), "cuDeviceGetCount"),
        (FakeDriver(fails={"cuDeviceGet": 101}), "cuDeviceGet"),
        (FakeDriver(fails={"cuDriverGetVersion": 1}), "cuDriverGetVersion"),
        (FakeDriver(fails={"cuDeviceGetName": 1}), "cuDeviceGetName"),
        (FakeDriver(fails={"cuDeviceTotalMem_v2": 1}), "cuDeviceTotalMem_v2"),
        (FakeDriver(fails={"cuDeviceGetAttribute": 1}), "cuDeviceGetAttribute"),
    ],
)
def test_each_failure_of_the_driver_is_told(driver: FakeDriver, said: str) -> None:
    with pytest.raises(DeviceError) as caught:
        gpu.find_card(driver.load)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "driver",
    [
        FakeDriver(missing=(gpu.MANAGEMENT,)),
        FakeDriver(fails={"nvmlInit_v2": 1}),
        FakeDriver(fails={"nvmlSystemGetDriverVersion": 1}),
    ],
)
def test_a_driver_that_hides_its_version_is_no_failure(driver: FakeDriver) -> None:
    assert gpu.find_card(driver.load).driver == ""


# ---- the table of wheels


@pytest.mark.parametrize(
    ("version", "capability", "runs"),
    [
        ("1.14.1", (5, 0), True),
        ("1.14.1", (3, 7), True),
        ("1.14.1", (3, 5), False),
        ("1.15.0", (5, 0), False),
        ("1.20.2", (5, 2), True),
        ("1.21.0", (5, 2), False),
        ("1.26.0", (6, 0), True),
        ("1.27.0", (7, 0), False),
        ("1.31.1", (7, 5), True),
        ("2.0.0", (12, 0), True),
    ],
)
def test_the_table_of_wheels(version: str, capability: tuple[int, int], runs: bool) -> None:
    why = gpu_wheels.misfit(version, card(capability, cuda=(13, 0)))
    assert (why == "") is runs
    if not runs:
        assert version in why
        assert gpu_wheels.dotted(capability) in why


@pytest.mark.parametrize(
    ("found", "install"),
    [
        (card((5, 0)), "onnxruntime-gpu 1.14.1 on Python 3.10 with numpy 1.26.4"),
        (card((5, 2)), "onnxruntime-gpu 1.20.1"),
        (card((6, 1)), ">=1.21,<1.27"),
        (card((7, 5), cuda=(13, 0)), "requirements/serve-cuda.txt"),
        (card((9, 0), cuda=(12, 8)), ">=1.21,<1.27"),
        (card((9, 0), cuda=(10, 2)), "update the NVIDIA driver, then install"),
        (card((3, 0)), "CIPHERSCORE_DEVICE=cpu"),
    ],
)
def test_advice_fits_card_and_driver(found: gpu.Card, install: str) -> None:
    assert install in gpu_wheels.advice(found)


def test_a_driver_older_than_the_build_is_told() -> None:
    why = gpu_wheels.misfit("1.31.1", card((8, 6), cuda=(12, 4)))
    assert "needs CUDA 13" in why
    assert "570.86.15" in why


def test_a_missing_kernel_is_told_with_what_to_install() -> None:
    cause = gpu_wheels.cause(NO_KERNEL)
    assert cause == "CUDA failure 209: no kernel image is available for execution on the device"
    said = gpu_wheels.explain(cause, card((5, 0)))
    assert "onnxruntime-gpu 1.14.1" in said
    assert "(compute capability 5.0)" in said
    assert gpu_wheels.explain("out of memory", card()) == "out of memory"
    assert gpu_wheels.explain(cause, None) == cause


@given(st.text(max_size=1000))
def test_any_failure_has_a_short_cause(text: str) -> None:
    assert len(gpu_wheels.cause(text)) <= 200


def test_the_lock_for_maxwell_is_what_the_advice_says() -> None:
    lock = (Path(__file__).parents[2] / "requirements/serve-maxwell.txt").read_text()
    assert "onnxruntime-gpu==1.14.1 " in lock
    assert "numpy==1.26.4 " in lock
    for name in ("cublas", "cuda-runtime", "cudnn", "cufft", "curand"):
        assert f"nvidia-{name}-cu11==" in lock


# ---- choosing


def driver_is(monkeypatch: pytest.MonkeyPatch, found: gpu.Card) -> None:
    monkeypatch.setattr(providers, "find_card", lambda: found)


def test_the_build_is_looked_at_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    driver_is(monkeypatch, card((5, 0), cuda=(13, 0)))
    chosen = providers.first_choice("auto")
    assert (chosen.name, chosen.card) == (CPU, card((5, 0), cuda=(13, 0)))
    assert "onnxruntime-gpu 1.14.1" in chosen.reason
    with pytest.raises(DeviceError, match=r"has no code for the NVIDIA Test.*1\.14\.1"):
        providers.first_choice("strict")


def test_a_card_that_may_do_is_tried_with_the_memory_set(monkeypatch: pytest.MonkeyPatch) -> None:
    driver_is(monkeypatch, card((8, 0), cuda=(13, 0)))
    chosen = providers.first_choice("auto", 256)
    assert (chosen.name, chosen.memory_mib) == (CUDA, 256)


def test_builds_without_cuda_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    driver_is(monkeypatch, card((8, 0), cuda=(13, 0)))
    monkeypatch.setattr(providers, "_cuda_library", lambda: tmp_path / "none")
    assert "its CUDA part was removed" in providers.first_choice("auto").reason
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert "built without CUDA" in providers.first_choice("auto").reason


@pytest.mark.parametrize(("version", "tf32"), [("1.14.1", None), ("1.18.0", "0"), ("1.31.1", "0")])
def test_cuda_options(version: str, tf32: str | None) -> None:
    options = providers.cuda_options(512, version)
    assert options["gpu_mem_limit"] == str(512 * 1024 * 1024)
    assert options["arena_extend_strategy"] == "kSameAsRequested"
    assert options.get("use_tf32") == tf32


@pytest.mark.skipif(real_card() is not None, reason="this machine has a GPU")
def test_a_silent_fall_back_is_noticed() -> None:
    with pytest.raises(DeviceError, match="fell back to CPUExecutionProvider"):
        providers.open_session(classifier(), Provider(CUDA, ""), 1)


# ---- the probe


@pytest.fixture
def kernels_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card whose sessions open and die at the first kernel."""
    real = models.open_session

    def open_session(model: bytes, provider: Provider, threads: int) -> Any:
        session = real(model, Provider(CPU, ""), threads)
        if provider.name == CPU:
            return session

        def die(*_: Any) -> None:
            raise RuntimeError(NO_KERNEL)

        return SimpleNamespace(
            run=die, get_inputs=session.get_inputs, get_outputs=session.get_outputs
        )

    driver_is(monkeypatch, card((8, 0), cuda=(13, 0)))
    monkeypatch.setattr(models, "open_session", open_session)


@pytest.mark.usefixtures("kernels_missing", "tiny")
def test_a_card_without_kernels_gives_way_or_refuses() -> None:
    found = preflight.make_plan(Settings(), "auto").provider
    assert found.name == CPU
    assert "has no code for the NVIDIA Test" in found.reason
    assert "install" in found.reason
    assert "secret-host" not in found.reason
    facts = found.facts()
    assert facts["gpu"] == "NVIDIA Test"
    assert facts["compute_capability"] == "8.0"
    with pytest.raises(DeviceError, match="no kernel image is available"):
        preflight.make_plan(Settings(), "strict")


@pytest.fixture
def pretend_cuda(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A card that runs; ``served`` replaces the model it runs."""
    real, served = models.open_session, dict[str, bytes]()

    def open_session(model: bytes, provider: Provider, threads: int) -> Any:
        if provider.name == CUDA:
            model = served.get("model", model)
        return real(model, Provider(CPU, ""), threads)

    driver_is(monkeypatch, card((8, 0), cuda=(13, 0)))
    monkeypatch.setattr(models, "open_session", open_session)
    monkeypatch.setattr(
        models, "BoundRunner", lambda s, output, _, rows: BoundRunner(s, output, "cpu", rows)
    )
    return served


@pytest.mark.usefixtures("pretend_cuda", "tiny")
def test_a_card_that_runs_the_models_is_taken_and_measured() -> None:
    plan = preflight.make_plan(Settings(), "auto")
    facts = plan.provider.facts()
    assert facts["requested"] == "auto"
    assert facts["active"] == CUDA
    assert facts["driver"] == "570.86.15"
    assert facts["driver_cuda"] == "13.0"
    assert facts["onnxruntime"] == onnxruntime.__version__
    assert facts["probe_rows"] == probe.ROWS
    assert facts["probe_difference"] == 0.0
    assert isinstance(facts["probe_milliseconds"], float)
    assert len(plan.models) == 2
    assert preflight.Plan.from_json(plan.to_json()) == plan
    json.dumps(facts)


def test_a_card_that_computes_otherwise_is_not_taken(
    pretend_cuda: dict[str, bytes], tiny: TinyModels
) -> None:
    pretend_cuda["model"] = classifier(seed=9)
    found = preflight.make_plan(Settings(), "auto").provider
    assert found.name == CPU
    assert f"the answers of {tiny.classifier.tag} differ from the CPU's" in found.reason


def test_a_generator_that_computes_otherwise_is_not_taken(tiny: TinyModels) -> None:
    version, cpu = tiny.generator, Provider(CPU, "")
    model = models.load(version, cpu, 1)
    other = replace(model, session=providers.open_session(generator(seed=9), cpu, 1))
    assert probe.measure(model, model).difference == 0.0
    with pytest.raises(DeviceError, match="differ from the CPU's"):
        probe.measure(other, model)


@pytest.mark.usefixtures("tiny")
def test_the_cpu_is_measured_and_compared_with_nothing() -> None:
    facts = preflight.make_plan(Settings(), "cpu").provider.facts()
    assert facts["active"] == facts["requested"] == CPU
    assert facts["reason"] == "the CPU was asked for"
    assert facts["probe_difference"] is None
    assert facts["gpu"] is None


def test_not_a_number_is_a_difference(tiny: TinyModels) -> None:
    model = models.load(tiny.classifier, Provider(CPU, ""), 1)
    broken = SimpleNamespace(run=lambda *_: [np.full(probe.ROWS, np.nan, np.float32)])
    with pytest.raises(DeviceError, match="nan"):
        probe.measure(replace(model, session=broken), model)


# ---- the process that probes


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "was killed by SIGSEGV"),
        ("raise SystemExit(3)", "ended with status 3"),
        ("import time; time.sleep(60)", "gave no answer within 1 s"),
    ],
)
def test_a_probe_that_dies_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str, said: str
) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{program}"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(preflight, "_TIME_LIMIT", 1.0 if "sleep" in program else 60.0)
    with pytest.raises(DeviceError, match=said):
        preflight.plan_in_subprocess(Settings(device="strict"))
    with pytest.raises(ConfigurationError, match=said):
        preflight.plan_in_subprocess(Settings(device="cpu"))


# ---- CUDA's libraries


def test_libraries_are_opened_in_order_and_gaps_left(tmp_path: Path) -> None:
    for folder, name in (("cublas", "libcublasLt.so.11"), ("cublas", "libcublas.so.11")):
        (tmp_path / folder / "lib").mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "lib" / name).touch()
    broken = tmp_path / "cudnn" / "lib"
    broken.mkdir(parents=True)
    (broken / "libcudnn.so.8").touch()

    def load(path: str, mode: int) -> None:
        assert mode
        if "cudnn" in path:
            raise OSError("wrong ELF class")

    opened = cuda_libraries.preload([tmp_path / "nothing", tmp_path], load)
    assert opened == ["libcublasLt.so.11", "libcublas.so.11"]


@pytest.mark.parametrize(("version", "wanted"), [("1.14.1", True), ("1.31.1", False), ("", False)])
def test_only_builds_with_cuda_11_need_it(
    monkeypatch: pytest.MonkeyPatch, version: str, wanted: bool
) -> None:
    def installed(name: str) -> str:
        if not version:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    asked: list[Any] = []
    monkeypatch.setattr(importlib.metadata, "version", installed)
    monkeypatch.setattr(cuda_libraries, "preload", asked.append)
    cuda_libraries.import_onnxruntime()
    assert bool(asked) is wanted


# ---- fixed buffers


def session_of(model: bytes) -> Any:
    return providers.open_session(model, Provider(CPU, ""), 1)


@pytest.mark.parametrize(("rows", "size"), [(0, 1), (1, 1), (2, 2), (3, 4), (64, 64), (65, 128)])
def test_buckets_are_powers_of_two(rows: int, size: int) -> None:
    assert bucket_of(rows) == size


CLASSIFIER = session_of(classifier())
GENERATOR = session_of(generator())
SHARED = {
    "classifier": BoundRunner(CLASSIFIER, "probability", "cpu", 16),
    "generator": BoundRunner(GENERATOR, "indices", "cpu", 16),
}


@settings(deadline=None)
@given(rows=st.integers(0, 70), seed=st.integers(0, 2**32 - 1))
def test_fixed_buffers_give_the_same_answers(rows: int, seed: int) -> None:
    """The runners are shared by all examples: an earlier batch must leave no trace."""
    random = np.random.default_rng(seed)
    indices = np.stack([random.integers(-1, size, rows) for size in SIZES.values()], axis=1)
    inputs = {"indices": indices.astype(np.int32)}
    answer = SHARED["classifier"].run(inputs)
    expected = CLASSIFIER.run(["probability"], inputs)[0]
    assert answer.dtype == expected.dtype
    np.testing.assert_array_equal(answer, expected)
    inputs = {
        "noise": random.standard_normal((rows, NOISE_WIDTH), dtype=np.float32),
        "credit_class": random.integers(0, 2, rows, dtype=np.int32),
    }
    np.testing.assert_array_equal(
        SHARED["generator"].run(inputs), GENERATOR.run(["indices"], inputs)[0]
    )


def test_an_answer_is_not_overwritten_by_the_next() -> None:
    runner = BoundRunner(CLASSIFIER, "probability", "cpu", 4)
    first = runner.run({"indices": np.zeros((3, len(SIZES)), np.int32)})
    kept = first.copy()
    runner.run({"indices": np.ones((3, len(SIZES)), np.int32)})
    np.testing.assert_array_equal(first, kept)


# ---- a real GPU


@pytest.fixture
def real_gpu() -> gpu.Card:
    found = real_card()
    if found is None:
        pytest.skip("no NVIDIA GPU here")
    return found


@pytest.mark.gpu
@pytest.mark.usefixtures("tiny")
def test_a_real_gpu_runs_the_models_or_says_why_not(real_gpu: gpu.Card) -> None:
    found = preflight.plan_in_subprocess(Settings()).provider
    assert found.card == real_gpu
    if found.name == CPU:
        assert found.reason
        with pytest.raises(DeviceError, match="CUDA was asked for"):
            preflight.plan_in_subprocess(Settings(device="strict"))
        pytest.skip(f"the GPU is not used: {found.reason}")
    assert found.probe is not None
    assert found.probe.difference is not None
    assert found.probe.difference < 1e-3


@pytest.mark.gpu
def test_a_real_gpu_gives_the_same_through_fixed_buffers(
    real_gpu: gpu.Card, tiny: TinyModels
) -> None:
    chosen = providers.first_choice("auto")
    if chosen.name == CPU:
        pytest.skip(chosen.reason)
    served = models.load(tiny.classifier, chosen, 1)
    assert served.bound is not None
    reference = models.load(tiny.classifier, Provider(CPU, ""), 1)
    for rows in (1, 3, 64, 1000, 5000):
        inputs = probe.sample(reference, rows)
        np.testing.assert_allclose(served.run(inputs), reference.run(inputs), atol=1e-5)


def test_a_provider_survives_json() -> None:
    full = Provider(CUDA, "r", "strict", 99, card(), "1.31.1", providers.Probe(1, 2.0, 0.0))
    for one in (full, Provider(CPU, "why")):
        assert Provider.from_facts(json.loads(json.dumps(asdict(one)))) == one
