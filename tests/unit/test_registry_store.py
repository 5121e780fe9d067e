from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cipherscore.errors import IntegrityError, RegistryError, VersionNotFound
from registry import Registry, Stage, open_version
from tests.support import registry_samples as samples
from tests.support.registry_samples import NAME, register


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


def test_a_version_gives_back_what_was_registered(registry: Registry, tmp_path: Path) -> None:
    source = tmp_path / "export.onnx"
    source.write_bytes(b"graph")
    files = {**samples.files(), "model.onnx": source, "report.json": b"{}"}
    version = registry.register(NAME, files, samples.record(parent=None))
    found = registry.get(version.tag)
    assert found == version
    assert found.stage is Stage.CANDIDATE
    assert found.onnx_path.read_bytes() == found.read("model.onnx") == b"graph"
    assert found.vocabulary() == samples.vocabulary()
    assert found.schema() == samples.schema()
    assert found.record == samples.record(
        schema_digest=samples.schema().digest, vocabulary_digest=samples.vocabulary().digest
    )
    assert json.loads(found.read("lineage.json"))["created"] == found.created.isoformat()
    assert found.verify() is found
    assert len(found.digest) == 64
    assert source.exists()
    with pytest.raises(IntegrityError):
        found.read("absent.bin")


def test_bentoml_knows_the_versions(registry: Registry) -> None:
    from bentoml._internal.models.model import ModelStore

    first, second = register(registry), register(registry)
    store = ModelStore(registry.home / "models")
    assert [str(model.tag) for model in store.list()] == [first.tag, second.tag]
    latest = store.get(f"{NAME}:latest")
    assert str(latest.tag) == second.tag
    assert latest.info.labels["kind"] == "classifier"
    assert latest.info.labels["key_id"] == samples.KEY_ID
    assert latest.info.metadata["digest"] == second.digest
    registry.remove(second.tag)
    assert str(store.get(NAME).tag) == first.tag


def test_the_home_comes_from_bentomls_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "elsewhere"))
    version = register(Registry())
    assert version.path.is_relative_to(tmp_path / "elsewhere")


def test_reading_imports_no_bentoml(registry: Registry) -> None:
    register(registry)
    registry.promote(f"{NAME}:latest")
    code = (
        "import sys; from pathlib import Path; from registry import Registry\n"
        "Registry(Path(sys.argv[1])).production(sys.argv[2]).verify().vocabulary()\n"
        "sys.exit('bentoml' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(registry.home), NAME], check=True)


def test_stages(registry: Registry) -> None:
    first, second, third = [register(registry) for _ in range(3)]
    with pytest.raises(VersionNotFound, match="in production"):
        registry.production(NAME)
    for version in (first, second, third):
        assert registry.promote(version.tag).stage is Stage.PRODUCTION
    assert [v.stage.value for v in registry.versions(NAME)] == [
        "archived",
        "archived",
        "production",
    ]
    assert [v.tag for v in registry.previous(NAME)] == [second.tag, first.tag]
    assert registry.rollback(NAME).tag == second.tag == registry.get(NAME).tag
    assert registry.get(third.tag).stage is Stage.ARCHIVED
    assert registry.rollback(NAME).tag == first.tag
    with pytest.raises(VersionNotFound, match="no previous"):
        registry.rollback(NAME)
    assert registry.promote(f"{NAME}:latest").tag == third.tag
    assert [c.action for c in registry.changes(NAME)] == [
        *["promote"] * 3,
        *["rollback"] * 2,
        "promote",
    ]


def test_promoting_the_production_version_changes_nothing(registry: Registry) -> None:
    version = register(registry)
    registry.promote(version.tag)
    state = (registry.home / "cipherscore/stages" / f"{NAME}.json").read_bytes()
    assert registry.promote(version.tag).stage is Stage.PRODUCTION
    assert (registry.home / "cipherscore/stages" / f"{NAME}.json").read_bytes() == state


def test_a_canary_and_a_shadow_stand_beside_production(registry: Registry) -> None:
    first, second, third = [register(registry) for _ in range(3)]
    registry.promote(first.tag)
    assert registry.promote(second.tag, Stage.CANARY, 10).stage is Stage.CANARY
    assert registry.promote(third.tag, Stage.SHADOW).stage is Stage.SHADOW
    staged = registry.staged(NAME)
    assert (staged.production, staged.canary, staged.shadow) == registry.versions(NAME)
    assert staged.percent == 10
    assert registry.production(NAME).tag == first.tag
    # A version is in one stage: the shadow that becomes the canary is the shadow no longer.
    registry.promote(third.tag, Stage.CANARY, 2.5)
    staged = registry.staged(NAME)
    assert (staged.canary, staged.percent, staged.shadow) == (registry.get(third.tag), 2.5, None)
    assert registry.get(second.tag).stage is Stage.CANDIDATE
    registry.promote(third.tag)
    staged = registry.staged(NAME)
    assert (staged.production, staged.canary) == (registry.get(third.tag), None)
    registry.promote(first.tag, Stage.CANARY, 50)
    assert registry.rollback(NAME).tag == first.tag
    assert registry.staged(NAME).canary is None
    assert [(c.action, c.percent) for c in registry.changes(NAME)] == [
        ("promote", None),
        ("canary", 10),
        ("shadow", None),
        ("canary", 2.5),
        ("promote", None),
        ("canary", 50),
        ("rollback", None),
    ]


def test_unstage(registry: Registry) -> None:
    first, second = register(registry), register(registry)
    registry.promote(first.tag)
    for stage, percent in ((Stage.CANARY, 1), (Stage.SHADOW, None)):
        with pytest.raises(VersionNotFound, match=f"no {stage}"):
            registry.unstage(NAME, stage)
        registry.promote(second.tag, stage, percent)
        with pytest.raises(RegistryError, match=f"unstage {NAME} --stage {stage}"):
            registry.remove(second.tag)
        assert registry.unstage(NAME, stage).stage is Stage.CANDIDATE
        assert registry.changes(NAME)[-1].action == f"unstage-{stage}"
    with pytest.raises(RegistryError, match="only a canary or a shadow"):
        registry.unstage(NAME, Stage.PRODUCTION)
    registry.remove(second.tag)


@pytest.mark.parametrize(
    ("stage", "percent"),
    [
        *[(Stage.CANARY, p) for p in (None, 0, -1, 100.1, float("nan"), float("inf"))],
        (Stage.PRODUCTION, 10),
        (Stage.SHADOW, 10),
        (Stage.CANDIDATE, None),
        (Stage.ARCHIVED, None),
    ],
)
def test_stages_and_shares_that_are_none(
    registry: Registry, stage: Stage, percent: float | None
) -> None:
    first, second = register(registry), register(registry)
    registry.promote(first.tag)
    with pytest.raises(RegistryError):
        registry.promote(second.tag, stage, percent)
    assert len(registry.changes(NAME)) == 1


def test_a_stage_file_of_the_first_format_is_read_and_kept(registry: Registry) -> None:
    first, second = register(registry), register(registry)
    registry.promote(first.tag)
    path = registry.home / "cipherscore/stages" / f"{NAME}.json"
    content = json.loads(path.read_text())
    content["format_version"] = 1
    for key in ("canary", "percent", "shadow"):
        del content[key]
    del content["changes"][0]["percent"]
    path.write_text(json.dumps(content))
    assert registry.production(NAME).tag == first.tag
    assert registry.staged(NAME).canary is registry.staged(NAME).shadow is None
    registry.promote(second.tag, Stage.CANARY, 10)
    assert [c.action for c in registry.changes(NAME)] == ["promote", "canary"]
    samples.check(registry)


@pytest.mark.parametrize(
    "change",
    [
        {"canary": "{first}", "percent": 10},
        {"shadow": "{first}"},
        {"canary": "{second}", "percent": 10, "shadow": "{second}"},
        {"canary": "{second}"},
        {"percent": 10},
        {"canary": "{second}", "percent": 0},
        {"canary": "{second}", "percent": "10"},
        {"canary": "../x", "percent": 10},
        {"shadow": "x"},
        {"format_version": 3},
    ],
)
def test_a_stage_file_that_contradicts_itself_is_damaged(
    registry: Registry, change: dict[str, object]
) -> None:
    first, second = register(registry), register(registry)
    registry.promote(first.tag)
    path = registry.home / "cipherscore/stages" / f"{NAME}.json"
    ids = {"first": first.version, "second": second.version}
    filled = {k: v.format(**ids) if isinstance(v, str) else v for k, v in change.items()}
    path.write_text(json.dumps({**json.loads(path.read_text()), **filled}))
    with pytest.raises(IntegrityError):
        registry.staged(NAME)


def test_the_stamp_tells_every_change(registry: Registry) -> None:
    assert registry.stamp(NAME) is None
    first, second = register(registry), register(registry)
    seen = [registry.stamp(NAME)]
    for number in range(20):
        registry.promote((first, second)[number % 2].tag)
        assert registry.stamp(NAME) not in seen
        seen.append(registry.stamp(NAME))
    path = registry.home / "cipherscore/stages" / f"{NAME}.json"
    while time.time_ns() - path.stat().st_ctime_ns < 200_000_000:
        time.sleep(0.02)
    assert registry.stamp(NAME) == registry.stamp(NAME)


def test_promote_needs_a_version(registry: Registry) -> None:
    register(registry)
    with pytest.raises(RegistryError, match="names no version"):
        registry.promote(NAME)
    with pytest.raises(VersionNotFound):
        registry.promote(f"{NAME}:20260131-120000-000-1a2b")
    with pytest.raises(VersionNotFound):
        registry.promote("other:latest")


def test_remove(registry: Registry) -> None:
    first, second = register(registry), register(registry)
    registry.promote(first.tag)
    with pytest.raises(RegistryError, match="in production"):
        registry.remove(first.tag)
    registry.promote(second.tag)
    registry.remove(first.tag)
    assert not first.path.exists()
    assert samples.leftovers(registry.home) == []
    with pytest.raises(VersionNotFound):
        registry.get(first.tag)
    with pytest.raises(VersionNotFound, match="no previous"):
        registry.rollback(NAME)


def test_removing_the_last_version_removes_the_name(registry: Registry) -> None:
    registry.remove(register(registry).tag)
    assert registry.names() == ()
    assert list((registry.home / "models").iterdir()) == []
    register(registry)
    assert registry.names() == (NAME,)


def test_other_models_in_the_same_store_are_left_alone(registry: Registry) -> None:
    foreign = registry.home / "models" / "foreign" / "abcdefgh"
    foreign.mkdir(parents=True)
    register(registry)
    assert registry.names() == (NAME,)
    assert registry.versions("foreign") == ()


def test_names_keep_their_stages_apart(registry: Registry) -> None:
    one, two = register(registry, "one-classifier"), register(registry, "two-classifier")
    registry.promote(one.tag)
    assert registry.names() == ("one-classifier", "two-classifier")
    assert registry.get(two.tag).stage is Stage.CANDIDATE


def test_a_copy_opens_without_a_registry(registry: Registry, tmp_path: Path) -> None:
    version = register(registry)
    target = tmp_path / "bento" / "models" / version.name / version.version
    shutil.copytree(version.path, target)
    assert open_version(target).verify().record == version.record
    wrong = shutil.copytree(version.path, tmp_path / "bento/models/other-name" / version.version)
    with pytest.raises(IntegrityError, match="another version"):
        open_version(wrong).verify()
    with pytest.raises(RegistryError):
        open_version(tmp_path)


def test_a_registry_without_write_access_can_be_read(registry: Registry) -> None:
    registry.promote(register(registry).tag)
    before = {p: p.stat().st_mtime_ns for p in registry.home.rglob("*")}
    registry.production(NAME).verify()
    registry.versions(NAME), registry.names(), registry.previous(NAME), registry.changes(NAME)
    assert {p: p.stat().st_mtime_ns for p in registry.home.rglob("*")} == before


def test_versions_are_written_read_only(registry: Registry) -> None:
    for path in register(registry).path.iterdir():
        assert path.stat().st_mode & 0o222 == 0


def without(file: str) -> dict[str, Path | bytes]:
    return {name: content for name, content in samples.files().items() if name != file}


@pytest.mark.parametrize(
    "attempt",
    [
        lambda r: r.register(NAME, without("schema.json"), samples.record()),
        lambda r: r.register(NAME, {**samples.files(), "manifest.json": b""}, samples.record()),
        lambda r: r.register(NAME, {**samples.files(), "../x": b""}, samples.record()),
        lambda r: r.register(NAME, {**samples.files(), ".x": b""}, samples.record()),
        lambda r: r.register(NAME, {**samples.files(), "schema.json": b"[]"}, samples.record()),
        lambda r: r.register(NAME, {**samples.files(), "schema.json": b"\xff"}, samples.record()),
        lambda r: r.register(NAME, {**samples.files(), "vocabulary.json": b"{}"}, samples.record()),
        lambda r: r.register(
            NAME, {**samples.files(), "model.onnx": Path("/no")}, samples.record()
        ),
        lambda r: r.register(NAME, samples.files(), samples.record(key_id="ffffffff")),
        lambda r: r.register(NAME, samples.files(), samples.record(vocabulary_digest="ab")),
        lambda r: r.register(NAME, samples.files(), samples.record(metrics={"auc": float("nan")})),
        lambda r: r.register(NAME, samples.files(), samples.record(metrics={"auc": object()})),
    ],
)
def test_what_cannot_be_registered_leaves_nothing(
    attempt: Callable[[Registry], object], registry: Registry
) -> None:
    with pytest.raises(RegistryError):
        attempt(registry)
    assert registry.names() == ()
    assert samples.leftovers(registry.home) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "clusterer"},
        {"key_id": "xyz"},
        {"threshold": None},
        {"threshold": float("nan")},
        {"class_prior": 1.5},
        {"kind": "generator", "noise_width": None},
        {"parent": "demo-classifier"},
        {"parent": "../x:1"},
    ],
)
def test_records_are_checked(changes: dict[str, object]) -> None:
    with pytest.raises(RegistryError):
        samples.record(**changes)


def test_the_command_line_of_bentoml_lists_a_registry(registry: Registry) -> None:
    version = register(registry)
    environment = {**os.environ, "BENTOML_HOME": str(registry.home), "BENTOML_DO_NOT_TRACK": "1"}
    command = [sys.executable, "-m", "bentoml", "models", "list", "-o", "json"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert [entry["tag"] for entry in json.loads(result.stdout)] == [version.tag]
