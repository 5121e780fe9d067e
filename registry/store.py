"""The registry: register, promote, roll back, verify and remove model versions.

Below BentoML's home::

    models/<name>/<version>/       one immutable version, also an ordinary BentoML model
        model.onnx  vocabulary.json  schema.json  metrics.json  lineage.json
        manifest.json              hashes of all of it
        model.yaml                 BentoML's own description
    cipherscore/stages/<name>.json which version is in production, and which were before
    cipherscore/locks/<name>.lock  held by the one process that changes the model
    cipherscore/work/              versions being written or removed; never visible as versions

Readers take no lock and write nothing, so a registry may be mounted read-only for serving.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from cipherscore.errors import IntegrityError, RegistryError, VersionNotFound
from registry import bento, building, locking, names
from registry.stages import Change, StageFile, Stages
from registry.version import Version, VersionRecord


class Registry:
    """Models by name, each with immutable versions of which at most one is in production.

    Args:
        home: BentoML's home; default ``BENTOML_HOME``, else ``~/bentoml``.

    Every method that changes something is atomic (a process killed at any moment leaves the state
    before or the state after) and safe with several writers.  When the disk is full or the home
    cannot be written, it raises `RegistryError` and leaves the state before.
    """

    def __init__(self, home: Path | None = None) -> None:
        self.home = bento.default_home() if home is None else Path(home)
        self._models = bento.models_folder(self.home)
        self._own = self.home / "cipherscore"

    # ---- reading

    def names(self) -> tuple[str, ...]:
        """Return the names of all models with a version, sorted."""
        if not self._models.is_dir():
            return ()
        found = (path.name for path in self._models.iterdir())
        return tuple(
            sorted(name for name in found if names.is_name(name) and self._version_ids(name))
        )

    def versions(self, name: str) -> tuple[Version, ...]:
        """Return all versions of a model, the oldest first; none for an unknown name.

        Raises:
            RegistryError: ``name`` is no model name.
            IntegrityError: The model's stage file is damaged.
        """
        stages = self._state(names.check_name(name))
        return tuple(self._version(name, v, stages) for v in self._version_ids(name))

    def get(self, tag: str) -> Version:
        """Return the version ``name:version``, ``name:latest``, or for ``name`` the production one.

        Raises:
            VersionNotFound: There is no such version.
            RegistryError: ``tag`` is no tag.
            IntegrityError: The model's stage file is damaged, or names a version that is gone.
        """
        name, version = names.split_tag(tag)
        if version is None:
            return self.production(name)
        return self._find(name, version, self._state(name))

    def production(self, name: str) -> Version:
        """Return the version in production.

        Raises:
            VersionNotFound: None is.
            IntegrityError: The stage file is damaged, or names a version that is gone.
        """
        stages = self._state(names.check_name(name))
        while True:
            if stages.production is None:
                raise VersionNotFound(f"no version of {name!r} is in production; promote one")
            try:
                return self._existing(name, stages.production, stages)
            except IntegrityError:
                # Between the two looks another version may have been promoted and this one removed.
                before, stages = stages, self._state(name)
                if stages.production == before.production:
                    raise

    def previous(self, name: str) -> tuple[Version, ...]:
        """Return the versions that were in production before, the most recent first.

        The first is what `rollback` returns to.  A version deleted behind the registry's back is
        left in: reading or verifying it raises `IntegrityError`.
        """
        stages = self._state(names.check_name(name))
        return tuple(self._version(name, v, stages) for v in reversed(stages.previous))

    def changes(self, name: str) -> tuple[Change, ...]:
        """Return past promotions, rollbacks and removals, the oldest first."""
        return self._state(names.check_name(name)).changes

    def verify(self, tag: str) -> Version:
        """Hash every file of a version again and return the version.

        Raises:
            IntegrityError: It is damaged.
            VersionNotFound: There is no such version.
        """
        return self.get(tag).verify()

    # ---- changing

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

    def promote(self, tag: str) -> Version:
        """Verify a version and put it into production; the one there becomes archived.

        Raises:
            IntegrityError: The version is damaged; production stays as it is.
            VersionNotFound: There is no such version.
            RegistryError: ``tag`` names no version, or the change cannot be written.
        """
        name, version = names.full_tag(tag)
        self._check_known(name)
        with self._changing(name, f"cannot promote {tag}") as file:
            stages = self._state(name)
            chosen = self._find(name, version, stages).verify()
            if stages.production != chosen.version:
                stages = stages.pinned(chosen.version, chosen.digest)
                stages = stages.promoted(chosen.version)
                file.save(stages)
            return self._version(name, chosen.version, stages)

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
        """Delete a version that is not in production.

        Raises:
            RegistryError: It is in production, ``tag`` names no version, or it cannot be deleted.
            VersionNotFound: There is no such version.
        """
        name, version = names.full_tag(tag)
        self._check_known(name)
        with self._changing(name, f"cannot remove {tag}") as file:
            stages = self._state(name)
            gone = self._find(name, version, stages)
            if gone.version == stages.production:
                raise RegistryError(f"{gone.tag} is in production; promote another version first")
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

    def _state(self, name: str) -> Stages:
        """Return the model's stages, with a removal that was cut short carried through."""
        stages = self._stage_file(name).load()
        if stages.removing is None:
            return stages
        if stages.removing in self._version_ids(name):
            return stages.marked(None)
        return stages.without(stages.removing)

    def _stage_file(self, name: str) -> StageFile:
        return StageFile(self._own / "stages" / f"{name}.json")

    def _version_ids(self, name: str) -> list[str]:
        """Return the version ids of a model, the oldest first; other BentoML models are skipped."""
        try:
            found = (path.name for path in (self._models / name).iterdir())
            return sorted(version for version in found if names.is_version(version))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _version(self, name: str, version: str, stages: Stages) -> Version:
        return Version(
            name,
            version,
            stages.stage_of(version),
            self._models / name / version,
            stages.digests.get(version),
        )

    def _find(self, name: str, version: str, stages: Stages) -> Version:
        known = self._version_ids(name)
        if version == names.LATEST and known:
            version = known[-1]
        if version not in known:
            raise VersionNotFound(f"no version {name}:{version} in {self._models}")
        return self._version(name, version, stages)

    def _check_known(self, name: str) -> None:
        """Refuse an unknown name before a lock file is made for it."""
        if not self._version_ids(name):
            raise VersionNotFound(f"no model {name!r} in {self._models}")

    def _existing(self, name: str, version: str, stages: Stages) -> Version:
        """Return a version the stage file names, which therefore must be there."""
        if version not in self._version_ids(name):
            raise IntegrityError(
                f"{name}:{version} is gone from {self._models} although it was in production; "
                "restore it, or promote another version"
            )
        return self._version(name, version, stages)
