"""The model of the benchmark: the capstone's network on German Credit's fields, seeded weights.

Untrained, because its cost does not depend on what the weights are; its last layer is rescaled so
that different rows get clearly different probabilities and a wrong answer shows.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.serving.rows import KEY_ID, NAME, SIZES, random_indices, vocabulary
from cipherscore.schema import PublicField, PublicSchema
from export import int8
from export.classifier import to_onnx
from export.onnx_file import IR_VERSION
from registry.store import Registry
from registry.version import MODEL, MODEL_INT8, SCHEMA, VOCABULARY, VersionRecord
from training.network import DenseLayers
from training.presets import CAPSTONE

SEED = 0
SPREAD = 1.5
"""Standard deviation of the logits over random rows."""
SCALING_ROWS = 4096


@dataclass(frozen=True)
class Files:
    """Where the model's parts are.

    Attributes:
        home: BentoML home with the registered version in production.
        fp32: ONNX file.
        int8: Its quantised variant.
        vocabulary: Vocabulary as JSON.
        weights: The layers for the torch peer, as ``.npz``.
    """

    home: Path
    fp32: Path
    int8: Path
    vocabulary: Path
    weights: Path

    def onnx(self, precision: str) -> Path:
        """Return the file of a precision."""
        return {"fp32": self.fp32, "int8": self.int8}[precision]


def network(width: float = 1.0) -> DenseLayers:
    """Return the capstone's network with seeded weights; ``width`` multiplies hidden units."""
    torch.manual_seed(SEED)
    hidden = [max(8, round(units * width)) for units in CAPSTONE.hidden]
    made = DenseLayers(tuple(SIZES.values()), hidden, CAPSTONE.dropout).eval()
    rows = torch.from_numpy(random_indices(SCALING_ROWS, SEED))
    last = made.rest[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        logits = made.member_logits(made.multi_hot(rows))[:, 0]
        factor = SPREAD / float(logits.std())
        last.weight.mul_(factor)
        last.bias.copy_((last.bias - logits.mean()) * factor)
    return made


def make(folder: Path, width: float = 1.0) -> Files:
    """Write the model's files and register them in ``folder``; again: take what is there."""
    files = Files(
        folder / "bentoml", folder / MODEL, folder / MODEL_INT8, folder / VOCABULARY,
        folder / "weights.npz",
    )  # fmt: skip
    done = folder / ".done"
    if done.exists():
        return files
    folder.mkdir(parents=True, exist_ok=True)
    made = network(width)
    files.vocabulary.write_text(vocabulary().to_json())
    _write_weights(made, files.weights)
    exported = to_onnx(made, len(SIZES))
    exported.ir_version = IR_VERSION
    files.fp32.write_bytes(exported.SerializeToString())
    # The project's own quantiser; its judgement by AUC needs a trained model, so only this part.
    int8.write(files.fp32, files.int8, random_indices(SCALING_ROWS, SEED))
    _register(files)
    done.touch()
    return files


def _write_weights(made: DenseLayers, target: Path) -> None:
    layers = [(made.first.T, made.first_bias)]
    layers += [(m.weight, m.bias) for m in made.rest if isinstance(m, torch.nn.Linear)]
    arrays = {"offsets": made.offsets.numpy()}
    for i, (weight, bias) in enumerate(layers):
        arrays[f"weight{i}"] = np.ascontiguousarray(weight.detach().numpy())
        arrays[f"bias{i}"] = bias.detach().numpy()
    np.savez(target, allow_pickle=False, **arrays)


def _register(files: Files) -> None:
    fields = tuple(PublicField(name, "categorical") for name in SIZES)
    digest = hashlib.sha256(b"benchmark").hexdigest()
    schema = PublicSchema(NAME, digest, fields, "risk", 5.0, 1.0)
    record = VersionRecord(
        kind="classifier", key_id=KEY_ID, dataset_digest=digest, code_version="benchmark",
        preset=CAPSTONE.name, seed=SEED, metrics={}, threshold=0.5, class_prior=0.3,
    )  # fmt: skip
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    registry = Registry(files.home)
    contents: dict[str, Path | bytes] = {
        MODEL: files.fp32,
        MODEL_INT8: files.int8,
        VOCABULARY: files.vocabulary,
        SCHEMA: schema.to_json().encode(),
    }
    registry.promote(registry.register(NAME, contents, record).tag)
