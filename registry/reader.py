"""Reading a registry: names, versions, stages and history.  Takes no lock and writes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cipherscore.errors import IntegrityError, VersionNotFound
from registry import bento, locking, names
from registry.stages import Change, StageFile, Stages
from registry.version import Version


@dataclass(frozen=True)
class Staged:
    """What is in use under one model name, all from one reading of its stage file.

    Attributes:
        production: Version in production.
        canary: Version that gets ``percent`` of the requests.
        percent: 0 without a canary.
        shadow: Version that gets a copy of the requests.
        changed: UTC time of the last change (ISO 8601); empty before the first.

    A version may have been deleted behind the registry's back; reading or verifying it then raises
    `IntegrityError`.
    """

    production: Version | None
    canary: Version | None
    percent: float
    shadow: Version | None
    changed: str


class Reader:
    """Models by name, each with immutable versions of which at most one is in production.

    Args:
        home: BentoML's home; default ``BENTOML_HOME``, else ``~/bentoml``.
    """

    def __init__(self, home: Path | None = None) -> None:
        self.home = bento.default_home() if home is None else Path(home)
        self._models = bento.models_folder(self.home)
        self._own = self.home / "cipherscore"

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
        """Return past changes of stages and removals, the oldest first."""
        return self._state(names.check_name(name)).changes

    def verify(self, tag: str) -> Version:
        """Hash every file of a version again and return the version.

        Raises:
            IntegrityError: It is damaged.
            VersionNotFound: There is no such version.
        """
        return self.get(tag).verify()

    def staged(self, name: str) -> Staged:
        """Return what is in use under ``name``; nothing for an unknown name.

        Raises:
            RegistryError: ``name`` is no model name.
            IntegrityError: The model's stage file is damaged.
        """
        stages = self._state(names.check_name(name))

        def found(version: str | None) -> Version | None:
            return None if version is None else self._version(name, version, stages)

        return Staged(
            found(stages.production),
            found(stages.canary),
            stages.percent or 0.0,
            found(stages.shadow),
            stages.changes[-1].at if stages.changes else "",
        )

    def stamp(self, name: str) -> object:
        """Return a value that differs from the last one when the stages of ``name`` changed.

        It costs one ``stat``, so that a server can ask often.  For a moment after a change it may
        differ without another one.

        Raises:
            RegistryError: ``name`` is no model name, or the file cannot be looked at.
        """
        with locking.os_errors(f"cannot look at the stages of {name!r}"):
            return self._stage_file(names.check_name(name)).stamp()

    def stamp_of_all(self) -> object:
        """Return a value that differs from the last one when the stages of any model changed.

        As `stamp`.

        Raises:
            RegistryError: The folder cannot be looked at.
        """
        with locking.os_errors("cannot look at the stages"):
            return StageFile(self._own / "stages").stamp()

    # ---- inside

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
