"""One stored model version and what is known about it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from cipherscore.errors import CipherScoreError, IntegrityError, RegistryError
from cipherscore.schema import PublicSchema
from cipherscore.tokens import check_key_id
from cipherscore.vocabulary import Vocabulary
from registry import names
from registry.integrity import Manifest, check_files, load_manifest, read_checked
from registry.stages import Stage

CLASSIFIER = "classifier"
GENERATOR = "generator"
KINDS = (CLASSIFIER, GENERATOR)

MODEL = "model.onnx"
MODEL_INT8 = "model.int8.onnx"
"""The quantised variant; a version may lack it."""
REASONS = "reasons.onnx"
"""What each field contributes to a classifier's answer; a version may lack it."""
VOCABULARY = "vocabulary.json"
SCHEMA = "schema.json"
METRICS = "metrics.json"
CARD = "card.md"
"""The model card; versions of earlier releases lack it."""
LINEAGE = "lineage.json"

_Parsed = TypeVar("_Parsed")


@dataclass(frozen=True)
class VersionRecord:
    """What a version is and where it comes from; stored as ``lineage.json`` and ``metrics.json``.

    Args:
        kind: "classifier" or "generator".
        key_id: Id of the key its vocabulary's tokens were made under.
        dataset_digest: SHA-256 of the token dataset it was trained on, hexadecimal.
        code_version: Version of the code that trained it.
        preset: Name of the training preset.
        seed: Seed of the training.
        metrics: Figures from the evaluation; numbers, nested by name.
        parent: Tag ``name:version`` of the version this one was derived from.
        threshold: Classifier: rows with at least this probability of bad credit are decided bad.
        noise_width: Generator: columns of its noise input.
        class_prior: Share of bad credit among the training rows, 0 to 1.
        schema_digest: Filled in from ``schema.json`` at registration; checked if given.
        vocabulary_digest: Filled in from ``vocabulary.json`` at registration; checked if given.

    Raises:
        RegistryError: Unknown kind, bad key id or parent, a figure outside its range, a classifier
            without threshold or a generator without noise width.
    """

    kind: str
    key_id: str
    dataset_digest: str
    code_version: str
    preset: str
    seed: int
    metrics: Mapping[str, Any]
    parent: str | None = None
    threshold: float | None = None
    noise_width: int | None = None
    class_prior: float | None = None
    schema_digest: str = ""
    vocabulary_digest: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise RegistryError(f"unknown model kind {self.kind!r}; known: {', '.join(KINDS)}")
        try:
            check_key_id(self.key_id)
        except CipherScoreError as error:
            raise RegistryError(str(error)) from error
        if self.parent is not None and names.split_tag(self.parent)[1] is None:
            raise RegistryError(f"parent {self.parent!r} names no version")
        for name, share in (("threshold", self.threshold), ("class_prior", self.class_prior)):
            if share is not None and not (math.isfinite(share) and 0 <= share <= 1):
                raise RegistryError(f"{name} {share} is not within 0 and 1")
        if self.kind == CLASSIFIER and self.threshold is None:
            raise RegistryError("a classifier needs a decision threshold")
        if self.kind == GENERATOR and (self.noise_width is None or self.noise_width < 1):
            raise RegistryError("a generator needs a noise width of at least 1")

    def completed(self, schema: PublicSchema, vocabulary: Vocabulary) -> VersionRecord:
        """Return the record with the digests of ``schema`` and ``vocabulary`` filled in.

        Raises:
            RegistryError: Schema, vocabulary and record do not belong together.
        """
        if vocabulary.key_id != self.key_id:
            raise RegistryError(
                f"the vocabulary is under key {vocabulary.key_id}, the record says {self.key_id}"
            )
        if unknown := sorted(set(vocabulary.fields) - {f.name for f in schema.fields}):
            raise RegistryError(f"the vocabulary has fields the schema lacks: {unknown}")
        for name, found in (("schema", schema.digest), ("vocabulary", vocabulary.digest)):
            if getattr(self, f"{name}_digest") not in {"", found}:
                raise RegistryError(f"{name}.json is not the {name} that the record names")
        return replace(self, schema_digest=schema.digest, vocabulary_digest=vocabulary.digest)

    def to_files(self, created: datetime) -> dict[str, bytes]:
        """Return the content of ``lineage.json`` and ``metrics.json``.

        Raises:
            RegistryError: The metrics are not plain finite JSON.
        """
        lineage = {name: value for name, value in asdict(self).items() if name != "metrics"}
        lineage["created"] = created.isoformat()
        try:
            return {LINEAGE: _json(lineage), METRICS: _json(self.metrics)}
        except (TypeError, ValueError) as error:
            raise RegistryError(f"the record is not plain JSON: {error}") from error

    @classmethod
    def from_files(cls, lineage: bytes, metrics: bytes) -> VersionRecord:
        """Read what `to_files` wrote; fields of a newer release are ignored.

        Raises:
            IntegrityError: The bytes are no record.
        """
        try:
            known = {field.name for field in fields(cls)}
            content = {k: v for k, v in json.loads(lineage).items() if k in known}
            return cls(metrics=json.loads(metrics), **content)
        except (ValueError, TypeError, AttributeError, RegistryError) as error:
            raise IntegrityError(f"{LINEAGE} or {METRICS} is not usable: {error}") from error


@dataclass(frozen=True)
class Version:
    """A stored version; its files are read, and checked against the manifest, when asked for.

    ``stage`` is the stage at the time the version was looked up.  ``pinned`` is the digest
    recorded outside the version's folder at registration (None for a copy elsewhere, such as
    inside a built Bento).
    """

    name: str
    version: str
    stage: Stage
    path: Path
    pinned: str | None = None

    @property
    def tag(self) -> str:
        """``name:version``."""
        return f"{self.name}:{self.version}"

    @property
    def created(self) -> datetime:
        """UTC time of registration."""
        return names.created_at(self.version)

    @cached_property
    def manifest(self) -> Manifest:
        """The version's files and their hashes.  Raises: IntegrityError."""
        return load_manifest(self.path, self.name, self.version, self.pinned)

    @property
    def digest(self) -> str:
        """Digest over everything in the version, 64 hexadecimal digits.  Raises: IntegrityError."""
        return self.manifest.digest

    @property
    def onnx_path(self) -> Path:
        """Path of the ONNX file; `read` with `MODEL` gives its checked bytes."""
        return self.path / MODEL

    def verify(self) -> Version:
        """Hash every file again and return this version.

        Raises:
            IntegrityError: A file is missing, changed or foreign, or the manifest was edited.
        """
        # The manifest is read afresh: a cached one would hide an edit made since.
        manifest = load_manifest(self.path, self.name, self.version, self.pinned)
        check_files(self.path, manifest)
        return self

    def read(self, file: str) -> bytes:
        """Return one file's content after checking these very bytes.  Raises: IntegrityError."""
        return read_checked(self.path, self.manifest, file)

    @cached_property
    def record(self) -> VersionRecord:
        """Kind, key id, lineage and metrics.  Raises: IntegrityError."""
        return VersionRecord.from_files(self.read(LINEAGE), self.read(METRICS))

    def vocabulary(self) -> Vocabulary:
        """Return the vocabulary.  Raises: IntegrityError."""
        return _parsed(self.read(VOCABULARY), Vocabulary.from_json, IntegrityError)

    def card(self) -> str:
        """Return the model card, empty where there is none.  Raises: IntegrityError."""
        return self.read(CARD).decode() if CARD in self.manifest.files else ""

    def schema(self) -> PublicSchema:
        """Return what the host may know of the schema.  Raises: IntegrityError."""
        return _parsed(self.read(SCHEMA), PublicSchema.from_json, IntegrityError)


def open_version(path: Path) -> Version:
    """Return the version in a folder ``…/<name>/<version>`` outside a registry (a built Bento).

    Its stage is `Stage.CANDIDATE`: stages belong to a registry, not to a copy.

    Raises:
        RegistryError: The folder's name is no version id, or its parent's no model name.
    """
    name, version = names.check_name(path.parent.name), path.name
    if not names.is_version(version):
        raise RegistryError(f"{version!r} is no version id")
    return Version(name, version, Stage.CANDIDATE, path)


def check_record(record: VersionRecord, schema: bytes, vocabulary: bytes) -> VersionRecord:
    """Return ``record`` completed from the two files that will be stored beside it.

    Raises:
        RegistryError: A file is not what its name says, or they do not belong together.
    """
    return record.completed(
        _parsed(schema, PublicSchema.from_json, RegistryError),
        _parsed(vocabulary, Vocabulary.from_json, RegistryError),
    )


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _parsed(
    content: bytes, parse: Callable[[str], _Parsed], failure: type[RegistryError]
) -> _Parsed:
    """Parse ``content``; what is wrong with it becomes ``failure``."""
    try:
        return parse(content.decode())
    except (UnicodeDecodeError, CipherScoreError) as error:
        raise failure(str(error)) from error
