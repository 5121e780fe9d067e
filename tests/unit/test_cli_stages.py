"""``cipherscore models`` where it changes stages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cipherscore import cli
from cipherscore.errors import RegistryError
from registry import Registry, Version
from tests.support import registry_samples as samples
from tests.support.registry_samples import NAME

Run = Callable[..., str]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    return Registry(tmp_path)


@pytest.fixture
def versions(registry: Registry) -> list[Version]:
    found = [samples.register(registry) for _ in range(3)]
    registry.promote(found[0].tag)
    return found


def run(*words: str) -> None:
    result = CliRunner().invoke(cli.app, ["models", *words])
    if result.exception is not None:
        raise result.exception


def told(*words: str) -> list[dict[str, object]]:
    result = CliRunner().invoke(cli.app, ["models", *words, "--json"])
    assert result.exit_code == 0, result.output
    found: list[dict[str, object]] = json.loads(result.output)
    return found


def test_a_version_is_shown_once(versions: list[Version]) -> None:
    tag = versions[0].tag
    shown = CliRunner().invoke(cli.app, ["models", "show", tag])
    assert shown.exit_code == 0
    assert shown.output.count(tag) == 1
    found = json.loads(CliRunner().invoke(cli.app, ["models", "show", tag, "--json"]).output)
    assert (found["model"], found["stage"]) == (tag, "production")


def test_canary_and_shadow(versions: list[Version]) -> None:
    _, second, third = versions
    run("promote", second.tag, "--stage", "canary", "--percent", "12.5")
    run("promote", third.tag, "--stage", "shadow")
    found = [(entry["stage"], entry["percent"]) for entry in told("list")]
    assert found == [("production", None), ("canary", 12.5), ("shadow", None)]
    run("unstage", NAME, "--stage", "shadow")
    run("promote", second.tag)
    run("rollback", NAME)
    assert [entry["stage"] for entry in told("list")] == ["production", "archived", "candidate"]
    changes = [(entry["action"], entry["version"]) for entry in told("history", NAME)]
    assert changes == [
        ("promote", versions[0].version),
        ("canary", second.version),
        ("shadow", third.version),
        ("unstage-shadow", third.version),
        ("promote", second.version),
        ("rollback", versions[0].version),
    ]


def test_people_see_the_share(
    versions: list[Version], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("promote", versions[1].tag, "--stage", "canary", "--percent", "10")
    for words in (["list"], ["history", NAME]):
        cli.app(["models", *words], standalone_mode=False)
        assert "canary 10 %" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ("--stage", "canary"),
        ("--stage", "canary", "--percent", "0"),
        ("--stage", "canary", "--percent", "nan"),
        ("--stage", "shadow", "--percent", "10"),
        ("--percent", "10"),
    ],
)
def test_shares_that_are_none(versions: list[Version], words: tuple[str, ...]) -> None:
    with pytest.raises(RegistryError):
        run("promote", versions[1].tag, *words)
    assert len(told("history", NAME)) == 1


@pytest.mark.parametrize(
    "words",
    [
        ("promote", "x:1", "--stage", "archived"),
        ("unstage", NAME),
        ("unstage", NAME, "--stage", "production"),
    ],
)
def test_wrong_words(registry: Registry, words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*words)
    assert caught.value.code == 2
