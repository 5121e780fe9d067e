from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cipherscore.errors import IntegrityError, RegistryError, VersionNotFound
from registry import Registry, Version
from registry.integrity import Manifest, digest_of
from tests.support import registry_samples as samples
from tests.support.registry_samples import NAME

FILES = [
    "model.onnx", "vocabulary.json", "schema.json", "metrics.json", "lineage.json",
    "manifest.json", "model.yaml",
]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with an old and a production version and a candidate that tests damage."""
    registry = Registry(tmp_path_factory.mktemp("home"))
    for number in range(2):
        registry.promote(samples.register(registry, model=bytes([number])).tag)
    samples.register(registry)
    return registry.home


def candidate(home: Path) -> Version:
    return Registry(home).get(f"{NAME}:latest")


def overwrite(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)  # the file itself is read-only
    path.write_bytes(content)


def test_all_files_are_there(home: Path) -> None:
    assert sorted(p.name for p in candidate(home).path.iterdir()) == sorted(FILES)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(file=st.sampled_from(FILES), where=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(home: Path, file: str, where: int, bit: int) -> None:
    version = candidate(home)
    path = version.path / file
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[where % len(flipped)] ^= 1 << bit
    overwrite(path, bytes(flipped))
    try:
        refused(home, version)
    finally:
        overwrite(path, whole)
    version.verify()


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["delete", "empty", "append", "folder", "link"])
def test_damage_is_found_and_production_stays(home: Path, file: str, damage: str) -> None:
    version = candidate(home)
    path = version.path / file
    whole = path.read_bytes()
    if damage in {"empty", "append"}:
        overwrite(path, b"" if damage == "empty" else whole + b"\n")
    else:
        path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "link":
        path.symlink_to("/dev/null")
    try:
        refused(home, version)
    finally:
        if damage == "folder":
            path.rmdir()
        elif path.is_symlink():
            path.unlink()
        overwrite(path, whole)
    version.verify()


def refused(home: Path, version: Version) -> None:
    registry = Registry(home)
    before = registry.production(NAME).tag
    for use in (registry.verify, registry.promote):
        with pytest.raises(IntegrityError, match=version.version):
            use(version.tag)
    assert registry.production(NAME).verify().tag == before
    assert registry.get(version.tag).stage.value == "candidate"


def test_a_foreign_file_is_found(home: Path) -> None:
    version = candidate(home)
    extra = version.path / "extra.bin"
    extra.write_bytes(b"")
    try:
        refused(home, version)
    finally:
        extra.unlink()


def test_a_consistently_rewritten_version_does_not_match_its_registration(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    version = samples.register(registry)
    entries = json.loads((version.path / "manifest.json").read_text())
    old = version.manifest
    files = {**old.files, "model.onnx": old.files["metrics.json"]}
    overwrite(version.path / "model.onnx", (version.path / "metrics.json").read_bytes())
    forged = Manifest(old.name, old.version, files, old.bento)
    overwrite(version.path / "manifest.json", forged.to_bytes())
    assert digest_of(old.name, old.version, files) != entries["digest"]
    with pytest.raises(IntegrityError, match="registration"):
        registry.promote(version.tag)


def test_rollback_refuses_a_damaged_version(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    first, second = samples.register(registry), samples.register(registry)
    registry.promote(first.tag)
    registry.promote(second.tag)
    overwrite(first.onnx_path, b"other")
    with pytest.raises(IntegrityError, match=r"model\.onnx is damaged"):
        registry.rollback(NAME)
    assert registry.production(NAME).tag == second.tag


def test_versions_deleted_behind_the_registrys_back(tmp_path: Path) -> None:
    from bentoml._internal.models.model import ModelStore

    registry = Registry(tmp_path)
    first, second, third = [samples.register(registry) for _ in range(3)]
    registry.promote(first.tag)
    registry.promote(second.tag)
    store = ModelStore(tmp_path / "models")
    store.delete(first.tag)
    with pytest.raises(IntegrityError, match="gone"):
        registry.rollback(NAME)
    assert registry.production(NAME).tag == second.tag
    store.delete(second.tag)
    with pytest.raises(IntegrityError, match="gone"):
        registry.production(NAME)
    assert registry.promote(third.tag).tag == third.tag == registry.production(NAME).tag


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"format": "x"}', b"\xff"])
def test_a_damaged_stage_file_is_an_error_and_can_be_replaced(
    tmp_path: Path, content: bytes
) -> None:
    registry = Registry(tmp_path)
    version = samples.register(registry)
    registry.promote(version.tag)
    stages = tmp_path / "cipherscore" / "stages" / f"{NAME}.json"
    stages.write_bytes(content)
    for use in (registry.production, registry.versions, registry.rollback, registry.get):
        with pytest.raises(IntegrityError, match="stage file"):
            use(NAME)
    stages.unlink()
    with pytest.raises(VersionNotFound):
        registry.production(NAME)
    assert registry.promote(version.tag).stage.value == "production"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_version_is_an_integrity_error(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    version = samples.register(registry)
    version.onnx_path.chmod(0)
    with pytest.raises(IntegrityError, match="cannot be read"):
        registry.verify(version.tag)


def test_no_space_left_leaves_the_state_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th fsync fails, for each n; each operation succeeds or leaves the state before."""
    registry = Registry(tmp_path)
    first, second = samples.register(registry), samples.register(registry)
    registry.promote(first.tag)
    left = [0]
    sync = os.fsync

    def failing(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    refusals = 0
    for operation in (
        lambda: registry.promote(second.tag),
        lambda: registry.rollback(NAME),
        lambda: registry.remove(second.tag),
        lambda: samples.register(registry),
    ):
        for number in range(40):
            before = [(v.tag, v.stage) for v in registry.versions(NAME)]
            left[0] = number
            if succeeds(operation):
                break
            refusals += 1
            assert [(v.tag, v.stage) for v in registry.versions(NAME)] == before
            assert samples.leftovers(tmp_path) == []
        samples.check(registry)
    assert refusals > 8


def succeeds(operation: Callable[[], object]) -> bool:
    try:
        operation()
    except RegistryError as error:
        if "No space left" in str(error):
            return False
        raise
    return True
