"""Reason codes on the owner's side: named from what was sent, and nothing of the host believed."""

from __future__ import annotations

import asyncio
import json
import math
import sys

import pytest

from cipherscore import cli
from cipherscore.client import AsyncClient, Client
from cipherscore.client.encryption import FieldCipher
from cipherscore.client.keys import Argon2Parameters, Keyset
from cipherscore.client.reasons import read_reasons
from cipherscore.client.records import RecordCodec
from cipherscore.errors import ConfigurationError, ServiceError
from cipherscore.proto.v1 import cipherscore_pb2 as pb
from cipherscore.schema import Field, Schema, Target
from cipherscore.schema_file import save_schema
from tests.support.host_double import HostDouble, contribution, explain, serve

SCHEMA = Schema(
    name="small",
    target=Target("risk", good="1", bad="2"),
    fields=(
        Field("colour", "categorical", "Colour of the car", {"C1": "red", "C2": "blue"}),
        Field("amount", "numeric", "Credit amount", edges=(0.0, 10.0, 20.0, 30.0), unit="DM"),
        Field("town", "categorical", categories={f"T{n:03}": "" for n in range(700)}),
        Field("job", "categorical", "Work", {"J1": "unskilled"}, missing="level"),
    ),
)
FIELDS = list(SCHEMA.by_name)
KEYSET = Keyset.create()
CODEC = RecordCodec(FieldCipher(KEYSET, SCHEMA))


def record(n: int) -> dict[str, object]:
    return {
        "colour": f"C{n % 2 + 1}",
        "amount": 5 + 10 * (n % 3),
        "town": f"T{n % 700:03}",
        "job": "J1" if n % 2 else None,
    }


def level_of(field: str, n: int) -> tuple[object, str, str]:
    """Level, meaning and description of a field of `record`, written apart from the schema."""
    bin_ = ["[0, 10)", "[10, 20)", "[20, 30]"][n % 3]
    return {
        "colour": (f"C{n % 2 + 1}", ["red", "blue"][n % 2], "Colour of the car"),
        "amount": (bin_, f"{bin_} DM", "Credit amount"),
        "town": (f"T{n % 700:03}", f"T{n % 700:03}", ""),
        "job": ("J1", "unskilled", "Work") if n % 2 else (None, "absent", "Work"),
    }[field]


def expected(n: int, count: int) -> list[tuple[object, ...]]:
    """What row ``n`` must be told, from the tokens that its values encrypt to."""
    values = {name: contribution(token) for name, token in CODEC.encode(record(n)).items()}
    order = sorted(FIELDS, key=lambda name: -values[name])[:count]
    return [(name, values[name], *level_of(name, n)) for name in order]


def facts(score) -> list[tuple[object, ...]]:
    return [(r.field, r.contribution, r.level, r.meaning, r.description) for r in score.reasons]


@pytest.fixture
def host():
    tokens = {name: list(column) for name, column in CODEC.levels.items()}
    double = HostDouble(tokens, CODEC.key_id)
    with serve(double) as port:
        double.port = port
        yield double


def ask(kind, host, rows, batch_rows=8192, **options):
    arguments = (KEYSET, SCHEMA, f"127.0.0.1:{host.port}")
    if kind is Client:
        with Client(*arguments, batch_rows=batch_rows) as client:
            return client.score(rows, **options)

    async def call():
        async with AsyncClient(*arguments, batch_rows=batch_rows) as client:
            return await client.score(rows, **options)

    return asyncio.run(call())


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("batch_rows", [7, 8192])
@pytest.mark.parametrize("count", [1, 3, 4])
def test_each_row_gets_its_reasons_in_its_own_words(kind, host, batch_rows, count):
    scores = ask(kind, host, [record(n) for n in range(40)], batch_rows, reasons=count)
    assert [facts(score) for score in scores] == [expected(n, count) for n in range(40)]
    assert {request.reasons for request in host.requests} == {count}


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_none_unless_asked_for(kind, host):
    scores = ask(kind, host, [record(0), record(1)])
    assert [score.reasons for score in scores] == [(), ()]
    assert host.requests[0].reasons == 0


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("count", [-1, 5, 1 << 40])
def test_more_than_there_are_fields_is_not_sent(kind, host, count):
    with pytest.raises(ConfigurationError, match="0 to 4"):
        ask(kind, host, [record(0)], reasons=count)
    assert host.requests == []


def test_asking_why_changes_no_answer(host):
    rows = [record(n) for n in range(20)]
    plain, explained = ask(Client, host, rows), ask(Client, host, rows, reasons=2)
    assert [(s.probability, s.decision, s.model) for s in plain] == [
        (s.probability, s.decision, s.model) for s in explained
    ]


def test_a_table_is_named_as_its_records_are(host):
    pa = pytest.importorskip("pyarrow")
    rows = [record(n) for n in range(900)]
    table = pa.Table.from_pylist(rows)
    assert ask(Client, host, table, 400, reasons=2) == ask(Client, host, rows, reasons=2)


DAMAGES = {
    "no reasons": lambda a: a.ClearField("reasons"),
    "too few per row": lambda a: setattr(a.reasons, "per_row", 1),
    "a contribution less": lambda a: a.reasons.contribution.pop(),
    "a contribution more": lambda a: a.reasons.contribution.append(0.0),
    "no number": lambda a: a.reasons.contribution.__setitem__(0, math.nan),
    "infinite": lambda a: a.reasons.contribution.__setitem__(0, math.inf),
    "an index less": lambda a: setattr(a.reasons, "indices", a.reasons.indices[:-1]),
    "an index more": lambda a: setattr(a.reasons, "indices", a.reasons.indices + b"\0"),
    "an index of no field": lambda a: setattr(a.reasons, "indices", b"\x04" * 4),
    "a field twice in a row": lambda a: setattr(a.reasons, "indices", b"\0\0\0\1"),
    "out of order": lambda a: a.reasons.contribution.__setitem__(1, 99.0),
    "a field less": lambda a: a.reasons.fields.pop(),
    "a foreign field": lambda a: a.reasons.fields.__setitem__(0, "other"),
    "a field named twice": lambda a: a.reasons.fields.__setitem__(0, FIELDS[1]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_malformed_answer(host, damage):
    host.edit = DAMAGES[damage]
    with pytest.raises(ServiceError, match="malformed"):
        ask(Client, host, [record(0), record(1)], reasons=2)


def test_more_fields_than_a_byte_counts():
    fields = tuple(
        Field(f"f{n:03}", "categorical", categories={"a": "", "b": ""}) for n in range(300)
    )
    codec = RecordCodec(FieldCipher(KEYSET, Schema("wide", fields, SCHEMA.target)))
    rows = [list(codec.encode({f.name: "ab"[n % 2] for f in fields}).values()) for n in range(3)]
    names = [f.name for f in fields]
    request = pb.ScoreRequest(key_id=codec.key_id, reasons=5)
    request.table.rows = 3
    for position, name in enumerate(names):
        tokens = sorted({row[position] for row in rows})
        places = bytes(tokens.index(row[position]) for row in rows)
        request.table.columns.add(field=name, dictionary=tokens, indices=places)
    answer = pb.ScoreResponse()
    explain(answer, names, rows, 5)
    assert len(answer.reasons.indices) == 2 * 15
    for n, reasons in enumerate(read_reasons(codec, request, answer)):
        values = dict(zip(names, map(contribution, rows[n]), strict=True))
        assert [r.contribution for r in reasons] == sorted(values.values(), reverse=True)[:5]
        assert all(values[r.field] == r.contribution and r.level == "ab"[n % 2] for r in reasons)


# ---- the command line


@pytest.fixture
def command(tmp_path, monkeypatch, capfd, host):
    """Run ``cipherscore score`` on two records; returns exit code, stdout and stderr."""
    secret = "a long enough passphrase"
    KEYSET.save(tmp_path / "keyset.json", secret, Argon2Parameters(64, 1, 1))
    (tmp_path / "passphrase").write_text(secret)
    save_schema(SCHEMA, tmp_path / "schema.toml")
    (tmp_path / "a.json").write_text(json.dumps([record(0), record(1)]))

    def call(*words):
        words = (
            "cipherscore", "score", tmp_path / "a.json", "--address", f"127.0.0.1:{host.port}",
            "--keyset", tmp_path / "keyset.json", "--schema", tmp_path / "schema.toml",
            "--passphrase-file", tmp_path / "passphrase", *words,
        )  # fmt: skip
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        for console, stream in (("out", sys.stdout), ("err", sys.stderr)):
            monkeypatch.setattr(getattr(cli.common, console), "_file", stream)
        capfd.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return call


def test_the_command_prints_them_for_scripts(command):
    code, out, _ = command("--reasons", 2, "--json")
    assert code == 0
    for n, answer in enumerate(json.loads(out)):
        assert [tuple(reason.values()) for reason in answer["reasons"]] == expected(n, 2)
        assert list(answer["reasons"][0]) == [
            "field", "contribution", "level", "meaning", "description",
        ]  # fmt: skip
    code, out, _ = command("--json")
    assert code == 0
    assert set(json.loads(out)[0]) == {"probability", "decision", "model"}


def test_the_command_prints_them_for_people(command):
    code, out, _ = command("--reasons", 4)
    assert code == 0
    for n in range(2):
        for name, value, _, meaning, description in expected(n, 4):
            assert f"{value:+.3f}  {description or name}: {meaning}" in out
    assert "reasons" not in command()[1]


@pytest.mark.parametrize("words", [("--reasons", "-1"), ("--reasons", "x")])
def test_the_command_refuses_what_is_no_number(command, words):
    assert command(*words)[0] == 2


def test_the_command_refuses_what_cannot_be(command):
    code, _, err = command("--reasons", 9)
    assert code != 0
    assert "0 to 4" in err
    code, _, err = command("--reasons", 1, "--engine", "local")
    assert code != 0
    assert "--engine remote" in err
