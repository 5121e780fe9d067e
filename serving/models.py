"""A version loaded into ONNX Runtime, tried once before it is served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cipherscore.errors import DeviceError, IntegrityError, RegistryError
from cipherscore.schema import PublicSchema
from cipherscore.vocabulary import Vocabulary
from registry.version import CLASSIFIER, MODEL, Version, VersionRecord
from serving.providers import CUDA, Provider, open_session

if TYPE_CHECKING:
    import onnxruntime

_WARM_UP_ROWS = (1, 2, 64)
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
    """

    version: Version
    record: VersionRecord
    schema: PublicSchema
    vocabulary: Vocabulary
    provider: Provider
    notice: str
    session: onnxruntime.InferenceSession = field(repr=False)

    @property
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
        answer: np.ndarray = self.session.run([_OUTPUT[self.kind]], inputs)[0]
        return answer


def load(version: Version, provider: Provider, threads: int, notice: str = "") -> LoadedModel:
    """Load ``version`` from checked bytes, warm it up and test its answers' form.

    Raises:
        IntegrityError: The version is damaged, or the model does not do what its record says.
        DeviceError: The provider does not run it.
    """
    record = version.record
    content = version.read(MODEL)
    try:
        session = open_session(content, provider.name, threads)
    except DeviceError:
        raise
    except Exception as error:
        raise _failure(version, provider, f"does not load: {_brief(error)}") from error
    model = LoadedModel(
        version, record, version.schema(), version.vocabulary(), provider, notice, session
    )
    _check_inputs(model)
    try:
        for rows in _WARM_UP_ROWS:
            _check_answer(model, rows)
    except RegistryError:
        raise
    except Exception as error:
        raise _failure(version, provider, f"does not run: {_brief(error)}") from error
    return model


def _check_inputs(model: LoadedModel) -> None:
    found = {item.name: item.type for item in model.session.get_inputs()}
    if found != _INPUTS[model.kind]:
        raise IntegrityError(f"{model.tag} takes {found}, a {model.kind} {_INPUTS[model.kind]}")
    if _OUTPUT[model.kind] not in {item.name for item in model.session.get_outputs()}:
        raise IntegrityError(f"{model.tag} has no output {_OUTPUT[model.kind]!r}")


def _check_answer(model: LoadedModel, rows: int) -> None:
    sizes = np.array(model.vocabulary.sizes)
    if model.kind == CLASSIFIER:
        indices = (np.arange(rows)[:, None] % sizes[None, :]).astype(np.int32)
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


def _failure(version: Version, provider: Provider, text: str) -> Exception:
    # On a GPU the card is the likelier cause, and the CPU may still do.
    kind = DeviceError if provider.name == CUDA else IntegrityError
    return kind(f"{version.tag} {text}")


def _brief(error: Exception) -> str:
    lines: Any = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"
