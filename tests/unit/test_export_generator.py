# ruff: noqa: E402 - the trainer's packages may be absent
import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("tf2onnx")
tf = pytest.importorskip("tensorflow")
ort = pytest.importorskip("onnxruntime")

from cipherscore.errors import ExportError, ParityError
from export import generator as exporting
from tests.support.generator_tables import SIZES, SMALL_PRESETS, token_dataset
from training import generator
from training.generator_weights import load_sampler


@pytest.fixture(scope="module", params=SMALL_PRESETS)
def exported(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generator, "generator_preset", SMALL_PRESETS.__getitem__)
        tf.config.run_functions_eagerly(True)  # the few steps are not worth a training graph
        run = generator.train_generator(token_dataset(), folder, preset=request.param, seed=2)
        tf.config.run_functions_eagerly(False)
    report = exporting.export_generator(folder, folder / "out")
    return run, folder / "out" / "model.onnx", report


def test_the_export_answers_as_its_source(exported):
    _, path, report = exported
    assert report.rows == 10_000
    assert report.max_abs_diff <= 1e-5
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]


def test_the_graph_fits_an_old_runtime(exported):
    run, path, _ = exported
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version <= 18) for entry in model.opset_import] == [("", True)]
    assert model.ir_version <= 8
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts["kind"] == "generator"
    assert facts["vocabulary_digest"] == run.vocabulary_digest


def test_inputs_and_outputs_are_as_documented(exported):
    run, path, _ = exported
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    shapes = {v.name: (v.type, v.shape) for v in (*session.get_inputs(), *session.get_outputs())}
    assert shapes == {
        "noise": ("tensor(float)", ["batch", run.noise_width]),
        "credit_class": ("tensor(int32)", ["batch"]),
        "indices": ("tensor(int32)", ["batch", len(SIZES)]),
        "probabilities": ("tensor(float)", ["batch", sum(SIZES.values())]),
    }


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e3, 1e30])
def test_every_index_is_valid_whatever_the_noise(exported, scale):
    run, path, _ = exported
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    for rows in (1, 7):
        noise = (scale * random.normal(size=(rows, run.noise_width))).astype(np.float32)
        classes = random.integers(0, 2, rows).astype(np.int32)
        (indices,) = session.run(["indices"], {"noise": noise, "credit_class": classes})
        assert indices.shape == (rows, len(SIZES))
        assert ((indices >= 0) & (indices < list(SIZES.values()))).all()


def test_another_models_file_is_refused(exported):
    run, path, _ = exported
    sampler = load_sampler(run)
    sampler.network.set_weights([w * 1.5 for w in sampler.network.get_weights()])
    with pytest.raises(ParityError, match="differs"):
        exporting.compare(sampler, path, seed=0)


def test_differing_indices_are_refused(exported, monkeypatch):
    run, path, _ = exported
    honest = exporting.parity.run_onnx

    def tampered(*arguments):
        indices, probabilities = honest(*arguments)
        return [indices[::-1].copy(), probabilities]

    monkeypatch.setattr(exporting.parity, "run_onnx", tampered)
    with pytest.raises(ParityError, match="indices differ"):
        exporting.compare(load_sampler(run), path, seed=0)


def test_a_failed_comparison_leaves_no_file(exported, tmp_path, monkeypatch):
    run, _, _ = exported

    def fail(*_):
        raise ParityError("differs")

    monkeypatch.setattr(exporting, "compare", fail)
    with pytest.raises(ParityError):
        exporting.export_generator(run.folder, tmp_path)
    assert not list(tmp_path.iterdir())


def test_only_generators_are_exported(exported, tmp_path):
    run, _, _ = exported
    text = (run.folder / "run.json").read_text().replace('"generator"', '"classifier"')
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ExportError, match="not a generator"):
        exporting.export_generator(tmp_path, tmp_path)
