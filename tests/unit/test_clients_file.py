"""The clients file and the command that keeps it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cipherscore.cli import app
from cipherscore.errors import ConfigurationError
from serving import clients_file
from serving.clients_file import Entry, digest, new_key

D1 = "1" * 64
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", fullmatch=True)
entries = st.builds(
    Entry,
    name=names,
    scopes=st.lists(
        st.sampled_from(["score", "generate", "admin"]), min_size=1, max_size=3, unique=True
    ).map(tuple),
    key_sha256=st.lists(st.binary(max_size=8).map(lambda b: digest(b.hex())), max_size=3).map(tuple),
    certificates=st.lists(st.text(min_size=1, max_size=256), max_size=2).map(tuple),
    rate_per_second=st.none() | st.floats(0, 1e9),
    rate_burst=st.none() | st.integers(1, 10**9),
    max_concurrent=st.none() | st.integers(0, 10**9),
)  # fmt: skip


def unique(found: list[Entry]) -> bool:
    parts = [[e.name for e in found], [k for e in found for k in e.key_sha256],
             [c for e in found for c in e.certificates]]  # fmt: skip
    return all(len(set(part)) == len(part) for part in parts)


@given(st.lists(entries, max_size=4))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, found: list[Entry]):
    path = tmp_path_factory.mktemp("c") / "clients.toml"
    if unique(found):
        clients_file.write(path, found)
        assert clients_file.read(path) == tuple(found)
    else:
        with pytest.raises(ConfigurationError, match="twice"):
            clients_file.write(path, found)
        assert not path.exists()


TWICE = "".join(
    f'[[client]]\nname = "{name}"\nscopes = ["score"]\nkey_sha256 = ["{D1}"]\n' for name in "ab"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[client]]", "client 1: name: Field required"),
        ('[[client]]\nname = "a"', r"client 1 \(a\): scopes: Field required"),
        ('[[client]]\nname = "a"\nscopes = []', "scopes: "),
        ('[[client]]\nname = "a"\nscopes = ["root"]', "scopes: "),
        ('[[client]]\nname = "a b"\nscopes = ["score"]', "name: "),
        ('[[client]]\nname = "jwt:a"\nscopes = ["score"]', "name: "),
        ('[[client]]\nname = "a"\nscopes = ["score"]\nscope = "x"', "did you mean scopes"),
        ('[[client]]\nname = "a"\nscopes = ["score"]\nkey_sha256 = ["abc"]', "key_sha256: "),
        ('[[client]]\nname = "a"\nscopes = ["score"]\nrate_per_second = -1', "rate_per_second: "),
        ('[[client]]\nname = "a"\nscopes = ["score"]\nrate_per_second = nan', "rate_per_second: "),
        ('[[client]]\nname = "a"\nscopes = ["score"]\nrate_burst = true', "true or false"),
        ('[[client]]\nname = "a"\nscopes = ["score"]\n' * 2, "'a' stands there twice"),
        (TWICE, "key_sha256 stands"),
        ('[client]\nname = "a"', "two brackets"),
        ("client = 7", "two brackets"),
        ('[[clients]]\nname = "a"', "no key 'clients'"),
        ("[[client", "not TOML"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message) as caught:
        clients_file.read(path)
    assert str(path) in str(caught.value)
    assert D1 not in str(caught.value)


def test_keys_are_random_and_long() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith("cs_") and len(key) == 46 and "." not in key for key in keys)


# ---- the command


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "clients.toml"


@pytest.fixture
def run(file: Path):
    def run(*words: str):
        return CliRunner().invoke(
            app, ["clients", *words, "--file", str(file)], catch_exceptions=False
        )

    return run


def test_add_shows_the_key_once_and_stores_its_digest(run, file: Path) -> None:
    key = run("add", "bank-a", "--scope", "score", "--scope", "score").stdout.strip()
    assert clients_file.read(file) == (Entry("bank-a", ("score",), (digest(key),)),)
    assert key not in file.read_text()
    listing = run("list")
    assert "bank-a" in listing.stdout
    assert key not in listing.stdout
    assert digest(key) not in listing.stdout + run("list", "--json").stdout


def test_a_key_can_go_to_a_file_of_its_own(run, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "k"
    result = run("add", "a", "--scope", "score", "--key-out", str(out), "--rate", "2.5")
    assert "cs_" not in result.output
    assert out.stat().st_mode & 0o777 == 0o600
    entry = clients_file.read(file)[0]
    assert entry.key_sha256 == (digest(out.read_text().strip()),)
    assert entry.rate_per_second == 2.5
    with pytest.raises(ConfigurationError, match="exists"):
        run("add", "b", "--scope", "score", "--key-out", str(out))
    assert [e.name for e in clients_file.read(file)] == ["a"]


def test_rotation_leaves_the_last_key_valid(run, file: Path) -> None:
    keys = [run("add", "a", "--scope", "score").stdout.strip()]
    keys += [run("rotate", "a").stdout.strip() for _ in range(2)]
    assert clients_file.read(file)[0].key_sha256 == (digest(keys[1]), digest(keys[2]))
    keys.append(run("rotate", "a", "--now").stdout.strip())
    assert clients_file.read(file)[0].key_sha256 == (digest(keys[3]),)
    assert len(set(keys)) == 4


def test_a_client_with_a_certificate_gets_no_key(run, file: Path) -> None:
    result = run("add", "a", "--scope", "admin", "--certificate", "gw.example")
    assert "cs_" not in result.output
    assert clients_file.read(file) == (Entry("a", ("admin",), certificates=("gw.example",)),)


def test_remove_and_refusals(run, file: Path) -> None:
    run("add", "a", "--scope", "score")
    file.chmod(0o640)
    before = file.read_text()
    for words, message in (
        (("add", "a", "--scope", "score"), "there is a client a"),
        (("add", "b c", "--scope", "score"), "name"),
        (("remove", "b"), "no client 'b'; there is: a"),
        (("rotate", "b"), "no client 'b'"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            run(*words)
        assert file.read_text() == before
    assert run("add", "b").exit_code == 2
    assert run("remove", "a").exit_code == 0
    assert clients_file.read(file) == ()
    assert json.loads(run("list", "--json").stdout) == []
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_missing_file_is_made_by_add_only(run, file: Path) -> None:
    for words in (("remove", "a"), ("rotate", "a"), ("list",)):
        with pytest.raises(ConfigurationError, match="cannot read"):
            run(*words)
    run("add", "a", "--scope", "score")
    assert file.exists()
