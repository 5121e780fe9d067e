"""Which version answers, and how that changes.  Real models and a real registry, no server."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import subprocess
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cipherscore.errors import (
    IntegrityError,
    InvalidRequest,
    ModelUnavailable,
    RegistryError,
    RequestError,
    UnknownModel,
    Unsupported,
)
from registry import Stage, Version
from serving import models as model_files
from serving import selection
from serving.call import Call
from serving.generation import Generator
from serving.lineup import Lineup
from serving.models import LoadedModel
from serving.providers import CPU, Provider
from serving.requested import Requested
from serving.scorer import Scorer
from serving.settings import Settings
from serving.status import Host
from tests.support.models import NOISE_WIDTH, OTHER_KEY_ID, TinyModels, register, tiny_models

PROVIDER = Provider(CPU, "a test")


class Answerer:
    """Stands for a scorer or a generator."""

    def __init__(self, model: LoadedModel) -> None:
        self.model = model


@dataclass
class Seen:
    """An observer that keeps what it was told."""

    live: list[tuple[str, str, str]] = field(default_factory=list)
    swaps: list[tuple[str, str]] = field(default_factory=list)

    def serving(self, versions: Iterable[tuple[str, str, str, str, str]]) -> None:
        self.live = [(kind, tag, stage) for kind, tag, stage, _, _ in versions]

    def swap(self, kind: str, model: str, outcome: str) -> None:
        assert kind in ("classifier", "generator", "")
        self.swaps.append((model, outcome))


class Stand:
    """A lineup and what it was made of."""

    def __init__(self, tiny: TinyModels, folder: Path | None = None, **settings: Any) -> None:
        self.tiny = tiny
        self.registry = tiny.registry
        self.settings = Settings(watch_seconds=0.01, **settings)
        self.seen = Seen()
        self.lineup = Lineup(
            self.settings,
            PROVIDER,
            Answerer,  # type: ignore[arg-type]
            Answerer,  # type: ignore[arg-type]
            self.seen,
            requested=Requested(folder),
            chance=random.Random(7).random,
        )
        self.gate = SimpleNamespace(draining=False)
        self.host = Host(self.lineup, self.settings, self.gate)

    async def start(self) -> Stand:
        await self.lineup.start([self.tiny.classifier.tag, self.tiny.generator.tag])
        return self

    def tag(self, wanted: str = "") -> str:
        return self.lineup.classifier(wanted).model.tag

    def register(self, seed: int = 1, **arguments: Any) -> Version:
        return register(self.registry, "classifier", seed=seed, **arguments)

    @property
    def notices(self) -> str:
        return " ".join(self.host.health()["notices"])

    @property
    def status(self) -> object:
        return self.host.health()["status"]


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyModels:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "home"))
    return tiny_models(tmp_path / "home")


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]


def damage(version: Version) -> None:
    version.onnx_path.chmod(0o644)
    version.onnx_path.write_bytes(version.onnx_path.read_bytes()[:-1] + b"x")


def stage_path(tiny: TinyModels) -> Path:
    return tiny.home / "cipherscore" / "stages" / f"{tiny.classifier.name}.json"


def test_starts_with_what_is_in_production(tiny: TinyModels) -> None:
    async def scenario() -> None:
        stand = Stand(tiny)
        assert not stand.lineup.ready
        with pytest.raises(ModelUnavailable):
            stand.lineup.classifier()
        await stand.start()
        assert stand.tag() == stand.tag(tiny.classifier.name) == tiny.classifier.tag
        assert stand.tag(tiny.classifier.tag) == tiny.classifier.tag
        assert stand.lineup.generator().model.tag == tiny.generator.tag
        assert stand.lineup.shadows() == ()
        assert stand.host.ready
        assert stand.status == "serving"
        assert stand.notices == ""
        stand.gate.draining = True
        assert not stand.host.ready
        assert stand.status == "draining"
        assert stand.seen.live == [
            ("classifier", tiny.classifier.tag, "production"),
            ("generator", tiny.generator.tag, "production"),
        ]

    run(scenario)


@pytest.mark.parametrize("wanted", ["nobody", "tiny-credit-generator", "x:1", ":", "ü\n" * 500])
def test_an_unknown_version_is_refused(tiny: TinyModels, wanted: str) -> None:
    async def scenario() -> None:
        stand = await Stand(tiny).start()
        with pytest.raises(UnknownModel) as caught:
            stand.lineup.classifier(wanted)
        assert len(caught.value.detail) < 700
        assert caught.value.detail.isascii()
        candidate = stand.register()
        with pytest.raises(UnknownModel):
            stand.lineup.classifier(candidate.tag)
        with pytest.raises(UnknownModel):
            stand.lineup.classifier(tiny.generator.tag)

    run(scenario)


def test_promote_and_rollback_reach_a_running_lineup(tiny: TinyModels) -> None:
    async def scenario() -> None:
        stand = await Stand(tiny).start()
        begun = stand.lineup.classifier()
        newer = stand.register()
        stand.registry.promote(newer.tag)
        assert stand.tag() == tiny.classifier.tag, "nothing changes before the look"
        await stand.lineup.look()
        assert stand.tag() == newer.tag
        assert begun.model.tag == tiny.classifier.tag, "a request keeps what it began with"
        with pytest.raises(UnknownModel):
            stand.lineup.classifier(tiny.classifier.tag)
        stand.registry.rollback(newer.name)
        await stand.lineup.look()
        assert stand.tag() == tiny.classifier.tag
        assert stand.lineup.classifier() is not begun
        assert (newer.tag, "swapped") in stand.seen.swaps
        assert stand.seen.swaps[-2:] == [(tiny.classifier.tag, "swapped"), (newer.tag, "unloaded")]
        assert stand.status == "serving"

    run(scenario)


def test_a_generator_is_swapped_alike(tiny: TinyModels) -> None:
    async def scenario() -> None:
        stand = await Stand(tiny).start()
        newer = register(stand.registry, "generator", seed=5)
        stand.registry.promote(newer.tag)
        await stand.lineup.look()
        assert stand.lineup.generator().model.tag == newer.tag
        assert stand.tag() == tiny.classifier.tag

    run(scenario)


@pytest.mark.parametrize("percent", [1.0, 25.0, 100.0])
def test_a_canary_gets_its_share(tiny: TinyModels, percent: float) -> None:
    async def scenario() -> None:
        stand = await Stand(tiny).start()
        canary = stand.register()
        stand.registry.promote(canary.tag, Stage.CANARY, percent)
        await stand.lineup.look()
        count = 20_000
        for wanted in ("", tiny.classifier.name):
            got = Counter(stand.tag(wanted) for _ in range(count))
            share, sigma = percent / 100, (percent * (100 - percent) / count) ** 0.5 / 100
            assert abs(got[canary.tag] / count - share) <= 4 * sigma
            assert got.total() == got[canary.tag] + got[tiny.classifier.tag]
        # Who pins a version gets it, always; facts do not depend on chance.
        assert {stand.tag(tiny.classifier.tag) for _ in range(200)} == {tiny.classifier.tag}
        assert {stand.tag(canary.tag) for _ in range(200)} == {canary.tag}
        told = {stand.host.model_facts("classifier")["model"] for _ in range(200)}
        assert told == {tiny.classifier.tag}
        shares = {v["stage"]: v["percent"] for v in stand.host.health()["versions"]}
        assert shares["canary"] == percent

    run(scenario)


def test_stages_beside_production_come_and_go(tiny: TinyModels) -> None:
    async def scenario() -> None:
        stand = await Stand(tiny).start()
        second, third = stand.register(), stand.register(2)
        stand.registry.promote(second.tag, Stage.CANARY, 100)
        stand.registry.promote(third.tag, Stage.SHADOW)
        await stand.lineup.look()
        assert stand.tag() == second.tag
        assert [scorer.model.tag for scorer in stand.lineup.shadows()] == [third.tag]
        assert [(f["model"], f["stage"]) for f in stand.host.facts()] == [
            (tiny.classifier.tag, "production"),
            (second.tag, "canary"),
            (third.tag, "shadow"),
            (tiny.generator.tag, "production"),
        ]
        loaded = stand.lineup.classifier(second.tag)
        stand.registry.promote(second.tag)
        await stand.lineup.look()
        assert stand.lineup.classifier() is loaded, "a promoted canary is not loaded again"
        stand.registry.unstage(third.name, Stage.SHADOW)
        await stand.lineup.look()
        assert stand.lineup.shadows() == ()
        assert [tag for kind, tag, _ in stand.seen.live if kind == "classifier"] == [second.tag]

    run(scenario)


def test_a_changed_share_loads_nothing(tiny: TinyModels, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        stand = await Stand(tiny).start()
        canary = stand.register()
        stand.registry.promote(canary.tag, Stage.CANARY, 10)
        await stand.lineup.look()
        monkeypatch.setattr(model_files, "load", None)
        stand.registry.promote(canary.tag, Stage.CANARY, 100)
        await stand.lineup.look()
        assert stand.tag() == canary.tag

    run(scenario)


@pytest.mark.parametrize("stage", [Stage.CANARY, Stage.SHADOW])
def test_a_version_under_another_key_gets_no_share(
    tiny: TinyModels, monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    async def scenario() -> None:
        stand = await Stand(tiny).start()
        with monkeypatch.context() as patched:
            patched.setattr("tests.support.models.KEY_ID", OTHER_KEY_ID)
            patched.setattr("tests.support.models.vocabulary.__defaults__", (OTHER_KEY_ID,))
            other = stand.register()
        stand.registry.promote(other.tag, stage, 100 if stage is Stage.CANARY else None)
        await stand.lineup.look()
        assert stand.tag() == tiny.classifier.tag
        assert stand.lineup.shadows() == ()
        assert stand.status == "degraded"
        assert f"{other.tag} is the {stage} but not served" in stand.notices
        # To promote it is legal, and said.
        stand.registry.promote(other.tag)
        await stand.lineup.look()
        assert stand.tag() == other.tag
        assert stand.status == "serving"
        facts = stand.host.model_facts("classifier")
        assert facts["key_id"] == OTHER_KEY_ID
        assert tiny.classifier.tag in facts["notice"]

    run(scenario)


def test_a_damaged_version_keeps_the_old_one_until_the_stages_change(
    tiny: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        stand = await Stand(tiny).start()
        newer, last = stand.register(), stand.register(2)
        stand.registry.promote(newer.tag)
        damage(newer)
        opened: list[str] = []
        verify = Version.verify
        monkeypatch.setattr(Version, "verify", lambda v: opened.append(v.tag) or verify(v))
        for _ in range(5):
            await stand.lineup.look()
        assert opened == [newer.tag], "tried once, not at every look"
        assert stand.tag() == tiny.classifier.tag
        assert stand.status == "degraded"
        assert stand.host.ready
        assert newer.tag in stand.host.model_facts("classifier")["notice"]
        assert stand.seen.swaps[-1] == (newer.tag, "failed")
        stand.registry.promote(last.tag)
        await stand.lineup.look()
        assert stand.tag() == last.tag
        assert stand.status == "serving"
        assert stand.host.model_facts("classifier")["notice"] == ""

    run(scenario)


@pytest.mark.parametrize("stage", [Stage.CANARY, Stage.SHADOW])
def test_a_damaged_canary_or_shadow_leaves_production_alone(tiny: TinyModels, stage: Stage) -> None:
    async def scenario() -> None:
        stand = await Stand(tiny).start()
        good, bad = stand.register(), stand.register(2)
        percent = 100 if stage is Stage.CANARY else None
        stand.registry.promote(good.tag, stage, percent)
        await stand.lineup.look()
        stand.registry.promote(bad.tag, stage, percent)
        damage(bad)
        await stand.lineup.look()
        # The one before is wanted by nobody any more.
        assert stand.tag() == tiny.classifier.tag
        assert stand.lineup.shadows() == ()
        assert f"{bad.tag} is the {stage} but not served" in stand.notices

    run(scenario)


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(28, "No space left on device"), RuntimeError("ort")]
)
def test_whatever_fails_while_loading_keeps_the_old_version(
    tiny: TinyModels, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def scenario() -> None:
        stand = await Stand(tiny).start()

        def fail(*_: object, **__: object) -> LoadedModel:
            raise error

        newer = stand.register()
        stand.registry.promote(newer.tag)
        with monkeypatch.context() as patched:
            patched.setattr(model_files, "load", fail)
            await stand.lineup.look()
        assert stand.tag() == tiny.classifier.tag
        assert newer.tag in stand.notices
        stand.registry.rollback(newer.name)
        await stand.lineup.look()
        assert stand.status == "serving"

    run(scenario)


def test_a_version_of_the_other_kind_is_refused(tiny: TinyModels) -> None:
    async def scenario() -> None:
        stand = await Stand(tiny).start()
        wrong = register(stand.registry, "generator", name=tiny.classifier.name)
        stand.registry.promote(wrong.tag)
        await stand.lineup.look()
        assert stand.tag() == tiny.classifier.tag
        assert "is a generator, not a classifier" in stand.notices

    run(scenario)


def test_promoted_and_removed_behind_the_registrys_back(tiny: TinyModels) -> None:
    async def scenario() -> None:
        stand = await Stand(tiny).start()
        newer = stand.register()
        stand.registry.promote(newer.tag)
        newer.path.rename(tiny.home / "gone")
        await stand.lineup.look()
        assert stand.tag() == tiny.classifier.tag
        assert stand.status == "degraded"
        (tiny.home / "gone").rename(newer.path)
        stand.registry.rollback(newer.name)
        await stand.lineup.look()
        assert stand.status == "serving"

    run(scenario)


def test_promoted_replaced_and_removed_between_two_looks(tiny: TinyModels) -> None:
    async def scenario() -> None:
        stand = await Stand(tiny).start()
        second, third = stand.register(), stand.register(2)
        stand.registry.promote(second.tag)
        stand.registry.promote(third.tag)
        stand.registry.remove(second.tag)
        await stand.lineup.look()
        assert stand.tag() == third.tag
        assert second.tag not in str(stand.seen.swaps)

    run(scenario)


def test_a_promotion_while_another_is_loading_comes_next(
    tiny: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        stand = await Stand(tiny).start()
        second, third = stand.register(), stand.register(2)
        loading, go_on = threading.Event(), threading.Event()
        load = model_files.load

        def slow(version: Version, *rest: Any, **named: Any) -> LoadedModel:
            loading.set()
            assert go_on.wait(30)
            return load(version, *rest, **named)

        monkeypatch.setattr(model_files, "load", slow)
        stand.registry.promote(second.tag)
        looking = asyncio.ensure_future(stand.lineup.look())
        while not loading.is_set():
            await asyncio.sleep(0.001)
            # The loop is free while a version is loading.
            assert stand.tag() == tiny.classifier.tag
        stand.registry.promote(third.tag)
        go_on.set()
        await looking
        assert stand.tag() == second.tag
        await stand.lineup.look()
        assert stand.tag() == third.tag

    run(scenario)


def test_back_and_forth_between_two_looks_changes_nothing(tiny: TinyModels) -> None:
    async def scenario() -> None:
        stand = await Stand(tiny).start()
        begun = stand.lineup.classifier()
        stand.registry.promote(stand.register().tag)
        stand.registry.rollback(tiny.classifier.name)
        await stand.lineup.look()
        assert stand.lineup.classifier() is begun

    run(scenario)


def test_an_unreadable_stage_file_keeps_what_is_served(tiny: TinyModels) -> None:
    async def scenario() -> None:
        stand = await Stand(tiny).start()
        path = stage_path(tiny)
        content = path.read_bytes()
        path.write_bytes(b"{")
        for _ in range(3):
            await stand.lineup.look()
        assert stand.tag() == tiny.classifier.tag
        assert stand.status == "degraded"
        assert "damaged" in stand.notices
        failures = [s for s in stand.seen.swaps if s[1] == "failed"]
        assert len(failures) == 1, "told once, not at every look"
        path.unlink()
        path.mkdir()
        await stand.lineup.look()
        assert stand.status == "degraded"
        path.rmdir()
        await stand.lineup.look()
        assert "in production any more" in stand.notices
        await stand.lineup.look()
        assert stand.status == "degraded", "still so at a later look"
        path.parent.rename(path.parent.with_name("elsewhere"))
        await stand.lineup.look()
        assert stand.tag() == tiny.classifier.tag
        path.parent.with_name("elsewhere").rename(path.parent)
        path.write_bytes(content)
        await stand.lineup.look()
        assert stand.status == "serving"
        newer = stand.register()
        stand.registry.promote(newer.tag)
        await stand.lineup.look()
        assert stand.tag() == newer.tag

    run(scenario)


def test_a_full_disk_leaves_the_lineup_alone(
    tiny: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        stand = await Stand(tiny).start()
        newer = stand.register()

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr("cipherscore.files.write_json", full)
            with pytest.raises(RegistryError, match="No space left"):
                stand.registry.promote(newer.tag)
        await stand.lineup.look()
        assert stand.tag() == tiny.classifier.tag
        assert stand.status == "serving"

    run(scenario)


def test_watching_goes_on_whatever_happens(
    tiny: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        stand = await Stand(tiny).start()
        watching = asyncio.ensure_future(stand.lineup.watch())

        async def until(met: Callable[[], bool]) -> None:
            for _ in range(3000):
                if met():
                    return
                await asyncio.sleep(0.01)
            raise AssertionError("waited in vain")

        with monkeypatch.context() as patched:
            failed: list[str] = []

            def fail(self: object, name: str) -> object:
                failed.append(name)
                raise RuntimeError("a bug")

            patched.setattr("registry.reader.Reader.stamp", fail)
            await until(lambda: len(failed) > 2)
        newer = stand.register()
        stand.registry.promote(newer.tag)
        await until(lambda: stand.tag() == newer.tag)
        watching.cancel()
        stand.lineup.close()

    run(scenario)


def test_a_model_set_by_tag_and_a_server_that_does_not_watch_stay(tiny: TinyModels) -> None:
    async def scenario() -> None:
        for fixed in ({"classifier": tiny.classifier.tag}, {}):
            stand = await Stand(tiny, **fixed).start()
            newer = stand.register()
            stand.registry.promote(newer.tag)
            if fixed:
                await stand.lineup.look()
                assert stand.tag() == tiny.classifier.tag
                stand.registry.rollback(newer.name)
        settings = Settings(watch_seconds=0)
        lineup = Lineup(settings, PROVIDER, Answerer, Answerer, Seen(), requested=Requested(None))  # type: ignore[arg-type]
        await lineup.start([tiny.classifier.tag])
        assert not lineup.watching
        await asyncio.wait_for(lineup.watch(), 5)

    run(scenario)


def test_a_late_worker_serves_what_is_in_production_by_then(tiny: TinyModels) -> None:
    """The plan it starts from may be weeks old, and its version removed."""

    async def scenario() -> None:
        stand = Stand(tiny)
        newer = stand.register()
        stand.registry.promote(newer.tag)
        stand.registry.remove(tiny.classifier.tag)
        stand.registry.promote(stand.register(name="another-classifier").tag)
        await stand.start()
        assert stand.tag() == newer.tag

    run(scenario)


def test_replaced_and_removed_while_a_worker_starts(
    tiny: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its look at the stages and its reading of the version they named."""

    async def scenario() -> None:
        stand = Stand(tiny)
        newer = stand.register()
        load = model_files.load

        def slow(version: Version, *arguments: Any, **options: Any) -> LoadedModel:
            if version.tag == tiny.classifier.tag:
                stand.registry.promote(newer.tag)
                stand.registry.remove(version.tag)
            return load(version, *arguments, **options)

        monkeypatch.setattr(model_files, "load", slow)
        await stand.start()
        assert stand.tag() == newer.tag
        assert stand.status == "serving"

    run(scenario)


def test_a_damaged_production_version_gives_way_at_the_start(tiny: TinyModels) -> None:
    async def scenario() -> None:
        stand = Stand(tiny)
        newer = stand.register()
        stand.registry.promote(newer.tag)
        damage(newer)
        await stand.start()
        assert stand.tag() == tiny.classifier.tag
        assert newer.tag in stand.host.model_facts("classifier")["notice"]
        assert newer.tag in stand.notices
        await stand.lineup.look()
        assert stand.status == "degraded"

    run(scenario)


def test_nothing_that_can_be_served_is_an_error(tiny: TinyModels) -> None:
    async def scenario() -> None:
        damage(tiny.classifier)
        damage(tiny.generator)
        with pytest.raises(RegistryError):
            await Stand(tiny).start()

    run(scenario)


def test_a_kind_that_comes_into_production_later_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))

    async def scenario() -> None:
        tiny = tiny_models(tmp_path)
        late = register(tiny.registry, "generator", name="late-generator")
        (tmp_path / "cipherscore/stages" / f"{tiny.generator.name}.json").unlink()
        stand = Stand(tiny)
        await stand.lineup.start([tiny.classifier.tag])
        await stand.lineup.look()
        with pytest.raises(ModelUnavailable):
            stand.lineup.generator()
        stand.registry.promote(late.tag)
        await stand.lineup.look()
        assert stand.lineup.generator().model.tag == late.tag
        assert stand.status == "serving"

    run(scenario)


def test_extra_versions_are_pinned(tiny: TinyModels) -> None:
    async def scenario() -> None:
        old = register(tiny.registry, "classifier", seed=3)
        other = [register(tiny.registry, "classifier", seed=n, name="other") for n in (4, 5)]
        gone = "tiny-credit-classifier:20200101-000000-000-0000"
        extra = [old.tag, *(version.tag for version in other), gone]
        stand = await Stand(tiny, extra_models=extra).start()
        assert stand.tag(old.tag) == old.tag
        assert stand.tag("other") == other[1].tag, "a name alone is its newest version"
        assert {stand.tag() for _ in range(100)} == {tiny.classifier.tag}
        assert gone in stand.notices
        with pytest.raises(InvalidRequest, match="set by extra_models"):
            await stand.lineup.unload(old.tag)
        # Through production and back it stays.
        for change in (
            lambda: stand.registry.promote(old.tag),
            lambda: stand.registry.rollback(old.name),
        ):
            change()
            await stand.lineup.look()
            assert stand.tag(old.tag) == old.tag
        assert stand.host.model_facts("classifier", old.tag)["stage"] == "pinned"

    run(scenario)


def test_load_and_unload(tiny: TinyModels, tmp_path: Path) -> None:
    async def scenario() -> None:
        shared = tmp_path / "shared"
        shared.mkdir()
        one, two = [await Stand(tiny, shared, workers=2).start() for _ in range(2)]
        version = one.register()
        with pytest.raises(UnknownModel):
            one.tag(version.tag)
        assert await one.lineup.load(version.tag) == version.tag
        assert await one.lineup.load(f"{version.name}:latest") == version.tag
        assert one.tag(version.tag) == version.tag
        assert one.tag() == tiny.classifier.tag
        states = {(i.name, i.version): (i.state, i.reason) for i in await one.lineup.index()}
        assert states[version.name, version.version] == ("READY", "pinned")
        with pytest.raises(UnknownModel):
            two.tag(version.tag)
        await two.lineup.look()
        assert two.tag(version.tag) == version.tag
        late = await Stand(tiny, shared, workers=2).start()
        assert late.tag(version.tag) == version.tag, "so does a worker that starts later"
        await two.lineup.unload(version.tag)
        for stand in (one, late):
            await stand.lineup.look()
        for stand in (one, two, late):
            with pytest.raises(UnknownModel):
                stand.tag(version.tag)
        states = {(i.name, i.version): (i.state, i.reason) for i in await one.lineup.index()}
        assert states[version.name, version.version] == ("UNAVAILABLE", "not loaded")

    run(scenario)


@pytest.mark.parametrize(
    ("tag", "error"),
    [("nobody", UnknownModel), ("x:1", UnknownModel), ("../..", UnknownModel), ("", UnknownModel)],
)
def test_what_cannot_be_loaded_or_unloaded(
    tiny: TinyModels, tag: str, error: type[RequestError]
) -> None:
    async def scenario() -> None:
        stand = await Stand(tiny).start()
        for attempt in (stand.lineup.load, stand.lineup.unload):
            with pytest.raises(error):
                await attempt(tag)
        for protected in (tiny.classifier.tag, tiny.classifier.name):
            with pytest.raises(InvalidRequest, match="production"):
                await stand.lineup.unload(protected)
        bad = stand.register()
        damage(bad)
        with pytest.raises(ModelUnavailable):
            await stand.lineup.load(bad.tag)
        with pytest.raises(UnknownModel):
            stand.tag(bad.tag)

    run(scenario)


def test_to_load_a_followed_name_takes_over_what_changed(tiny: TinyModels) -> None:
    async def scenario() -> None:
        stand = await Stand(tiny).start()
        newer = stand.register()
        stand.registry.promote(newer.tag)
        assert await stand.lineup.load(newer.name) == newer.tag == stand.tag()
        broken = stand.register(2)
        stand.registry.promote(broken.tag)
        damage(broken)
        for _ in range(2):
            with pytest.raises(ModelUnavailable, match=broken.tag):
                await stand.lineup.load(newer.name)
        assert stand.tag() == newer.tag

    run(scenario)


def test_the_versions_of_a_built_bento_are_fixed(
    tiny: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = [tiny.classifier, tiny.generator]
    monkeypatch.setattr(selection, "bento_root", lambda: tiny.home)
    monkeypatch.setattr(selection, "_bento_versions", lambda _: tuple(built))

    async def scenario() -> None:
        stand = await Stand(tiny).start()
        newer = stand.register()
        stand.registry.promote(newer.tag)
        stand.registry.promote(stand.register(2).tag, Stage.CANARY, 100)
        await stand.lineup.look()
        assert stand.tag() == tiny.classifier.tag
        assert stand.host.health()["watching"] is False
        for attempt in (stand.lineup.load, stand.lineup.unload):
            with pytest.raises(Unsupported):
                await attempt(newer.tag)
        assert {i.state for i in await stand.lineup.index()} == {"READY"}
        built.pop()
        with pytest.raises(IntegrityError):
            await Stand(tiny).start()

    run(scenario)


def test_a_swapped_out_version_is_freed_with_its_last_request(tiny: TinyModels) -> None:
    """At once, by counting references; the collector of cycles may come much later."""

    async def scenario() -> None:
        settings, observer = Settings(), Silent()
        with ThreadPoolExecutor(1) as executor:
            lineup = Lineup(
                settings,
                PROVIDER,
                lambda model: Scorer(model, settings, executor, observer),
                lambda model: Generator(model, settings.max_generated_rows),
                observer,
                requested=Requested(None),
            )
            await lineup.start([tiny.classifier.tag, tiny.generator.tag])
            sessions = [
                weakref.ref(lineup.classifier().model.session),
                weakref.ref(lineup.generator().model.session),
            ]
            answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            call = Call("grpc", "Score", "anonymous", 0.0)
            indices = np.zeros((2, 3), dtype=np.int32)
            lineup.classifier().submit(indices, 2, call, answer.set_result)
            for kind in ("classifier", "generator"):
                tiny.registry.promote(register(tiny.registry, kind, seed=1).tag)
            await lineup.look()
            assert (await answer).model == tiny.classifier.tag
            del answer
            await asyncio.sleep(0)
            assert [session() for session in sessions] == [None, None]

    gc.collect()
    gc.disable()
    try:
        run(scenario)
    finally:
        gc.enable()


class Silent(Seen):
    """What a scorer tells as well."""

    def batch(self, *_: object) -> None:
        pass

    def traced(self, *_: object, **__: object) -> None:
        pass


def test_a_canary_generator_of_another_noise_width_gets_no_share(
    tiny: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        stand = await Stand(tiny).start()
        monkeypatch.setattr("tests.support.models.NOISE_WIDTH", NOISE_WIDTH + 1)
        other = register(stand.registry, "generator")
        stand.registry.promote(other.tag, Stage.CANARY, 100)
        await stand.lineup.look()
        assert stand.lineup.generator().model.tag == tiny.generator.tag
        assert "another width" in stand.notices

    run(scenario)


def test_the_folder_of_requested_versions_ends_with_its_maker(tmp_path: Path) -> None:
    code = (
        "import os; from serving import requested; requested.announce()\n"
        "assert os.path.isdir(os.environ[requested.VARIABLE])\n"
        "child = os.fork()\n"
        "if child: os.waitpid(child, 0); assert os.path.isdir(os.environ[requested.VARIABLE])\n"
        "requested.Requested.shared().add('a:b')\n"
        "assert requested.Requested.shared().tags() == {'a:b'}\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=60)
    assert list(tmp_path.iterdir()) == []
