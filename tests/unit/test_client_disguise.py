"""Shuffled and padded requests: what the host sees, and that the caller does not notice."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections import Counter

import pytest
from typer.testing import CliRunner

from cipherscore import cli
from cipherscore.client import AsyncClient, Client, outgoing
from cipherscore.client.disguise import Disguise
from cipherscore.client.encryption import FieldCipher
from cipherscore.client.keys import Argon2Parameters, Keyset
from cipherscore.client.outgoing import score_requests, token_rows
from cipherscore.client.records import RecordCodec
from cipherscore.errors import ConfigurationError, RecordError
from cipherscore.schema import Field, Schema, Target
from cipherscore.schema_file import save_schema
from cipherscore.smoothing import Smoothing
from tests.support.host_double import HostDouble, probability, serve

SCHEMA = Schema(
    name="small",
    target=Target("risk", good="1", bad="2"),
    fields=(
        Field("town", "categorical", categories={f"T{n:03}": "" for n in range(700)}),
        Field("amount", "numeric", edges=(0.0, 10.0, 20.0, 30.0)),
    ),
)
KEYSET = Keyset.create()
CODEC = RecordCodec(FieldCipher(KEYSET, SCHEMA))
PASSPHRASE = "a long enough passphrase"


def record(number):
    return {"town": f"T{number:03}", "amount": number % 30}


def decoys(count):
    """Rows of towns that no real row here has."""
    return [record(500 + number) for number in range(count)]


def expected(rows):
    found = [probability(list(CODEC.encode(row).values())) for row in rows]
    return [pytest.approx(value, abs=1e-6) for value in found]


@pytest.fixture
def host():
    double = HostDouble({name: list(c) for name, c in CODEC.levels.items()}, CODEC.key_id)
    with serve(double) as port:
        double.address = f"127.0.0.1:{port}"
        yield double


@pytest.fixture(params=["sync", "async"])
def score(request, host):
    """Score with either client, made with some options."""

    def score(rows, reasons=0, **options):
        arguments = (KEYSET, SCHEMA, host.address)
        if request.param == "sync":
            with Client(*arguments, **options) as client:
                return client.score(rows, reasons=reasons)

        async def run():
            async with AsyncClient(*arguments, **options) as client:
                return await client.score(rows, reasons=reasons)

        return asyncio.run(run())

    return score


def towns(request):
    """The towns of a request's rows, in the order in which they were sent."""
    return [CODEC.levels["town"][row["town"]] for row in token_rows(request.table)]


def test_nothing_is_hidden_unless_asked_for(score, host):
    score([record(n) for n in range(40)])
    assert towns(host.requests[0]) == [f"T{n:03}" for n in range(40)]


@pytest.mark.parametrize("table", [False, True])
def test_shuffled_rows_are_answered_in_order(score, host, table):
    rows = [record(n) for n in range(300)]  # more tokens than one byte counts
    given = rows
    if table:
        import pyarrow as pa

        given = pa.Table.from_pylist(rows)
    found = score(given, shuffle=True)
    assert [one.probability for one in found] == expected(rows)
    sent = towns(host.requests[0])
    assert sorted(sent) == [row["town"] for row in rows]
    assert sent != sorted(sent)


def test_every_order_is_as_likely_as_any_other():
    request = score_requests(CODEC, [record(n) for n in range(3)], 10)[0]
    disguise = Disguise(CODEC)
    seen = Counter(tuple(towns(disguise.of(request).request)) for _ in range(3000))
    assert len(seen) == 6
    assert max(abs(count - 500) for count in seen.values()) < 130  # six standard deviations


@pytest.mark.parametrize(("rows", "sent"), [(1, 8), (7, 8), (8, 8), (9, 16), (40, 40)])
def test_padded_to_a_multiple(score, host, rows, sent):
    given = [record(n) for n in range(rows)]
    found = score(given, pad_to=8, decoys=decoys(20))
    assert [one.probability for one in found] == expected(given)
    seen = towns(host.requests[0])
    assert len(seen) == host.requests[0].table.rows == sent
    real = {row["town"] for row in given}
    assert len(real & set(seen)) == rows
    assert len(set(seen)) == sent  # no decoy twice


def test_decoys_stand_anywhere():
    request = score_requests(CODEC, [record(1)], 10)[0]
    disguise = Disguise(CODEC, 4, decoys(3))
    places = Counter(disguise.of(request).places[0] for _ in range(2000))
    assert set(places) == {0, 1, 2, 3}
    assert max(abs(count - 500) for count in places.values()) < 120


def test_each_message_is_padded_and_none_holds_too_many(score, host):
    given = [record(n) for n in range(25)]
    found = score(given, pad_to=4, decoys=decoys(8), batch_rows=10)
    assert [one.probability for one in found] == expected(given)
    assert sorted(request.table.rows for request in host.requests) == [4, 8, 8, 8]


def test_the_dictionary_does_not_tell_decoys():
    """Tokens stand sorted: those that only decoys have are not at the end."""
    request = score_requests(CODEC, [record(n) for n in range(3)], 10)[0]
    for column in Disguise(CODEC, 64, decoys(100)).of(request).request.table.columns:
        assert list(column.dictionary) == sorted(set(column.dictionary))


def test_reasons_are_the_real_rows(score):
    given = [record(n) for n in range(5)]
    plain = score(given, reasons=2)
    hidden = score(given, reasons=2, pad_to=16, decoys=decoys(30))
    assert [one.reasons for one in hidden] == [one.reasons for one in plain]
    assert len({one.reasons for one in plain}) == 5


def test_no_decoy_is_sent_again_before_all_were(caplog):
    request = score_requests(CODEC, [record(1)], 10)[0]
    disguise = Disguise(CODEC, 4, decoys(6))
    with caplog.at_level(logging.WARNING):
        sent = [town for _ in range(2) for town in towns(disguise.of(request).request)]
        assert Counter(sent).most_common(1) == [("T001", 2)]
        assert len(set(sent)) == 7
        assert not caplog.records
        disguise.of(request)
    assert "all 6 decoys were sent" in caplog.text
    assert "T50" not in caplog.text


def test_a_decoy_has_other_homophones_each_time():
    fields = (
        Field("town", "categorical", categories={"A": "", "B": ""}, smoothing=Smoothing(0.1),
              homophones={"A": (1,) * 50, "B": (1,)}),
    )  # fmt: skip
    codec = RecordCodec(FieldCipher(KEYSET, Schema("smooth", fields, SCHEMA.target)))
    request = score_requests(codec, [{"town": "B"}], 10)[0]
    disguise = Disguise(codec, 40, [{"town": "A"}] * 39)
    found = {row["town"] for row in token_rows(disguise.of(request).request.table)}
    assert found <= set(codec.levels["town"])
    assert len(found) > 15


def test_encrypted_rows_are_neither_shuffled_nor_padded(host):
    rows = [record(n) for n in range(50)]
    with Client(KEYSET, SCHEMA, host.address, pad_to=64, decoys=decoys(90)) as client:
        assert client.encrypt(rows) == [CODEC.encode(row) for row in rows]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pad_to": 8}, "pad_to and decoys go together"),
        ({"decoys": decoys(3)}, "pad_to and decoys go together"),
        ({"pad_to": -1, "decoys": decoys(3)}, "pad_to must be 0 .* or more, not -1"),
        ({"pad_to": 8, "decoys": []}, "there is no decoy"),
        ({"pad_to": 11, "decoys": decoys(3), "batch_rows": 10}, "pad_to must be at most 10"),
    ],
)
def test_what_makes_no_sense_is_refused(score, options, words):
    with pytest.raises(ConfigurationError, match=words):
        score([record(1)], **options)


def test_a_wrong_decoy_is_named(score):
    with pytest.raises(RecordError, match="record 1, field 'amount'") as caught:
        score([record(1)], pad_to=8, decoys=[record(1), {"town": "T001", "amount": "much"}])
    assert caught.value.row == 1


def test_messages_stay_below_the_limit(monkeypatch):
    monkeypatch.setattr(outgoing, "REQUEST_BYTES", 4000)
    from cipherscore.client.disguise import disguise_of

    most = outgoing.rows_per_request(CODEC, 8192)
    assert most < 100
    with pytest.raises(ConfigurationError, match=f"at most {most}"):
        disguise_of(CODEC, 8192, most + 1, decoys(3), shuffle=False)
    _, rows = disguise_of(CODEC, 8192, 7, decoys(3), shuffle=False)
    assert rows == most // 7 * 7


@pytest.fixture
def owner(tmp_path, host):
    """Files and words of the command line."""
    quick = Argon2Parameters(64, 1, 1)
    KEYSET.save(tmp_path / "keyset.json", PASSPHRASE, quick)
    save_schema(SCHEMA, tmp_path / "schema.toml")
    (tmp_path / "pass").write_text(PASSPHRASE)
    (tmp_path / "rows.json").write_text(json.dumps([record(n) for n in range(5)]))
    (tmp_path / "decoys.json").write_text(json.dumps(decoys(30)))
    return ["score", str(tmp_path / "rows.json"), "--json", "--address", host.address,
            "--schema", str(tmp_path / "schema.toml"), "--keyset", str(tmp_path / "keyset.json"),
            "--passphrase-file", str(tmp_path / "pass")]  # fmt: skip


def test_the_command_pads_and_shuffles(owner, host, tmp_path):
    words = [*owner, "--pad-to", "16", "--decoys", str(tmp_path / "decoys.json")]
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 0, result.output
    found = [row["probability"] for row in json.loads(result.stdout)]
    assert found == expected([record(n) for n in range(5)])
    assert host.requests[-1].table.rows == 16
    assert CliRunner().invoke(cli.app, [*owner, "--shuffle"]).exit_code == 0
    assert host.requests[-1].table.rows == 5


def test_the_command_refuses_them_where_no_host_is_asked(owner):
    result = CliRunner().invoke(cli.app, [*owner, "--engine", "local", "--shuffle"])
    assert result.exit_code != 0
    assert "--shuffle, --pad-to and --decoys" in str(result.exception)


def test_the_gateway_takes_the_same_options(owner, tmp_path, monkeypatch):
    made = {}

    class Seen(Exception):
        """Stops the command when the client is made."""

    def client(**options):
        made.update(options)
        raise Seen

    monkeypatch.setattr("cipherscore.client.AsyncClient", client)
    words = ["gateway", *owner[3:], "--pad-to", "4", "--decoys", str(tmp_path / "decoys.json")]
    result = CliRunner().invoke(cli.app, words)
    assert isinstance(result.exception, Seen), (result.output, sys.exc_info())
    assert made["pad_to"] == 4
    assert made["decoys"] == decoys(30)
    assert made["shuffle"] is False
