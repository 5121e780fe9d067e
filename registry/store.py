"""The registry: register, promote, roll back, verify and remove model versions.

Below BentoML's home::

    models/<name>/<version>/       one immutable version, also an ordinary BentoML model
        model.onnx  vocabulary.json  schema.json  metrics.json  lineage.json
        manifest.json              hashes of all of it
        model.yaml                 BentoML's own description
    cipherscore/stages/<name>.json which version is in production, beside it, and which were before
    cipherscore/locks/<name>.lock  held by the one process that changes the model
    cipherscore/work/              versions being written or removed; never visible as versions

Readers take no lock and write nothing, so a registry may be mounted read-only for serving.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from cipherscore.errors import RegistryError, VersionNotFound
from registry import bento, building, locking, names
from registry.reader import Reader
from registry.stages import Stage, StageFile, Stages, is_percent
from registry.version import Version, VersionRecord


class Registry(Reader):
    """A registry that can also be changed.

    Every method that changes something is atomic (a process killed at any moment leaves the state
    before or the state after) and safe with several writers.  When the disk is full or the home
    cannot be written, it raises `RegistryError` and leaves the state before.
    """

    def register(
        self, name: str, files: Mapping[str, Path | bytes], record: VersionRecord
    ) -> Version:
        """Store a new version as a candidate.

        Args:
            name: Model name.
            files: File name to its source: a path or the content.  Needs ``model.onnx``,
                ``vocabulary.json`` and ``schema.json``; more are allowed.
            record: What the version is; becomes ``lineage.json`` and ``metrics.json``.

        Raises:
            RegistryError: Bad name, file or record, or it cannot be stored (disk full).
        """
        names.check_name(name)
        building.check_file_names(files)
        with (
            locking.os_errors(f"cannot register a version of {name!r}"),
            locking.work_folder(self._own / "work") as work,
        ):
            folder = work / "version"
            record = building.start(folder, files, record)
            return self._publish(name, folder, record)

    def promote(
        self, tag: str, stage: Stage = Stage.PRODUCTION, percent: float | None = None
    ) -> Version:
        """Verify a version and put it into production, or beside it as canary or shadow.

        The version that was in production becomes archived; one that was canary or shadow becomes
        what it was before.  A version promoted from canary or shadow is that no longer.

        Args:
            tag: ``name:version``.
            stage: Production, canary or shadow.
            percent: Share of the requests a canary gets, above 0 and at most 100.

        Raises:
            IntegrityError: The version is damaged; the stages stay as they are.
            VersionNotFound: There is no such version.
            RegistryError: ``tag`` names no version, the stage or share is none, nothing is in
                production that a canary or shadow could stand beside, or the change cannot be
                written.
        """
        name, version = names.full_tag(tag)
        _check_share(stage, percent)
        self._check_known(name)
        with self._changing(name, f"cannot promote {tag}") as file:
            stages = self._state(name)
            chosen = self._find(name, version, stages).verify()
            moved = _moved(stages, chosen, stage, percent)
            if moved is not stages:
                stages = moved.pinned(chosen.version, chosen.digest)
                file.save(stages)
            return self._version(name, chosen.version, stages)

    def unstage(self, name: str, stage: Stage) -> Version:
        """End the canary or the shadow of a model; return the version it was.

        Raises:
            VersionNotFound: There is none.
            RegistryError: ``stage`` is neither of the two, or the change cannot be written.
        """
        names.check_name(name)
        if stage not in (Stage.CANARY, Stage.SHADOW):
            raise RegistryError("only a canary or a shadow can be unstaged")
        self._check_known(name)
        with self._changing(name, f"cannot unstage the {stage} of {name!r}") as file:
            stages = self._state(name)
            version = stages.canary if stage is Stage.CANARY else stages.shadow
            if version is None:
                raise VersionNotFound(f"{name!r} has no {stage}")
            stages = stages.unstaged(version)
            file.save(stages)
            return self._version(name, version, stages)

    def rollback(self, name: str) -> Version:
        """Verify the previous production version and put it back into production.

        Raises:
            IntegrityError: That version is damaged or gone; production stays as it is.
            VersionNotFound: There is no previous production version.
            RegistryError: The change cannot be written.
        """
        names.check_name(name)
        self._check_known(name)
        with self._changing(name, f"cannot roll back {name!r}") as file:
            stages = self._state(name)
            if not stages.previous:
                raise VersionNotFound(f"{name!r} has no previous production version to return to")
            self._existing(name, stages.previous[-1], stages).verify()
            stages = stages.rolled_back()
            file.save(stages)
            return self._existing(name, stages.production or "", stages)

    def remove(self, tag: str) -> None:
        """Delete a version that is not in use.

        Raises:
            RegistryError: It is in production, canary or shadow, ``tag`` names no version, or it
                cannot be deleted.
            VersionNotFound: There is no such version.
        """
        name, version = names.full_tag(tag)
        self._check_known(name)
        with self._changing(name, f"cannot remove {tag}") as file:
            stages = self._state(name)
            gone = self._find(name, version, stages)
            if gone.version == stages.production:
                raise RegistryError(f"{gone.tag} is in production; promote another version first")
            if gone.stage in (Stage.CANARY, Stage.SHADOW):
                raise RegistryError(
                    f"{gone.tag} is the {gone.stage}; end that first with "
                    f"`cipherscore models unstage {name} --stage {gone.stage}`"
                )
            with locking.work_folder(self._own / "work") as work:
                # The rename decides; the mark tells a later reader that it was meant.
                file.save(stages.marked(gone.version))
                gone.path.rename(work / "removed")
                with suppress(OSError):
                    file.save(stages.without(gone.version))
                self._settle(name)

    # ---- inside

    def _publish(self, name: str, folder: Path, record: VersionRecord) -> Version:
        """Give the files in ``folder`` a version id and make them visible with one rename."""
        with self._changing(name, f"cannot register a version of {name!r}") as file:
            stages = self._state(name)
            existing = self._version_ids(name)
            version = names.new_version(existing[-1] if existing else None)
            digest = building.finish(folder, name, version, record)
            # The digest first, so that no version is ever visible without it; a digest whose
            # version never came is dropped by the next registration.
            stages = stages.pruned(frozenset(existing)).pinned(version, digest)
            file.save(stages)
            target = self._models / name / version
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                folder.rename(target)
            except OSError:
                with suppress(OSError):
                    target.parent.rmdir()
                raise
            self._settle(name)
            return self._version(name, version, stages)

    def _settle(self, name: str) -> None:
        """After a version came or went: make that durable and ``name:latest`` right.

        The change has happened by now, so what fails here is no reason to report it as refused.
        BentoML makes its ``latest`` file again when it needs it.
        """
        folder, left = self._models / name, self._version_ids(name)
        with suppress(OSError):
            locking.fsync_folder(folder)
            locking.fsync_folder(self._models)
            bento.point_latest(folder, left[-1] if left else None)
        if not left:
            with suppress(OSError):
                folder.rmdir()

    @contextmanager
    def _changing(self, name: str, failure: str) -> Iterator[StageFile]:
        """Hold the model's lock; what the operating system refuses becomes a `RegistryError`."""
        with locking.os_errors(failure), locking.exclusive(self._own / "locks" / f"{name}.lock"):
            yield self._stage_file(name)


def _check_share(stage: Stage, percent: float | None) -> None:
    if stage not in (Stage.PRODUCTION, Stage.CANARY, Stage.SHADOW):
        raise RegistryError(f"a version cannot be promoted to {stage}")
    if stage is not Stage.CANARY:
        if percent is not None:
            raise RegistryError("only a canary has a share of the requests")
    elif percent is None or not is_percent(percent):
        raise RegistryError("a canary needs its share in percent, above 0 and at most 100")


def _moved(stages: Stages, chosen: Version, stage: Stage, percent: float | None) -> Stages:
    """Return the state with ``chosen`` in ``stage``, or ``stages`` itself if it is there."""
    version = chosen.version
    if stage is Stage.PRODUCTION:
        return stages if stages.production == version else stages.promoted(version)
    if stages.production is None:
        raise RegistryError(f"{chosen.tag} cannot be a {stage}: no version is in production")
    if stages.production == version:
        raise RegistryError(f"{chosen.tag} cannot be a {stage}: it is in production")
    if percent is not None:
        same = (stages.canary, stages.percent) == (version, percent)
        return stages if same else stages.with_canary(version, float(percent))
    return stages if stages.shadow == version else stages.with_shadow(version)
