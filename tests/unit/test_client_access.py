"""Credentials on the client's side: where they come from, where they go, where never."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import grpc
import pytest
from typer.testing import CliRunner

from cipherscore.cli import app
from cipherscore.client import AsyncClient, Client, Tls
from cipherscore.client.credential import MAX_LENGTH, Credential
from cipherscore.client.encryption import FieldCipher
from cipherscore.client.keys import Argon2Parameters, Keyset
from cipherscore.client.records import RecordCodec
from cipherscore.errors import ConfigurationError, RateLimited, Unauthenticated
from cipherscore.schema import Field, Schema, Target
from cipherscore.schema_file import save_schema
from tests.support.certificates import make_authority
from tests.support.host_double import HostDouble, fail, serve

SCHEMA = Schema(
    "small",
    (Field("colour", "categorical", categories={"r": "", "g": ""}),),
    Target("risk", good="1", bad="2"),
)
KEYSET = Keyset.create()
CODEC = RecordCodec(FieldCipher(KEYSET, SCHEMA))
RECORD = {"colour": "r"}
SECRET = "cs_" + "k" * 43


class Doorman(HostDouble):
    """A host that keeps the credentials it was shown."""

    def __init__(self) -> None:
        super().__init__({"colour": list(CODEC.levels["colour"])}, CODEC.key_id)
        self.shown: list[str | None] = []

    def _begin(self, request, context) -> None:
        self.shown.append(dict(context.invocation_metadata()).get("authorization"))
        super()._begin(request, context)


@pytest.fixture
def host():
    return Doorman()


@pytest.fixture
def address(host):
    with serve(host) as port:
        yield f"127.0.0.1:{port}"


def use(client: Client) -> None:
    with client:
        client.score([RECORD])
        client.score([RECORD] * 3)
        client.generate(2)
        client.model()


def use_async(client: AsyncClient) -> None:
    async def run() -> None:
        async with client:
            await client.score([RECORD] * 3)
            await client.generate(2)
            await client.model()

    asyncio.run(run())


@pytest.mark.parametrize(("cls", "act"), [(Client, use), (AsyncClient, use_async)])
def test_every_call_shows_the_key(host, address, cls, act) -> None:
    act(cls(KEYSET, SCHEMA, address, api_key=SECRET, batch_rows=1))
    assert len(host.shown) >= 5
    assert set(host.shown) == {f"Bearer {SECRET}"}
    host.shown.clear()
    act(cls(KEYSET, SCHEMA, address, batch_rows=1))
    assert set(host.shown) == {None}


def test_a_file_is_read_again_when_it_changes(host, address, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("first\n")
    with Client(KEYSET, SCHEMA, address, api_key=path) as client:
        client.score([RECORD])
        path.write_text("the-second\r\n")
        client.score([RECORD])
        path.write_text("")  # is being written
        client.score([RECORD])
        path.unlink()
        client.score([RECORD])
        path.write_text("the-third-one")
        client.score([RECORD])
    assert host.shown == [
        "Bearer first", "Bearer the-second", "Bearer the-second", "Bearer the-second",
        "Bearer the-third-one",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "content", ["", "\n", "a b", "a\nb", "a\0b", "é", "x" * (MAX_LENGTH + 1), "\u2028"]
)
@pytest.mark.parametrize("from_file", [False, True])
def test_what_cannot_be_a_credential(tmp_path: Path, content: str, from_file: bool) -> None:
    path = tmp_path / "key"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        Credential(path if from_file else content)
    assert len(content) < 3 or content not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"cannot read the API key file {tmp_path}/none"):
        Client(KEYSET, SCHEMA, "127.0.0.1:1", api_key=tmp_path / "none")


@pytest.mark.parametrize("insecure", [False, True])
def test_a_key_never_leaves_this_machine_in_plain_text(insecure: bool) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Client(KEYSET, SCHEMA, "credit.example:50051", api_key=SECRET, insecure=insecure)
    assert "TLS" in str(caught.value)
    assert SECRET not in str(caught.value)
    Client(KEYSET, SCHEMA, "credit.example:50051", api_key=SECRET, tls=Tls()).close()
    Client(KEYSET, SCHEMA, "credit.example:50051", insecure=True).close()


def test_no_representation_holds_the_key() -> None:
    client = Client(KEYSET, SCHEMA, "127.0.0.1:50051", api_key=SECRET)
    assert SECRET not in repr(client) + repr(client._transport) + repr(client._credential)
    client.close()


def test_key_and_certificate_over_mutual_tls(host, tmp_path: Path) -> None:
    authority = make_authority()
    server_key, server_chain = authority.issue("credit.example")
    key, chain = authority.issue("gw.bank-a")
    credentials = grpc.ssl_server_credentials(
        [(server_key, server_chain)], authority.certificate, require_client_auth=True
    )
    with serve(host, credentials=credentials) as port:
        tls = Tls(authority.certificate, chain, key, "credit.example")
        with Client(KEYSET, SCHEMA, f"127.0.0.1:{port}", tls=tls, api_key=SECRET) as client:
            client.score([RECORD])
    assert host.shown == [f"Bearer {SECRET}"]


# ---- limits of the host


def busy(wait: str | None, code: str = "rate-limited"):
    metadata = {"cipherscore_error_code": code}
    if wait is not None:
        metadata["grpc_retry_pushback_ms"] = wait
    return fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "slower, please", **metadata)


def test_the_host_says_when_to_try_again(host, address) -> None:
    host.script = [busy("1"), busy("1500")]
    began = time.monotonic()
    with Client(KEYSET, SCHEMA, address) as client:
        client.score([RECORD])
    # Its own backoff would have come to the third try after 0.72 s at most.
    assert time.monotonic() - began >= 1.5
    assert len(host.requests) == 3


def test_a_host_that_wants_no_other_try_gets_none(host, address) -> None:
    host.script = [busy("-1")]
    with Client(KEYSET, SCHEMA, address) as client, pytest.raises(RateLimited) as caught:
        client.score([RECORD])
    assert caught.value.retry_after is None
    assert len(host.requests) == 1


def test_in_the_end_the_caller_is_told(host, address) -> None:
    host.script = [busy("1")] * 9
    with Client(KEYSET, SCHEMA, address) as client, pytest.raises(RateLimited) as caught:
        client.score([RECORD])
    assert caught.value.retry_after == 0.001
    assert str(caught.value) == "slower, please"
    assert len(host.requests) == 5


def test_a_refused_credential_is_an_error_of_its_own(host, address) -> None:
    host.script = [fail(grpc.StatusCode.UNAUTHENTICATED, cipherscore_error_code="unauthenticated")]
    with Client(KEYSET, SCHEMA, address) as client, pytest.raises(Unauthenticated):
        client.score([RECORD])
    assert len(host.requests) == 1


# ---- the command line


@pytest.fixture
def words(address: str, tmp_path: Path) -> list[str]:
    KEYSET.save(tmp_path / "keyset", "a long enough passphrase", Argon2Parameters(64, 1, 1))
    save_schema(SCHEMA, tmp_path / "schema.toml")
    (tmp_path / "passphrase").write_text("a long enough passphrase")
    (tmp_path / "record.json").write_text(json.dumps(RECORD))
    return [
        "score", str(tmp_path / "record.json"), "--address", address,
        "--keyset", str(tmp_path / "keyset"), "--schema", str(tmp_path / "schema.toml"),
        "--passphrase-file", str(tmp_path / "passphrase"),
    ]  # fmt: skip


@pytest.mark.parametrize("by", ["option", "environment"])
def test_the_command_line_takes_a_file(host, words, tmp_path, monkeypatch, by: str) -> None:
    key = tmp_path / "api.key"
    key.write_text(SECRET)
    if by == "option":
        words = [*words, "--api-key-file", str(key)]
    else:
        monkeypatch.setenv("CIPHERSCORE_API_KEY_FILE", str(key))
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0
    assert host.shown == [f"Bearer {SECRET}"]
    assert SECRET not in result.output


def test_no_option_takes_a_key_itself() -> None:
    for command in ("score", "generate", "gateway"):
        text = CliRunner().invoke(app, [command, "--help"]).output
        assert "--api-key-file" in text
        assert "--api-key " not in text


def test_half_a_client_certificate_is_refused(words, tmp_path) -> None:
    (tmp_path / "c").write_bytes(make_authority().certificate)
    with pytest.raises(ConfigurationError, match="together"):
        CliRunner().invoke(app, [*words, "--tls-cert", str(tmp_path / "c")], catch_exceptions=False)
