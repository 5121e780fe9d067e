"""Random sequences of operations, compared with a model of what they should do."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from cipherscore.errors import IntegrityError, RegistryError, VersionNotFound
from registry import Registry, Stage
from tests.support import registry_samples as samples
from tests.support.registry_samples import NAME


class RegistryMachine(RuleBasedStateMachine):
    tags = Bundle("tags")

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(dir=samples.MEMORY))
        self.known: list[str] = []
        self.damaged: set[str] = set()
        self.once: set[str] = set()
        self.stack: list[str] = []
        """Versions in the order in which they last came into production; the last one is."""
        self.canary: tuple[str, float] | None = None
        self.shadow: str | None = None
        self.changes = 0

    @property
    def registry(self) -> Registry:
        return Registry(self.home)

    def teardown(self) -> None:
        shutil.rmtree(self.home)

    @rule(target=tags)
    def register(self) -> str:
        tag = samples.register(self.registry).tag
        self.known.append(tag)
        return tag

    @rule(tag=tags)
    def promote(self, tag: str) -> None:
        if tag in self.damaged:
            with pytest.raises(IntegrityError):
                self.registry.promote(tag)
            return
        assert self.registry.promote(tag).tag == tag
        self.changes += self.stack[-1:] != [tag]
        self.stack = [t for t in self.stack if t != tag] + [tag]
        self.once.add(tag)
        self.free(tag)

    def free(self, tag: str) -> None:
        """A version that is put elsewhere is neither canary nor shadow any more."""
        if self.canary is not None and self.canary[0] == tag:
            self.canary = None
        if self.shadow == tag:
            self.shadow = None

    def may_stand_beside(self, tag: str, **arguments: object) -> bool:
        """Try it where it must be refused."""
        if tag in self.damaged:
            with pytest.raises(IntegrityError):
                self.registry.promote(tag, **arguments)  # type: ignore[arg-type]
        elif not self.stack:
            with pytest.raises(RegistryError, match="no version is in production"):
                self.registry.promote(tag, **arguments)  # type: ignore[arg-type]
        elif self.stack[-1] == tag:
            with pytest.raises(RegistryError, match="it is in production"):
                self.registry.promote(tag, **arguments)  # type: ignore[arg-type]
        else:
            return True
        return False

    @rule(tag=tags, percent=st.sampled_from([0.5, 10, 100]))
    def stage_canary(self, tag: str, percent: float) -> None:
        if self.may_stand_beside(tag, stage=Stage.CANARY, percent=percent):
            self.changes += self.canary != (tag, percent)
            assert self.registry.promote(tag, Stage.CANARY, percent).stage is Stage.CANARY
            self.free(tag)
            self.canary = (tag, percent)

    @rule(tag=tags)
    def stage_shadow(self, tag: str) -> None:
        if self.may_stand_beside(tag, stage=Stage.SHADOW):
            self.changes += self.shadow != tag
            assert self.registry.promote(tag, Stage.SHADOW).stage is Stage.SHADOW
            self.free(tag)
            self.shadow = tag

    @rule(stage=st.sampled_from([Stage.CANARY, Stage.SHADOW]))
    def unstage(self, stage: Stage) -> None:
        tag = self.shadow if stage is Stage.SHADOW else (self.canary or (None,))[0]
        if tag is None:
            with pytest.raises(VersionNotFound):
                self.registry.unstage(NAME, stage)
        else:
            assert self.registry.unstage(NAME, stage).tag == tag
            self.changes += 1
            self.free(tag)

    @rule()
    def rollback(self) -> None:
        if len(self.stack) < 2:
            with pytest.raises(VersionNotFound):
                self.registry.rollback(NAME)
        elif self.stack[-2] in self.damaged:
            with pytest.raises(IntegrityError):
                self.registry.rollback(NAME)
        else:
            self.stack.pop()
            assert self.registry.rollback(NAME).tag == self.stack[-1]
            self.changes += 1
            self.free(self.stack[-1])

    @rule(target=tags, tag=consumes(tags))
    def remove(self, tag: str) -> object:
        if self.stack and self.stack[-1] == tag:
            with pytest.raises(RegistryError, match="in production"):
                self.registry.remove(tag)
            return tag
        if tag == self.shadow or (self.canary is not None and self.canary[0] == tag):
            with pytest.raises(RegistryError, match="unstage"):
                self.registry.remove(tag)
            return tag
        self.registry.remove(tag)
        self.changes += 1
        self.known.remove(tag)
        self.stack = [t for t in self.stack if t != tag]
        self.once.discard(tag)
        with pytest.raises(VersionNotFound):
            self.registry.verify(tag)
        return multiple()

    @rule(tag=tags)
    def damage(self, tag: str) -> None:
        path = self.registry.get(tag).onnx_path
        path.chmod(0o644)
        path.write_bytes(b"damaged")
        self.damaged.add(tag)

    @invariant()
    def agrees(self) -> None:
        versions = self.registry.versions(NAME)
        assert [v.tag for v in versions] == self.known
        for version in versions:
            expected = "archived" if version.tag in self.once else "candidate"
            if self.shadow == version.tag:
                expected = "shadow"
            if self.canary is not None and self.canary[0] == version.tag:
                expected = "canary"
            if self.stack and self.stack[-1] == version.tag:
                expected = "production"
            assert version.stage.value == expected
        assert [v.tag for v in self.registry.previous(NAME)] == self.stack[-2::-1]
        assert self.registry.staged(NAME).percent == (self.canary[1] if self.canary else 0)
        assert len(self.registry.changes(NAME)) == self.changes
        assert samples.leftovers(self.home) == []


TestRegistryMachine = RegistryMachine.TestCase
TestRegistryMachine.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
