"""Which model versions to serve.  Reads the registry, loads no model.

From source: the production version of each kind, and if that one is damaged the one that was in
production before.  Inside a built Bento: exactly the versions recorded in its ``bento.yaml``,
whatever has been promoted since.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cipherscore.errors import (
    CipherScoreError,
    ConfigurationError,
    IntegrityError,
    RegistryError,
    VersionNotFound,
)
from registry import names
from registry.store import Registry
from registry.version import KINDS, Version, open_version
from serving.settings import PREFIX, Settings

logger = logging.getLogger("bentoml.cipherscore")

NOTHING = (
    "no model is in production in {home}; promote one with "
    "`cipherscore models promote NAME:VERSION` (`cipherscore models list` shows them), "
    "or train, export and promote with `make run`"
)


@dataclass(frozen=True)
class Candidate:
    """A version that may be served.

    ``notice`` says why it is not the first choice, if it is not; ``required`` says that nothing
    else may stand in for it.
    """

    kind: str
    version: Version
    notice: str = ""
    required: bool = False


def bento_root(here: Path = Path(__file__)) -> Path | None:
    """Return the folder of the built Bento this file lies in, or None when run from source."""
    source = here.resolve().parents[1]
    built = source.name == "src" and (source.parent / "bento.yaml").is_file()
    return source.parent if built else None


def candidates(settings: Settings, kind: str) -> Iterator[Candidate]:
    """Yield the versions of ``kind`` that may be served, the best first; damaged ones are left out.

    Raises:
        ConfigurationError: Several models of this kind are in production and none is chosen, or
            the chosen one does not exist.
        IntegrityError: The version that must be served (built Bento, or set by tag) is damaged.
    """
    root = bento_root()
    if root is not None:
        yield from _from_bento(root, kind)
        return
    registry = Registry()
    chosen = name_of(settings, registry, kind)
    if not chosen:
        return
    if ":" in chosen:
        version = check_kind(_found(registry, chosen).verify(), kind)
        yield Candidate(kind, version, required=True)
        return
    yield from _from_production(registry, chosen, kind)


def extras(settings: Settings) -> Iterator[Candidate]:
    """Yield the further versions that were set.

    Raises:
        ConfigurationError: One does not exist, or this is a built Bento, which has its own only.
        IntegrityError: One is damaged.
    """
    if settings.extra_models and is_built():
        raise ConfigurationError(
            f"{PREFIX}EXTRA_MODELS is set, but the versions of a built Bento are fixed"
        )
    for tag in settings.extra_models:
        try:
            names.full_tag(tag)
        except RegistryError as error:
            raise ConfigurationError(f"{PREFIX}EXTRA_MODELS: {error}") from error
        version = _found(Registry(), tag).verify()
        yield Candidate(version.record.kind, version, required=True)


def is_built() -> bool:
    """Return whether this is a built Bento, whose versions are fixed."""
    return bento_root() is not None


def is_fixed(settings: Settings, kind: str) -> bool:
    """Return whether the version of ``kind`` is fixed: a built Bento, or set as name:version."""
    return is_built() or ":" in settings.model_of(kind)


def name_of(settings: Settings, registry: Registry, kind: str) -> str:
    """Return the name of the model to serve; empty while none is in production.

    Raises:
        ConfigurationError: There are several.
    """
    return settings.model_of(kind) or _only_name(registry, kind)


def kind_of(tag: str) -> str:
    """Return the kind of a version, or if it is gone by now, of what has its name.

    Raises:
        IntegrityError: Neither can be found.
    """
    with suppress(RegistryError):
        return reopen(tag).record.kind
    kind = "" if is_built() else _kind_of(Registry(), tag.partition(":")[0])
    if not kind:
        raise IntegrityError(f"{tag} is gone or damaged")
    return kind


def choose(settings: Settings) -> tuple[Candidate, ...]:
    """Return the best version of each kind that has one.

    Raises:
        ConfigurationError: There is none at all, or see `candidates`.
        IntegrityError: See `candidates`.
    """
    chosen = [next(candidates(settings, kind), None) for kind in KINDS]
    found = tuple(candidate for candidate in chosen if candidate is not None)
    if not found:
        raise ConfigurationError(NOTHING.format(home=Registry().home))
    return found


def reopen(tag: str) -> Version:
    """Return the version ``tag`` that `candidates` yielded, perhaps in another process.

    Raises:
        RegistryError: It is gone.
        ConfigurationError: The versions of this Bento are.
    """
    root = bento_root()
    if root is None:
        return Registry().get(tag)
    for version in _bento_versions(root):
        if version.tag == tag:
            return version
    raise VersionNotFound(f"this Bento was built without {tag}")


def _from_production(registry: Registry, name: str, kind: str) -> Iterator[Candidate]:
    notice = ""
    for version in _in_order(registry, name):
        if _is_whole(version):
            yield Candidate(kind, check_kind(version, kind), notice)
        else:
            notice = notice or f"the production version {version.tag} is damaged and was refused"


def _is_whole(version: Version) -> bool:
    try:
        version.verify()
    except IntegrityError as error:
        log_refusal(version, error)
        return False
    return True


def log_refusal(version: Version, error: CipherScoreError) -> None:
    """Log that ``version`` is not served; where that was found is of no interest."""
    logger.error("refused %s: %s", version.tag, error)


def _in_order(registry: Registry, name: str) -> Iterator[Version]:
    """Yield the production version, then the ones before, most recent first."""
    production = _found(registry, name)
    yield production
    yield from registry.previous(name)


def _found(registry: Registry, tag: str) -> Version:
    try:
        return registry.get(tag)
    except VersionNotFound as error:
        raise ConfigurationError(str(error)) from error


def check_kind(version: Version, kind: str) -> Version:
    """Return ``version`` if it is of ``kind``.  Raises: ConfigurationError."""
    if version.record.kind != kind:
        raise ConfigurationError(f"{version.tag} is a {version.record.kind}, not a {kind}")
    return version


def _only_name(registry: Registry, kind: str) -> str:
    """Return the only model name with a production version of ``kind``, or an empty text."""
    found = [name for name in registry.names() if _kind_of(registry, name) == kind]
    if len(found) > 1:
        raise ConfigurationError(
            f"several {kind}s are in production ({', '.join(found)}); "
            f"choose one with {PREFIX}{kind.upper()}"
        )
    return found[0] if found else ""


def _kind_of(registry: Registry, name: str) -> str:
    """Return the kind of what is in production under ``name``; empty when nothing is."""
    try:
        versions: Sequence[Version] = (registry.production(name), *registry.previous(name))
    except VersionNotFound:
        return ""
    except RegistryError as error:
        logger.error("model %s is left out: %s", name, error)  # noqa: TRY400 - the text says all
        return ""
    for version in versions:
        with suppress(IntegrityError):
            return version.record.kind
    # Every record is damaged; the name still says the kind, so that the notice reaches its users.
    return next((kind for kind in KINDS if name.endswith(f"-{kind}")), "")


def _from_bento(root: Path, kind: str) -> Iterator[Candidate]:
    for version in _bento_versions(root):
        if version.record.kind == kind:
            yield Candidate(kind, version.verify(), required=True)
            return


def _bento_versions(root: Path) -> tuple[Version, ...]:
    """Return the versions recorded in the Bento's ``bento.yaml``.

    In a container they lie in the Bento itself, otherwise in the model store it was built from.
    """
    # Importing BentoML takes a second; the registry's readers do without.
    from bentoml import Bento  # noqa: PLC0415

    tags = [info.tag for info in Bento.from_path(str(root)).info.all_models]
    inside = root / "models"
    folder = inside if inside.is_dir() and any(inside.iterdir()) else Registry().home / "models"
    versions = []
    for tag in tags:
        path = folder / tag.name / str(tag.version)
        if not path.is_dir():
            raise ConfigurationError(f"this Bento was built with {tag}, which is not in {folder}")
        versions.append(open_version(path))
    return tuple(versions)
