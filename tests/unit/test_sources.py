"""Where raw tables come from, in order, and what is refused on the way."""

import gzip
import hashlib
import http.server
import threading
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cipherscore.client import dialect, sources
from cipherscore.client.checking import check_table, write_csv
from cipherscore.client.sources import DATA_VARIABLE, find_table, from_arrow, read_records
from cipherscore.errors import ConfigurationError, DataError, RecordError
from cipherscore.schema import Field, Schema, Source, Target
from cipherscore.schema_file import load_schema
from tests.support.real_data import german_credit

ROWS = b"r 5 ok\ng 7.5 bad\n"
DIGEST = hashlib.sha256(ROWS).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
    """Answers ``/table`` with the rows, and other paths with what can go wrong."""

    asked: list[str] = []  # noqa: RUF012 - emptied by the fixture

    def do_GET(self):
        self.asked.append(self.path)
        if self.path == "/missing":
            self.send_error(404)
            return
        if self.path == "/junk":
            self.wfile.write(b"not http\r\n\r\n")
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(ROWS)))
        self.end_headers()
        self.wfile.write(ROWS[:9] if self.path == "/short" else ROWS)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    Server.asked.clear()
    found = http.server.HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{found.server_port}"
    found.shutdown()
    found.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    monkeypatch.setattr(sources.platformdirs, "user_cache_dir", lambda _: str(tmp_path / "cache"))
    return tmp_path / "cache"


def schema(**source):
    fields = (
        Field("color", "categorical", categories={"r": "", "g": ""}),
        Field("size", "numeric", edges=(0.0, 5.0, 10.0), valid_range=(0.0, 10.0)),
    )
    described = Source(path="toy/t.data", sha256=DIGEST, delimiter=" ", header=False)
    return Schema("toy", fields, Target("y", "ok", "bad"), source=replace(described, **source))


def rows_of(table):
    return [row for batch in table.batches() for row in batch.to_pylist()]


EXPECTED = [
    {"color": "r", "size": "5", "y": "ok"},
    {"color": "g", "size": "7.5", "y": "bad"},
]


def test_given_file_folder_and_environment_come_first(tmp_path, monkeypatch, server):
    folder = tmp_path / "data"
    (folder / "toy").mkdir(parents=True)
    (folder / "toy/t.data").write_bytes(ROWS)
    described = schema(url=f"{server}/table", sample="german-credit-sample.csv")
    for data, origin in ((folder / "toy/t.data", "file"), (folder, "folder")):
        table = find_table(described, data)
        assert (table.origin, table.synthetic, rows_of(table)) == (origin, False, EXPECTED)
    for value in (folder, folder / "toy/t.data"):
        monkeypatch.setenv(DATA_VARIABLE, str(value))
        assert rows_of(find_table(described)) == EXPECTED
    assert rows_of(find_table(described, folder)) == EXPECTED
    assert Server.asked == []


@pytest.mark.parametrize("place", ["none", "none/x.csv", "."])
def test_given_path_that_is_not_there(tmp_path, monkeypatch, place):
    with pytest.raises(ConfigurationError, match="no such file"):
        find_table(schema(), tmp_path / place)
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / place))
    with pytest.raises(ConfigurationError, match="no such file"):
        find_table(load_schema("german-credit"))


def test_changed_file_in_a_data_folder_is_refused_but_a_table_of_ones_own_is_not(tmp_path):
    path = tmp_path / "toy/t.data"
    path.parent.mkdir()
    path.write_bytes(ROWS + ROWS)
    with pytest.raises(DataError, match="not the published file"):
        find_table(schema(), tmp_path)
    assert rows_of(find_table(schema(), path)) == EXPECTED * 2


def test_download_is_checked_cached_and_not_repeated(server, cache):
    described, said = schema(url=f"{server}/table"), []
    table = find_table(described, report=said.append)
    assert (table.origin, rows_of(table)) == ("download", EXPECTED)
    assert said == [f"downloading {server}/table"]
    assert (cache / "toy/t.data").read_bytes() == ROWS
    again = find_table(described)
    assert (again.origin, rows_of(again)) == ("cache", EXPECTED)
    assert Server.asked == ["/table"]


@pytest.mark.parametrize("path", ["/missing", "/junk", "/short"])
def test_bad_downloads_leave_nothing_and_the_sample_steps_in(server, cache, path):
    said = []
    described = schema(url=server + path, sample="german-credit-sample.csv")
    table = find_table(described, report=said.append)
    assert table.synthetic
    assert said[-1].startswith("no download: ")
    assert [p for p in cache.rglob("*") if p.is_file()] == []
    with pytest.raises(ConfigurationError, match=f"--data or {DATA_VARIABLE}"):
        find_table(schema(url=server + path))


def test_download_with_another_checksum_is_refused(server, cache):
    said = []
    with pytest.raises(ConfigurationError):
        find_table(schema(url=f"{server}/table", sha256="0" * 64), report=said.append)
    assert "the schema asks for 0000" in said[-1]
    assert [p for p in cache.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[", "http://a b/"]
)
def test_odd_addresses_are_not_opened(url):
    said = []
    assert find_table(
        schema(url=url, sample="german-credit-sample.csv"), report=said.append
    ).synthetic
    assert said[-1].startswith("no download: ")


def test_too_large_download_is_cut_off(server, cache, monkeypatch):
    monkeypatch.setattr(sources, "MAX_DOWNLOAD", 10)
    said = []
    assert find_table(
        schema(url=f"{server}/table", sample="german-credit-sample.csv"), report=said.append
    ).synthetic
    assert "more than 10 bytes" in said[-1]
    assert [p for p in cache.rglob("*") if p.is_file()] == []


def test_damaged_cache_is_replaced(server, cache):
    (cache / "toy").mkdir(parents=True)
    (cache / "toy/t.data").write_bytes(b"r 6 ok\n")
    said = []
    assert find_table(schema(url=f"{server}/table"), report=said.append).origin == "download"
    assert "cached table is not used" in said[0]
    assert (cache / "toy/t.data").read_bytes() == ROWS


def test_unwritable_cache_falls_back(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(sources.platformdirs, "user_cache_dir", lambda _: str(tmp_path / "file"))
    described = schema(url=f"{server}/table", sample="german-credit-sample.csv")
    assert find_table(described).synthetic


def test_offline_the_sample_is_used_and_fits(sample_records):
    described = load_schema("german-credit")
    offline = replace(described, source=replace(described.source, url="http://127.0.0.1:1/x"))
    table = find_table(offline)
    assert (table.origin, table.synthetic) == ("sample", True)
    assert check_table(table, described) == len(sample_records)
    assert check_table(table, load_schema("german-credit-capstone")) == len(sample_records)


def test_no_row_of_the_sample_is_a_real_one(sample_records):
    names = [*load_schema("german-credit").by_name, "classification"]
    real = {tuple(line.split()) for line in german_credit().read_text().splitlines()}
    assert len(real) == 1000
    assert not real.intersection(tuple(record[name] for name in names) for record in sample_records)
    fields = {row[:-1] for row in real}
    assert not fields.intersection(tuple(r[name] for name in names[:-1]) for r in sample_records)


def test_real_german_credit_is_the_published_one():
    described = load_schema("german-credit")
    table = find_table(described, german_credit().parents[1])
    assert (table.origin, check_table(table, described)) == ("folder", 1000)
    first = read_records(table, described, [0])[0]
    assert (first["existingchecking"], first["duration"], first["credithistory"]) == (
        "A11",
        6,
        "A34",
    )


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ending", ["csv", "csv.gz", "txt"])
def test_other_text_files_need_a_header(tmp_path, delimiter, ending):
    lines = [["size", "y", " color ", "extra"], ["5", "ok", "r", ""], ["7.5", "bad", "g", "x"]]
    text = "\n".join(delimiter.join(line) for line in lines).encode() + b"\n"
    path = tmp_path / f"own.{ending}"
    path.write_bytes(b"\xef\xbb\xbf" + text if ending != "csv.gz" else gzip.compress(text))
    found = rows_of(find_table(schema(), path))
    assert [{name: row[name] for name in EXPECTED[0]} for row in found] == EXPECTED
    assert check_table(find_table(schema(), path), schema()) == 2


@pytest.mark.parametrize("ending", ["parquet", "PARQUET", "pq"])
def test_parquet(tmp_path, ending):
    path = tmp_path / f"own.{ending}"
    pq.write_table(pa.table({"color": ["r"], "size": [5], "y": ["ok"]}), path)
    assert check_table(find_table(schema(), path), schema()) == 1
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        check_table(find_table(schema(), path), schema())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no comma"),
        (b"one\n1\n", "no comma, semicolon"),
        (b"color,size,y\n", "no row"),
        (b"color,size,y\nr,5\n", "same number of columns"),
        (b"color,size,y\nr,5,ok,\n", "same number of columns"),
        (b"color,size\nr,5\n", "lacks column 'y'"),
        (b"color,color,size,y\nr,r,5,ok\n", "column 'color' twice"),
        (b"color,size,y\nr\xff,5,ok\n", "UTF-8"),
    ],
)
def test_unusable_text_files(tmp_path, content, message):
    path = tmp_path / "own.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        check_table(find_table(schema(), path), schema())
    assert "\n" not in str(caught.value)


def test_row_of_a_wrong_value_counts_over_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(dialect, "BLOCK_BYTES", 64)
    path = tmp_path / "own.csv"
    path.write_text("color,size,y\n" + "r,5,ok\n" * 100 + "r,11,ok\n")
    with pytest.raises(RecordError, match=r"record 100, field 'size': '11'.* from 0 to 10"):
        check_table(find_table(schema(), path), schema())


def test_records_come_in_the_order_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(dialect, "BLOCK_BYTES", 32)
    path = tmp_path / "own.csv"
    path.write_text("color,size,y\n" + "".join(f"r,{i / 10},ok\n" for i in range(50)))
    table = find_table(schema(), path)
    assert [r["size"] for r in read_records(table, schema(), [40, 3, 20])] == [4, 0.3, 2]
    with pytest.raises(DataError, match="has 50 rows, not 51"):
        read_records(table, schema(), [50])


def test_table_written_as_csv_is_for_its_owner_and_reads_back(tmp_path):
    table = from_arrow(pa.table({"y": ["ok"], "size": [5], "color": ["r"]}))
    write_csv(table, schema(), tmp_path / "out/t.csv")
    assert (tmp_path / "out/t.csv").stat().st_mode & 0o777 == 0o600
    assert rows_of(find_table(schema(), tmp_path / "out/t.csv")) == EXPECTED[:1]
