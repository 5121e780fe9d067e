"""Random sequences of operations, compared with a model of what they should do."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from cipherscore.errors import IntegrityError, RegistryError, VersionNotFound
from registry import Registry
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
        self.stack = [t for t in self.stack if t != tag] + [tag]
        self.once.add(tag)

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

    @rule(target=tags, tag=consumes(tags))
    def remove(self, tag: str) -> object:
        if self.stack and self.stack[-1] == tag:
            with pytest.raises(RegistryError, match="in production"):
                self.registry.remove(tag)
            return tag
        self.registry.remove(tag)
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
            if self.stack and self.stack[-1] == version.tag:
                expected = "production"
            assert version.stage.value == expected
        assert [v.tag for v in self.registry.previous(NAME)] == self.stack[-2::-1]
        assert samples.leftovers(self.home) == []


TestRegistryMachine = RegistryMachine.TestCase
TestRegistryMachine.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
