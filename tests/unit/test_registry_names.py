from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cipherscore.errors import RegistryError
from registry import Registry, names
from tests.support import registry_samples as samples

BAD_NAMES = [
    "", ".", "..", "../x", "a/b", "/etc", "a\\b", "a\0b", "A", "-a", "a-", "a b", "a.b", "a\n",
    "a" * 64, "ä", "~", "a:b:c",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_cannot_leave_the_home(name: str, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "home")
    for refuse in (
        lambda: registry.register(name, samples.files(), samples.record()),
        lambda: registry.promote(f"{name}:latest"),
        lambda: registry.remove(f"{name}:latest"),
        lambda: registry.rollback(name),
        lambda: registry.versions(name),
        lambda: registry.get(name),
    ):
        with pytest.raises(RegistryError):
            refuse()
    assert list(tmp_path.iterdir()) == []


@settings(deadline=None)
@given(st.text())
def test_whatever_is_accepted_is_one_path_component(name: str) -> None:
    if names.is_name(name):
        assert Path("home", name).resolve().parent == Path("home").resolve()
        assert name == name.lower()


@pytest.mark.parametrize(
    "version", ["", "..", "../../x", "1", "20261321-000000-000-abcd", "20260131-120000-000-ABCD"]
)
def test_a_version_has_one_form(version: str, tmp_path: Path) -> None:
    with pytest.raises(RegistryError):
        Registry(tmp_path).get(f"{samples.NAME}:{version}")


def test_version_ids_sort_by_time_even_when_the_clock_stands_still() -> None:
    made = [names.new_version(None)]
    for _ in range(200):
        made.append(names.new_version(made[-1]))
    assert made == sorted(made)
    assert len({m[:19] for m in made}) == len(made)
    assert abs((names.created_at(made[0]) - datetime.now(timezone.utc)).total_seconds()) < 60


def test_a_version_id_after_one_from_the_future_is_later() -> None:
    assert names.new_version("20991231-235959-999-ffff") > "20991231-235959-999-ffff"
