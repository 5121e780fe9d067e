"""Run folder: what one finished training leaves on disk, for both kinds of model.

::

    <run>/run.json               facts of the training: `Run`
    <run>/vocabulary.json        token -> column of each field
    <run>/weights.pt             classifier: tensors only, read with ``weights_only=True``
    <run>/generator.weights.npz  generator: plain arrays
    <run>/checkpoint.*           only while the training is unfinished

``run.json`` is written last, so a folder that has one holds a complete training.  Nothing here can
run code when it is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from cipherscore.dataset import TEST, TokenDataset
from cipherscore.errors import DataError, SchemaError, TrainingError
from cipherscore.files import write_bytes, write_json
from cipherscore.schema import PublicSchema
from cipherscore.vocabulary import Vocabulary

ModelKind = Literal["classifier", "generator"]

RUN_FILE = "run.json"
VOCABULARY_FILE = "vocabulary.json"
WEIGHTS_FILES: Mapping[str, str] = {
    "classifier": "weights.pt",
    "generator": "generator.weights.npz",
}
FORMAT = 1


@dataclass(frozen=True)
class Run:
    """Facts of one finished training.

    Args:
        folder: Where the run lies; not stored in the file.
        kind: Which of the two models it trained.
        preset: Name of the parameter set.
        seed: Seed of everything random in the training.
        model_name: Name in the registry, such as ``german-credit-classifier``.
        key_id: Key the training tokens were made under.
        schema: What the host knows of the table.
        dataset_digest: SHA-256 of the training file.
        vocabulary_digest: `Vocabulary.digest`.
        class_prior: Share of bad credits among the rows the model learned from.
        threshold: Classifier: lowest probability that is decided "bad".
        noise_width: Generator: columns of its noise input.
        metrics: Nested numbers, by data part.
        started: UTC, ISO 8601.
        finished: UTC, ISO 8601.
        code_version: Version of the code that trained.
    """

    folder: Path
    kind: ModelKind
    preset: str
    seed: int
    model_name: str
    key_id: str
    schema: PublicSchema
    dataset_digest: str
    vocabulary_digest: str
    class_prior: float
    threshold: float | None = None
    noise_width: int | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    started: str = ""
    finished: str = ""
    code_version: str = ""

    @property
    def weights_path(self) -> Path:
        """File of the trained weights."""
        return self.folder / WEIGHTS_FILES[self.kind]

    def vocabulary(self) -> Vocabulary:
        """Read the run's vocabulary.

        Raises:
            TrainingError: The file is missing or is not the one the model was trained with.
        """
        path = self.folder / VOCABULARY_FILE
        try:
            vocabulary = Vocabulary.from_json(path.read_text(encoding="utf-8"))
        except (OSError, DataError) as error:
            raise TrainingError(f"{path}: the run's vocabulary cannot be read: {error}") from error
        if vocabulary.digest != self.vocabulary_digest:
            raise TrainingError(f"{path}: not the vocabulary this run was trained with")
        return vocabulary

    def save(self, vocabulary: Vocabulary) -> Run:
        """Write vocabulary and facts atomically, after the weights; stamp the finish time.

        Raises:
            TrainingError: The vocabulary is another one, or the weights are not written yet.
        """
        if vocabulary.digest != self.vocabulary_digest:
            raise TrainingError("a run is saved with the vocabulary it was trained with")
        if not self.weights_path.is_file():
            raise TrainingError(f"{self.weights_path}: write the weights before the run's facts")
        finished = Run(**{**self.__dict__, "finished": utc_now(), "code_version": code_version()})
        write_bytes(self.folder / VOCABULARY_FILE, vocabulary.to_json().encode())
        content = asdict(finished)
        del content["folder"]
        content["schema"] = json.loads(self.schema.to_json())
        write_json(self.folder / RUN_FILE, {"format": FORMAT, **content})
        return finished

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Read the facts of a finished run.

        Raises:
            TrainingError: There is no finished run, or its file is damaged.
        """
        path = folder / RUN_FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("format") != FORMAT:
                raise TrainingError(f"{path}: written by another version; train again")
            schema = PublicSchema.from_json(json.dumps(content.pop("schema")))
            return cls(folder=folder, schema=schema, **content)
        except FileNotFoundError:
            raise TrainingError(
                f"{folder}: no finished training here; run `cipherscore train`"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SchemaError) as error:
            raise TrainingError(f"{path}: damaged ({type(error).__name__}); train again") from error


def finished_run(
    folder: Path, kind: ModelKind, preset: str, seed: int, dataset_digest: str
) -> Run | None:
    """Return the finished run in ``folder`` if it came from exactly these inputs, else nothing.

    A damaged run counts as unfinished: training again replaces it.
    """
    try:
        run = Run.load(folder)
        run.vocabulary()
    except TrainingError:
        return None
    wanted = (kind, preset, seed, dataset_digest)
    same = (run.kind, run.preset, run.seed, run.dataset_digest) == wanted
    return run if same and run.weights_path.is_file() else None


def start_run(
    dataset: TokenDataset,
    vocabulary: Vocabulary,
    folder: Path,
    kind: ModelKind,
    preset: str,
    seed: int,
) -> Run:
    """Return the facts known when a training starts.

    An earlier ``run.json`` in ``folder`` is removed: it describes weights about to be replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RUN_FILE).unlink(missing_ok=True)
    return Run(
        folder=folder,
        kind=kind,
        preset=preset,
        seed=seed,
        model_name=f"{dataset.schema.name}-{kind}",
        key_id=dataset.key_id,
        schema=dataset.schema,
        dataset_digest=dataset.digest,
        vocabulary_digest=vocabulary.digest,
        class_prior=float(dataset.label[dataset.split != TEST].mean()),
        started=utc_now(),
    )


def utc_now() -> str:
    """Return the time in UTC as ISO 8601 with seconds."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@cache
def code_version() -> str:
    """Return the package version and a digest of the training sources, ``0.1.0+src.0123456789ab``.

    The digest tells versions of an uncommitted or edited checkout apart.
    """
    try:
        version = metadata.version("cipherscore")
    except metadata.PackageNotFoundError:
        version = "0"
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    return f"{version}+src.{digest.hexdigest()[:12]}"
