"""The SDK against a real gRPC server that stands in for the host."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cipherscore.client import AsyncClient, Client, Score, Tls, outgoing
from cipherscore.client.encryption import FieldCipher
from cipherscore.client.incoming import _levels
from cipherscore.client.keys import Argon2Parameters, Keyset
from cipherscore.client.outgoing import token_column
from cipherscore.client.records import RecordCodec
from cipherscore.client.transport import DETAIL_LENGTH, Address, Transport
from cipherscore.errors import (
    ConfigurationError,
    DataError,
    DeadlineExceeded,
    DecryptionError,
    EmptyBatch,
    RecordError,
    RequestError,
    ServiceError,
    ServiceUnavailable,
    request_errors,
)
from cipherscore.proto.v1 import cipherscore_pb2 as pb
from cipherscore.proto.v1.cipherscore_pb2_grpc import CipherScoreStub
from cipherscore.schema import Field, Schema, Target
from cipherscore.schema_file import save_schema
from tests.support.certificates import make_authority
from tests.support.host_double import (
    MODEL,
    THRESHOLD,
    HostDouble,
    fail,
    probability,
    serve,
    sleep,
    unpack,
)

UNAVAILABLE = fail(grpc.StatusCode.UNAVAILABLE)
PASSPHRASE = "a long enough passphrase"

SCHEMA = Schema(
    name="small",
    target=Target("risk", good="1", bad="2"),
    fields=(
        Field("colour", "categorical", categories={f"C{n}": "" for n in range(4)}),
        Field("amount", "numeric", edges=(0.0, 10.0, 20.0, 30.0), valid_range=(0.0, 100.0)),
        Field("town", "categorical", categories={f"T{n:03}": "" for n in range(700)}),
        Field("job", "categorical", categories={"J1": "", "J2": ""}, missing="level"),
    ),
)
KEYSET = Keyset.create()
CODEC = RecordCodec(FieldCipher(KEYSET, SCHEMA))

records = st.fixed_dictionaries(
    {
        "colour": st.sampled_from(list(SCHEMA.fields[0].categories)),
        "amount": st.integers(0, 100) | st.floats(0, 100),
        "town": st.sampled_from(list(SCHEMA.fields[2].categories)),
        "job": st.sampled_from(["J1", "J2", None, ""]),
    },
    optional={"risk": st.sampled_from(["1", "2", 1])},
)


def record(number: int = 0) -> dict[str, object]:
    return {
        "colour": f"C{number % 4}",
        "amount": number % 30,
        "town": f"T{number % 700:03}",
        "job": None,
    }


def expected(rows) -> list[Score]:
    values = [probability(list(CODEC.encode(row).values())) for row in rows]
    return [
        Score(pytest.approx(v, abs=1e-6), "bad" if v >= THRESHOLD else "good", MODEL)
        for v in values
    ]


@pytest.fixture
def server():
    """One of its own for each test: a request that a test gave up may reach it late."""
    tokens = {name: list(column) for name, column in CODEC.levels.items()}
    host = HostDouble(tokens, CODEC.key_id)
    with serve(host) as port:
        yield host, port


@pytest.fixture
def host(server):
    return server[0]


@pytest.fixture
def address(server, host):
    return f"127.0.0.1:{server[1]}"


class Blocking:
    """Calls either client in the same way, so that each test holds for both."""

    def __init__(self, cls, *args, **options):
        self.make = lambda: cls(*args, **options)

    def __getattr__(self, name):
        def call(*args, **options):
            client = self.make()
            if not inspect.iscoroutinefunction(getattr(client, name)):
                with client:
                    return getattr(client, name)(*args, **options)

            async def run():
                async with client:
                    return await getattr(client, name)(*args, **options)

            return asyncio.run(run())

        return call


@pytest.fixture(params=[Client, AsyncClient], ids=["sync", "async"])
def connect(request, address):
    return lambda **options: Blocking(
        request.param, KEYSET, SCHEMA, options.pop("address", address), **options
    )


class TestScore:
    def test_one_record(self, connect, host):
        assert connect().score([record()]) == expected([record()])
        assert host.requests[0].key_id == KEYSET.primary

    @pytest.mark.parametrize("batch_rows", [1, 7, 8192])
    def test_many_records_come_back_in_order(self, connect, host, batch_rows):
        rows = [record(n * 13) for n in range(45)]
        assert connect(batch_rows=batch_rows).score(rows) == expected(rows)
        assert len(host.requests) == -(-45 // batch_rows)

    def test_encrypted_rows_are_those_that_are_sent(self, address, host):
        rows = [record(n * 13) for n in range(300)]
        with Client(KEYSET, SCHEMA, address, batch_rows=100) as client:
            encrypted = client.encrypt(rows)
            assert not host.requests
            for row in rows:
                client.score([row])
        assert encrypted == [
            {column.field: column.dictionary[0] for column in request.table.columns}
            for request in host.requests
        ]

    def test_any_iterable_will_do(self, connect, host):
        rows = [record(n) for n in range(5)]
        assert connect().score(row for row in rows) == expected(rows)

    @settings(
        max_examples=30,
        deadline=None,
        # The server may stay the same: it keeps nothing that this test looks at.
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(rows=st.lists(records, min_size=1, max_size=20), batch_rows=st.integers(1, 25))
    def test_any_valid_records(self, server, rows, batch_rows):
        with Client(KEYSET, SCHEMA, f"127.0.0.1:{server[1]}", batch_rows=batch_rows) as client:
            assert client.score(rows) == expected(rows)

    def test_nothing_is_sent_if_the_last_record_is_wrong(self, connect, host):
        rows = [record(n) for n in range(20)] + [{**record(), "colour": "C9"}]
        with pytest.raises(RecordError, match="C9") as caught:
            connect(batch_rows=4).score(rows)
        assert (caught.value.field, caught.value.row) == ("colour", 20)
        assert host.requests == []

    def test_no_raw_level_crosses_the_wire(self, connect, host):
        connect().score([record(n) for n in range(700)])
        sent = host.requests[0].SerializeToString()
        levels = [level for f in SCHEMA.fields if f.kind == "categorical" for level in f.levels]
        assert not [level for level in levels if len(level) > 3 and level.encode() in sent]
        assert [c.field for c in host.requests[0].table.columns] == list(SCHEMA.by_name)

    @pytest.mark.parametrize("rows", [[], iter(())])
    def test_no_record(self, connect, host, rows):
        with pytest.raises(EmptyBatch):
            connect().score(rows)
        assert host.requests == []

    @pytest.mark.parametrize("rows", [record(), "text", 7, None, [1], [record(), "text"]])
    def test_what_is_no_list_of_records(self, connect, rows):
        with pytest.raises(DataError):
            connect().score(rows)

    def test_messages_stay_below_the_limit_whatever_the_schema(self, monkeypatch):
        monkeypatch.setattr(outgoing, "REQUEST_BYTES", 100_000)
        fields = tuple(
            Field(f"f{n}", "categorical", categories={f"{c}": "" for c in range(300)})
            for n in range(6)
        )
        codec = RecordCodec(FieldCipher(KEYSET, Schema("wide", fields, SCHEMA.target)))
        rows = [{f.name: str(n % 300) for f in fields} for n in range(3000)]
        messages = outgoing.score_requests(codec, rows, 100_000)
        assert sum(message.table.rows for message in messages) == 3000
        assert 100_000 / 4 < max(message.ByteSize() for message in messages) <= 100_000

    @pytest.mark.parametrize(
        "damage",
        [
            lambda answer: answer.probability.pop(),
            lambda answer: answer.decision.pop(),
            lambda answer: answer.probability.__setitem__(0, float("nan")),
            lambda answer: answer.probability.__setitem__(0, 1.5),
            lambda answer: answer.probability.__setitem__(0, -0.1),
            lambda answer: answer.decision.__setitem__(0, 0),
            lambda answer: answer.decision.__setitem__(0, 77),
        ],
    )
    def test_a_malformed_answer(self, connect, host, damage):
        host.edit = damage
        with pytest.raises(ServiceError, match="malformed"):
            connect().score([record(), record(1)])


class TestTables:
    @pytest.fixture
    def rows(self):
        return [{**record(n * 7), "job": [None, "J1", "J2"][n % 3]} for n in range(900)]

    @pytest.mark.parametrize("kind", ["table", "batch", "frame", "reader", "dictionary"])
    def test_a_table_scores_as_its_records_do(self, connect, host, rows, kind):
        pa = pytest.importorskip("pyarrow")
        table = pa.Table.from_pylist(rows)
        given = {
            "table": lambda: table,
            "batch": lambda: table.combine_chunks().to_batches()[0],
            "frame": lambda: (
                pytest.importorskip("pandas").DataFrame(rows).set_index("amount", drop=False)
            ),
            "reader": table.to_reader,
            "dictionary": lambda: table.set_column(2, "town", table["town"].dictionary_encode()),
        }[kind]()
        assert connect(batch_rows=400).score(given) == expected(rows)
        assert len(host.requests) == 3
        for column in host.requests[0].table.columns:
            assert set(column.dictionary) == set(unpack(column))  # only tokens that occur

    def test_no_row(self, connect):
        pa = pytest.importorskip("pyarrow")
        with pytest.raises(EmptyBatch):
            connect().score(pa.Table.from_pylist([record()])[:0])

    def test_a_wrong_value_names_its_row(self, connect, host, rows):
        pa = pytest.importorskip("pyarrow")
        rows[850]["colour"] = "C9"
        with pytest.raises(RecordError, match="C9") as caught:
            connect(batch_rows=100).score(pa.Table.from_pylist(rows))
        assert (caught.value.field, caught.value.row) == ("colour", 850)
        assert host.requests == []

    def test_a_frame_that_arrow_cannot_read(self, connect):
        pd = pytest.importorskip("pandas")
        with pytest.raises(DataError, match="cannot be read"):
            connect().score(pd.DataFrame({"colour": ["C1", 1, object()]}))

    def test_without_pyarrow_it_says_what_to_install(self, connect, monkeypatch):
        frame = pytest.importorskip("pandas").DataFrame([record()])
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(ConfigurationError, match=r"cipherscore\[tables\]"):
            connect().score(frame)

    def test_records_need_no_array_package(self, address):
        program = f"""
import sys
for name in ("numpy", "pandas", "pyarrow"):
    sys.modules[name] = None
from cipherscore.client import Client
from cipherscore.client.keys import Keyset
from cipherscore.proto.v1.cipherscore_pb2_grpc import CipherScoreStub
from cipherscore.schema import Field, Schema, Target
schema = Schema("tiny", (Field("a", "categorical", categories={{"x": ""}}),), Target("t", "1", "2"))
with Client(Keyset.create(), schema, {address!r}) as client:
    assert len(client.score([{{"a": "x"}}] * 3)) == 3
"""
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


class TestGenerate:
    def test_rows_are_readable(self, connect):
        rows = connect().generate(20, bad_credit=True, seed=5)
        assert len(rows) == 20
        for row in rows:
            assert list(row) == ["colour", "amount", "town", "job", "risk"]
            assert row["risk"] == "2"
            for f in SCHEMA.fields:
                assert row[f.name] in f.levels or (f.name == "job" and row["job"] is None)
        assert {row["job"] for row in rows} == {"J1", "J2", None}

    def test_what_is_asked_for(self, connect, host):
        assert connect().generate(3, seed=9) == connect().generate(3, seed=9)
        connect().generate(3)
        connect().generate(3, bad_credit=False)
        seeded, _, free, good = host.requests
        assert (seeded.count, seeded.seed, seeded.credit_class) == (3, 9, 0)
        assert seeded.key_id == KEYSET.primary
        assert not free.HasField("seed")
        assert good.credit_class == pb.CREDIT_CLASS_GOOD

    @pytest.mark.parametrize(
        "options", [{"count": 0}, {"count": -1}, {"count": 1 << 32}, {"count": 1, "seed": -1}]
    )
    def test_out_of_range(self, connect, host, options):
        with pytest.raises(ConfigurationError):
            connect().generate(**options)
        assert host.requests == []

    def test_a_token_the_host_made_up(self, connect, host):
        def damage(answer):
            token = bytearray(answer.table.columns[0].dictionary[0])
            token[-1] ^= 1
            answer.table.columns[0].dictionary[0] = bytes(token)

        host.edit = damage
        with pytest.raises(DecryptionError):
            connect().generate(5)

    def test_a_token_of_another_field(self, connect, host):
        def damage(answer):
            columns = answer.table.columns
            columns[0].dictionary[0] = columns[2].dictionary[0]

        host.edit = damage
        with pytest.raises(DecryptionError):
            connect().generate(5)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda answer: answer.table.columns.pop(),
            lambda answer: answer.credit_class.pop(),
            lambda answer: setattr(answer.table, "rows", 4),
            lambda answer: setattr(answer.table.columns[0], "indices", b"\0\0\0\0\xff"),
            lambda answer: setattr(answer.table.columns[2], "indices", b"\0" * 11),
            lambda answer: setattr(answer.table.columns[2], "indices", b"\xff" * 10),
            lambda answer: setattr(answer.table.columns[0], "field", "other"),
            lambda answer: answer.credit_class.__setitem__(0, 0),
            lambda answer: answer.ClearField("table"),
        ],
    )
    def test_a_malformed_answer(self, connect, host, damage):
        host.edit = damage
        with pytest.raises(ServiceError, match="malformed"):
            connect().generate(5)

    def test_a_host_that_does_not_stop(self, connect, host):
        host.chunk = 2
        host.edit = lambda _answer: setattr(host.requests[0], "count", 10**9)
        with pytest.raises(ServiceError, match="more than 5 rows"):
            connect().generate(5)

    @given(choice=st.lists(st.sampled_from(SCHEMA.fields[2].levels), min_size=1, max_size=700))
    @settings(deadline=None)
    def test_a_column_survives_the_wire(self, choice):
        tokens = [CODEC.tokens["town"][level][0] for level in choice]
        column = pb.TokenColumn.FromString(token_column("town", tokens).SerializeToString())
        assert unpack(column) == tokens
        assert _levels(CODEC, column, len(choice)) == choice
        assert len(column.indices) == len(choice) * (1 if len(set(choice)) <= 256 else 2)


class TestModel:
    def test_it_is_described(self, connect):
        info = connect().model("generator")
        assert (info.kind, info.model, info.key_id) == ("generator", MODEL, KEYSET.primary)
        assert info.fields == tuple(SCHEMA.by_name)
        assert info.metrics == {"auc": 0.5}


class TestRetries:
    @pytest.mark.parametrize(
        ("method", "arguments"), [("score", [[record()]]), ("generate", [3]), ("model", [])]
    )
    def test_a_host_away_for_two_calls(self, connect, host, method, arguments):
        host.script = [UNAVAILABLE] * 2
        start = time.monotonic()
        assert getattr(connect(), method)(*arguments)
        assert len(host.requests) == 3
        assert time.monotonic() - start > 0.4  # it waited: 0.2 s and 0.4 s, each +-20 %

    def test_also_for_one_of_many_messages(self, connect, host):
        rows = [record(n) for n in range(30)]
        host.script = [lambda _context: None] * 3 + [UNAVAILABLE]
        assert connect(batch_rows=5).score(rows) == expected(rows)
        assert len(host.requests) == 7

    def test_also_for_a_message_above_the_default_retry_buffer(self, address, host):
        channel = Transport(Address(address)).open(grpc)
        request = pb.ScoreRequest(key_id="k" * (3 << 20))
        host.script = [UNAVAILABLE]
        with channel:
            CipherScoreStub(channel).Score(request, timeout=5)
        assert len(host.requests) == 2

    @pytest.mark.parametrize("retries", [0, 2])
    def test_it_gives_up(self, connect, host, retries):
        host.script = [UNAVAILABLE] * 9
        with pytest.raises(ServiceUnavailable, match="as told") as caught:
            connect(retries=retries).score([record()])
        assert len(host.requests) == retries + 1
        assert caught.value.status == "UNAVAILABLE"
        assert caught.value.exit_code == 8

    @pytest.mark.parametrize(
        "code",
        ["INVALID_ARGUMENT", "INTERNAL", "UNAUTHENTICATED", "FAILED_PRECONDITION", "ABORTED"],
    )
    def test_no_other_status_is_tried_again(self, connect, host, code):
        host.script = [fail(grpc.StatusCode[code])] * 2
        with pytest.raises(ServiceError, match=f"{code}: as told"):
            connect().score([record()])
        assert len(host.requests) == 1

    def test_a_host_that_comes_up_meanwhile(self, host, connect):
        with serve(host) as port:
            pass

        def start():
            time.sleep(0.5)
            with serve(host, port):
                done.wait(10)

        done = threading.Event()
        thread = threading.Thread(target=start)
        thread.start()
        try:
            rows = [record()]
            assert connect(address=f"127.0.0.1:{port}").score(rows) == expected(rows)
        finally:
            done.set()
            thread.join()

    def test_a_host_that_is_away(self, connect, host):
        with serve(host) as port:
            pass
        with pytest.raises(ServiceUnavailable, match=f"127.0.0.1:{port} is unavailable"):
            connect(address=f"127.0.0.1:{port}", retries=1).score([record()])


class TestDeadlines:
    @pytest.mark.parametrize(
        ("method", "arguments"), [("score", [[record()]]), ("generate", [3]), ("model", [])]
    )
    def test_a_slow_host(self, connect, host, method, arguments):
        host.script = [sleep(1)]
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"within 0\.2 s"):
            getattr(connect(timeout=0.2), method)(*arguments)
        assert time.monotonic() - start < 0.9
        host.script = [sleep(1)]
        with pytest.raises(DeadlineExceeded, match=r"within 0\.1 s"):
            getattr(connect(), method)(*arguments, timeout=0.1)

    def test_it_covers_the_retries(self, connect, host):
        host.script = [UNAVAILABLE] * 9
        start = time.monotonic()
        with pytest.raises(ServiceError):
            connect(timeout=0.5).score([record()])
        assert time.monotonic() - start < 1.5

    def test_one_late_message_of_many_ends_the_rest(self, connect, host):
        host.script = [sleep(1)]
        with pytest.raises(DeadlineExceeded):
            connect(timeout=0.3, batch_rows=1).score([record(n) for n in range(50)])
        assert len(host.requests) < 10


class TestRefusals:
    @pytest.mark.parametrize("code", sorted(request_errors()))
    def test_each_is_raised_as_itself(self, connect, host, code):
        cls = request_errors()[code]
        metadata = {"cipherscore_error_code": code, "cipherscore_error_field": "town"}
        host.script = [fail(grpc.StatusCode[cls.grpc_status], "why", **metadata)]
        with pytest.raises(cls) as caught:
            connect(retries=0).score([record()])
        assert type(caught.value) is cls
        assert (caught.value.detail, caught.value.field) == ("why", "town")

    def test_over_a_stream_and_without_a_field(self, connect, host):
        host.script = [fail(grpc.StatusCode.NOT_FOUND, cipherscore_error_code="unknown-model")]
        with pytest.raises(request_errors()["unknown-model"]) as caught:
            connect().generate(3)
        assert caught.value.field is None

    def test_a_code_of_a_newer_host(self, connect, host):
        host.script = [fail(grpc.StatusCode.OUT_OF_RANGE, "x", cipherscore_error_code="new")]
        with pytest.raises(RequestError, match="x"):
            connect().model()

    def test_its_text_is_cut_and_harmless_on_a_terminal(self, connect, host):
        # Above 8 kB gRPC itself refuses a status now and then, by chance.
        host.script = [fail(grpc.StatusCode.INTERNAL, "\x1b[2J\n" + "x" * 7000)]
        with pytest.raises(ServiceError) as caught:
            connect().model()
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < DETAIL_LENGTH + 60

    def test_not_our_service(self):
        server = grpc.server(ThreadPoolExecutor(1))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with (
            Client(KEYSET, SCHEMA, f"127.0.0.1:{port}") as client,
            pytest.raises(ServiceError) as caught,
        ):
            client.model()
        assert caught.value.status == "UNIMPLEMENTED"
        server.stop(None)


@pytest.fixture(scope="module")
def authority():
    return make_authority()


@pytest.fixture
def secure_port(server, authority):
    key, chain = authority.issue("credit.example")
    credentials = grpc.ssl_server_credentials(
        [(key, chain)], root_certificates=authority.certificate, require_client_auth=True
    )
    with serve(server[0], credentials=credentials) as port:
        yield port


class TestTls:
    def test_both_sides_show_certificates(self, connect, host, authority, secure_port, tmp_path):
        key, chain = authority.issue("owner")
        (tmp_path / "root.pem").write_bytes(authority.certificate)
        tls = Tls(tmp_path / "root.pem", chain, key, "credit.example")
        assert connect(address=f"127.0.0.1:{secure_port}", tls=tls).score([record()]) == expected(
            [record()]
        )
        assert b"PRIVATE" not in repr(tls).encode()

    @pytest.mark.parametrize("wrong", ["root", "name", "no client certificate", "plain text"])
    def test_otherwise_nothing_is_sent(self, connect, host, authority, secure_port, wrong):
        key, chain = authority.issue("owner")
        roots = make_authority().certificate if wrong == "root" else authority.certificate
        name = "evil.example" if wrong == "name" else "credit.example"
        tls = Tls(roots, chain, key, name)
        if wrong == "no client certificate":
            tls = Tls(roots, server_name=name)
        options = {} if wrong == "plain text" else {"tls": tls}
        with pytest.raises(ServiceUnavailable):
            connect(address=f"127.0.0.1:{secure_port}", retries=0, **options).score([record()])
        assert host.requests == []

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"root_certificates": b"no pem"}, "root_certificates"),
            ({"root_certificates": "/nowhere/root.pem"}, "cannot read"),
            ({"certificate": b"x"}, "together"),
            ({"private_key": b"x"}, "together"),
            ({"certificate": b"x", "private_key": b"x"}, "certificate"),
        ],
    )
    def test_wrong_files_are_reported_at_once(self, connect, options, message):
        with pytest.raises(ConfigurationError, match=message):
            connect(tls=Tls(**options)).make()


class TestAddress:
    @pytest.mark.parametrize(
        "address", ["127.0.0.1:1", "localhost:50051", "LocalHost:1", "[::1]:80", "127.9.9.9:65535"]
    )
    def test_loopback_needs_no_tls(self, address):
        options = dict(Transport(Address(address)).options())
        assert options["grpc.enable_http_proxy"] == 0

    @pytest.mark.parametrize(
        "address",
        ["10.0.0.1:50051", "localhost.evil.example:1", "127.0.0.1.evil.example:1", "0.0.0.0:1",
         "[2001:db8::1]:1", "unix:1", "credit.example:443"],
    )  # fmt: skip
    def test_another_machine_does(self, address):
        with pytest.raises(ConfigurationError, match="another machine"):
            Transport(Address(address))
        assert "grpc.enable_http_proxy" not in dict(
            Transport(Address(address), insecure=True).options()
        )
        Transport(Address(address), tls=Tls())

    @pytest.mark.parametrize(
        "address",
        ["", "host", "host:", ":1", "host:0", "host:65536", "host:x", "dns:///h:1", "unix:/run/x:1",
         "http://h:1", "::1:80", "h:1\n", "h:1,evil:2", "h o:1", "x" * 999],
    )  # fmt: skip
    def test_what_is_none(self, address):
        with pytest.raises(ConfigurationError, match="host:port") as caught:
            Address(address)
        assert len(str(caught.value)) < 200


class TestConstruction:
    @pytest.mark.parametrize(
        "options",
        [{"timeout": 0}, {"timeout": float("nan")}, {"timeout": float("inf")}, {"retries": -1},
         {"retries": 5}, {"batch_rows": 0}, {"insecure": True, "tls": Tls()}],
    )  # fmt: skip
    def test_out_of_range(self, connect, options):
        with pytest.raises(ConfigurationError):
            connect(**options).make()

    def test_from_files(self, address, host, tmp_path):
        KEYSET.save(tmp_path / "keys.json", PASSPHRASE, Argon2Parameters(8, 1, 1))
        save_schema(SCHEMA, tmp_path / "schema.toml")
        files = (tmp_path / "keys.json", str(tmp_path / "schema.toml"))
        with Client(*files, address, passphrase=PASSPHRASE) as client:
            assert client.score([record()]) == expected([record()])
        with pytest.raises(ConfigurationError, match="passphrase"):
            Client(*files, address)

    def test_an_older_key(self, address, host):
        rotated = KEYSET.rotate()
        with Client(rotated, SCHEMA, address, key_id=KEYSET.primary) as client:
            assert client.score([record()]) == expected([record()])
        assert Client(rotated, SCHEMA, address).key_id == rotated.primary

    def test_a_closed_client_says_so(self, address):
        client = Client(KEYSET, SCHEMA, address)
        client.model()
        client.close()
        client.close()
        with pytest.raises(ConfigurationError, match="closed"):
            client.score([record()])

    def test_repr_shows_no_key(self, address):
        shown = repr(Client(KEYSET, SCHEMA, address))
        assert shown == f"Client({address!r}, key {KEYSET.primary})"

    def test_it_is_shared_by_threads(self, address, host):
        rows = [record(n) for n in range(40)]
        found: dict[int, list[Score]] = {}
        with Client(KEYSET, SCHEMA, address) as client:
            threads = [
                threading.Thread(target=lambda n=n: found.update({n: client.score([rows[n]])}))
                for n in range(40)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert [found[n][0] for n in range(40)] == expected(rows)

    def test_the_event_loop_runs_on_while_many_records_are_encrypted(self, address, host):
        async def run() -> int:
            ticks = 0

            async def tick() -> None:
                nonlocal ticks
                while True:
                    await asyncio.sleep(0.001)
                    ticks += 1

            async with AsyncClient(KEYSET, SCHEMA, address) as client:
                task = asyncio.ensure_future(tick())
                await client.score([record(n) for n in range(20_000)])
                task.cancel()
            return ticks

        assert asyncio.run(run()) >= 5
