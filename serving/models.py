"""A version loaded into ONNX Runtime, tried once before it is served."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from cipherscore.errors import ConfigurationError, DeviceError, IntegrityError, RegistryError
from cipherscore.schema import PublicSchema
from cipherscore.vocabulary import Vocabulary
from registry.version import CLASSIFIER, MODEL, MODEL_INT8, Version, VersionRecord
from serving import gpu_wheels
from serving.binding import BoundRunner
from serving.providers import CUDA, Provider, open_session
from serving.reasons import Explainer, check_explained, open_explainer

if TYPE_CHECKING:
    import onnxruntime

_WARM_UP_ROWS = (1, 2, 64)
_PIECE_ROWS = 256
"""Rows that one thread of the CPU is given at a time: what the layers make of more no longer
fits its cache, and costs a tenth more a row."""
_BOUND_SIZES = tuple(1 << power for power in range(11))
_INPUTS = {
    "classifier": {"indices": "tensor(int32)"},
    "generator": {"noise": "tensor(float)", "credit_class": "tensor(int32)"},
}
_OUTPUT = {"classifier": "probability", "generator": "indices"}


@dataclass(frozen=True)
class LoadedModel:
    """A model that answers requests.

    Attributes:
        version: Where it comes from; ``version.tag`` is its name to clients.
        record: Its lineage: kind, key id, threshold and so on.
        notice: Empty, or why this is not the production version.
        precision: "fp32" or "int8".
        seconds_per_row: Speed of a batch of 64 rows at warm-up.
        bound: Runs the session through fixed buffers, on a GPU.
        piece_rows: Rows of one run of the session; more are answered in pieces.  0: no limit.
        explainer: Gives the reasons for a classifier's answers; None where there are none.
        explained_seconds_per_row: Speed of a batch of 64 rows with reasons at warm-up.
    """

    version: Version
    record: VersionRecord
    schema: PublicSchema
    vocabulary: Vocabulary
    provider: Provider
    notice: str
    session: onnxruntime.InferenceSession = field(repr=False)
    precision: str = "fp32"
    seconds_per_row: float = 0.0
    bound: BoundRunner | None = field(default=None, repr=False)
    piece_rows: int = 0
    explainer: Explainer | None = None
    explained_seconds_per_row: float = 0.0

    @cached_property
    def tag(self) -> str:
        """``name:version``."""
        return self.version.tag

    @property
    def kind(self) -> str:
        """One of the kinds, classifier or generator."""
        return self.record.kind

    def run(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the model's answer.

        A classifier takes ``indices`` int32 [rows, fields] and gives the probability of bad credit,
        float32 [rows].  A generator takes ``noise`` float32 [rows, noise_width] and
        ``credit_class`` int32 [rows] (1 = bad) and gives int32 [rows, fields].
        """
        if self.bound is not None:
            return self.bound.run(inputs)
        rows = len(next(iter(inputs.values())))
        if not self.piece_rows or rows <= self.piece_rows:
            return self._run(inputs)
        step = -(-rows // -(-rows // self.piece_rows))  # pieces of about one size
        pieces = (
            self._run({name: part[start : start + step] for name, part in inputs.items()})
            for start in range(0, rows, step)
        )
        return np.concatenate(list(pieces))

    def run_explained(self, indices: np.ndarray) -> np.ndarray:
        """Return a classifier's answers and what each field contributes to them.

        Args:
            indices: int32 [rows, fields].

        Returns:
            float32 [rows, 1 + fields]: the probability, exactly as `run` gives it, then the
            contributions.
        """
        assert self.explainer is not None
        rows, fields = indices.shape
        found = np.empty((rows, 1 + fields), dtype=np.float32)
        step = self.piece_rows or max(rows, 1)
        for start in range(0, rows, step):
            piece = indices[start : start + step]
            found[start : start + step, 0] = self.run({"indices": piece})
            found[start : start + step, 1:] = self.explainer.run(piece)
        return found

    def _run(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        answer: np.ndarray = self.session.run([_OUTPUT[self.kind]], inputs)[0]
        return answer


def load(
    version: Version,
    provider: Provider,
    threads: int,
    notice: str = "",
    precision: str = "fp32",
    *,
    reasons: bool = True,
) -> LoadedModel:
    """Load ``version`` from checked bytes, warm it up and test its answers' form.

    Args:
        version: What to load.
        provider: What runs it.
        threads: Threads of one model run.
        notice: Why it is not the first choice.
        precision: "int8" takes a classifier's quantised variant; generators have none.
        reasons: Whether to load a classifier's reason codes, too, if it has any.

    Raises:
        IntegrityError: The version is damaged, or the model does not do what its record says.
        ConfigurationError: int8 is wanted and the version was registered without.
        DeviceError: The provider does not run it.
    """
    record = version.record
    if record.kind != CLASSIFIER:
        precision = "fp32"
    on_gpu = provider.name == CUDA
    content = version.read(_file(version, precision))
    try:
        session = open_session(content, provider, threads)
    except DeviceError:
        raise
    except Exception as error:
        raise _failure(version, provider, f"does not load: {_brief(error)}") from error
    model = LoadedModel(
        version,
        record,
        version.schema(),
        version.vocabulary(),
        provider,
        notice,
        session,
        precision,
        bound=BoundRunner(session, _OUTPUT[record.kind], CUDA, _BOUND_SIZES[-1])
        if on_gpu
        else None,
        piece_rows=0 if on_gpu else _PIECE_ROWS * threads,
    )
    _check_inputs(model)
    try:
        if reasons and record.kind == CLASSIFIER:
            model = _with_reasons(model, threads)
        # The buffers of all sizes are made now, not at somebody's request.
        for rows in (*_BOUND_SIZES, *_WARM_UP_ROWS) if on_gpu else _WARM_UP_ROWS:
            _check_answer(model, rows)
            _check_reasons(model, rows)
        started = time.perf_counter()
        _check_answer(model, rows)
        took = time.perf_counter() - started
        started = time.perf_counter()
        if model.explainer is not None:
            model.run_explained(_trial_rows(model, rows))
        explained = time.perf_counter() - started
    except (RegistryError, DeviceError):
        raise
    except Exception as error:
        raise _failure(version, provider, f"does not run: {_brief(error)}") from error
    return replace(model, seconds_per_row=took / rows, explained_seconds_per_row=explained / rows)


def _with_reasons(model: LoadedModel, threads: int) -> LoadedModel:
    """Return ``model`` with its reason codes loaded, if it was registered with any."""
    explainer = open_explainer(
        model.version, model.provider, threads, model.vocabulary.fields, _BOUND_SIZES[-1]
    )
    return replace(model, explainer=explainer)


def _file(version: Version, precision: str) -> str:
    if precision == "fp32":
        return MODEL
    if MODEL_INT8 not in version.manifest.files:
        raise ConfigurationError(
            f"{version.tag} has no int8 variant (its export found that it ranks otherwise, or it "
            "is older than they are); set CIPHERSCORE_PRECISION=fp32 or export it again"
        )
    return MODEL_INT8


def _check_inputs(model: LoadedModel) -> None:
    found = {item.name: item.type for item in model.session.get_inputs()}
    if found != _INPUTS[model.kind]:
        raise IntegrityError(f"{model.tag} takes {found}, a {model.kind} {_INPUTS[model.kind]}")
    if _OUTPUT[model.kind] not in {item.name for item in model.session.get_outputs()}:
        raise IntegrityError(f"{model.tag} has no output {_OUTPUT[model.kind]!r}")


def _check_answer(model: LoadedModel, rows: int) -> None:
    sizes = np.array(model.vocabulary.sizes)
    if model.kind == CLASSIFIER:
        indices = _trial_rows(model, rows)
        answer = model.run({"indices": indices})
        good = answer.shape == (rows,) and answer.dtype == np.float32
        good = good and bool(((answer >= 0) & (answer <= 1)).all())
    else:
        width = model.record.noise_width or 0
        noise = np.random.default_rng(0).standard_normal((rows, width), dtype=np.float32)
        answer = model.run({"noise": noise, "credit_class": np.arange(rows, dtype=np.int32) % 2})
        good = answer.shape == (rows, len(sizes)) and answer.dtype == np.int32
        good = good and bool(((answer >= 0) & (answer < sizes)).all())
    if not good:
        raise IntegrityError(
            f"{model.tag} gave {answer.dtype} {list(answer.shape)} for {rows} rows, or values "
            "outside their range; it does not fit its vocabulary"
        )


def _check_reasons(model: LoadedModel, rows: int) -> None:
    if model.explainer is not None:
        indices = _trial_rows(model, rows)
        # The int8 variant's answers are near those that the reasons explain, not equal to them.
        answer = model.run({"indices": indices}) if model.precision == "fp32" else None
        on_gpu = model.provider.name == CUDA
        check_explained(model.tag, model.explainer, indices, answer, on_gpu=on_gpu)


def _trial_rows(model: LoadedModel, rows: int) -> np.ndarray:
    """Return int32 [rows, fields] that go through each field's tokens."""
    sizes = np.array(model.vocabulary.sizes)
    indices: np.ndarray = (np.arange(rows)[:, None] % sizes[None, :]).astype(np.int32)
    return indices


def _failure(version: Version, provider: Provider, text: str) -> Exception:
    # On a GPU the card is the likelier cause, and the CPU may still do.
    kind = DeviceError if provider.name == CUDA else IntegrityError
    return kind(f"{version.tag} {text}")


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {gpu_wheels.cause(str(error))}"
