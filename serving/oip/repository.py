"""Facts about the served models in the protocol's words, and loading and unloading."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

from cipherscore.errors import UnknownModel
from registry.version import CLASSIFIER, GENERATOR, KINDS
from serving.models import LoadedModel
from serving.oip import generating, scoring
from serving.oip.protocol import wanted
from serving.oip.tensors import INDICES, TOKENS

if TYPE_CHECKING:
    from serving.lineup import Lineup

SERVER = "cipherscore"
PLATFORM, BACKEND = "onnxruntime_onnx", "onnxruntime"
EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "parameters")
READY = "READY"
_VARIES = -1
_CONFIG_TYPES = {
    "BYTES": "TYPE_STRING",
    "FP32": "TYPE_FP32",
    "INT32": "TYPE_INT32",
    "INT64": "TYPE_INT64",
}


class Repository:
    """The models a server has.

    Args:
        lineup: The live versions.
    """

    def __init__(self, lineup: Lineup) -> None:
        self._lineup = lineup

    @property
    def ready(self) -> bool:
        """Whether the server answers requests."""
        return self._lineup.ready

    def server_metadata(self) -> dict[str, Any]:
        """Return the server's name, version and extensions."""
        return {"name": SERVER, "version": _installed_version(), "extensions": list(EXTENSIONS)}

    def model_ready(self, name: str, version: str) -> bool:
        """Return whether requests for this model are answered."""
        return bool(self._found(name, version))

    def ready_facts(self, name: str, version: str) -> dict[str, Any]:
        """Return that a model is ready.

        Raises:
            UnknownModel: It is not served.
        """
        return {"name": self._models(name, version)[0].version.name, "ready": True}

    def generates(self, name: str, version: str) -> bool:
        """Return whether this is a generator; no served model is none."""
        return any(model.kind == GENERATOR for model in self._found(name, version))

    def model_metadata(self, name: str, version: str) -> dict[str, Any]:
        """Return a model's versions, inputs and outputs; inputs are alternatives or optional.

        Raises:
            UnknownModel: It is not served.
        """
        models = self._models(name, version)
        inputs, outputs = _tensors(models[0])
        return {
            "name": models[0].version.name,
            "versions": [model.version.version for model in models],
            "platform": PLATFORM,
            "inputs": inputs,
            "outputs": outputs,
        }

    def model_config(self, name: str, version: str) -> dict[str, Any]:
        """Return what is needed to know how to ask a model, in the form of a configuration file.

        Raises:
            UnknownModel: It is not served.
        """
        model = self._models(name, version)[0]
        inputs, outputs = _tensors(model)
        return {
            "name": model.version.name,
            "platform": PLATFORM,
            "backend": BACKEND,
            # Shapes are whole: the number of rows is one of their sizes.
            "max_batch_size": 0,
            "input": [{**_config(tensor), "optional": True} for tensor in inputs],
            "output": [_config(tensor) for tensor in outputs],
            "model_transaction_policy": {"decoupled": model.kind != CLASSIFIER},
        }

    async def index(self, *, only_ready: bool = False) -> list[dict[str, str]]:
        """Return the repository's model versions; those that are served are ready.

        Raises:
            ModelUnavailable: The repository cannot be read.
        """
        return [
            {
                "name": entry.name,
                "version": entry.version,
                "state": entry.state,
                "reason": entry.reason,
            }
            for entry in await self._lineup.index()
            if entry.state == READY or not only_ready
        ]

    async def load(self, name: str) -> None:
        """Load a version.

        Raises:
            RequestError: It cannot be loaded.
        """
        await self._lineup.load(name)

    async def unload(self, name: str) -> None:
        """Stop serving a version.

        Raises:
            RequestError: It is not served, or is in production.
        """
        await self._lineup.unload(name)

    def _models(self, name: str, version: str) -> Sequence[LoadedModel]:
        found = self._found(name, version)
        if not found:
            raise UnknownModel("the server serves no model of this name and version", field="model")
        return found

    def _found(self, name: str, version: str) -> list[LoadedModel]:
        tag = wanted(name, version)
        return [
            served.model
            for kind in KINDS
            for live, _, served in self._lineup.crew(kind)
            if tag in {live, served.model.version.name}
        ]


def _installed_version() -> str:
    """Return this package's version; empty where it runs from its files, as in a Bento."""
    try:
        return metadata.version(SERVER)
    except metadata.PackageNotFoundError:
        return ""


def _tensor(name: str, datatype: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def _tensors(model: LoadedModel) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the model's inputs and outputs."""
    fields = len(model.vocabulary.fields)
    if model.kind == CLASSIFIER:
        # Given only to who asks for it, and not there in every version.
        more = [] if model.explainer is None else list(scoring.ON_REQUEST)
        return (
            [
                _tensor(TOKENS, "BYTES", _VARIES, fields),
                _tensor(INDICES, "INT32", _VARIES, fields),
            ],
            [
                _tensor(scoring.PROBABILITY, "FP32", _VARIES),
                _tensor(scoring.DECISION, "BYTES", _VARIES),
                *[_tensor(name, "FP32", _VARIES, fields) for name in more],
            ],
        )
    return (
        [
            _tensor(generating.COUNT, "INT64", 1),
            _tensor(generating.SEED, "INT64", 1),
            _tensor(generating.CLASS, "BYTES", _VARIES),
            _tensor(generating.NOISE, "FP32", _VARIES, int(model.record.noise_width or 0)),
        ],
        [
            _tensor(TOKENS, "BYTES", _VARIES, fields),
            _tensor(generating.CLASS, "BYTES", _VARIES),
        ],
    )


def _config(tensor: dict[str, Any]) -> dict[str, Any]:
    """Return a tensor as a configuration describes it."""
    return {
        "name": tensor["name"],
        "data_type": _CONFIG_TYPES[tensor["datatype"]],
        "dims": tensor["shape"],
    }
