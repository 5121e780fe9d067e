"""gRPC's part of the wire."""

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.http2.messages import (
    RESOURCE_EXHAUSTED,
    Assembler,
    CallFault,
    Inflation,
    parse_timeout,
    percent_encoded,
    trailers_only_block,
)
from tests.support.http2_wire import message

CONTENTS = st.lists(st.tuples(st.binary(max_size=40), st.booleans()), max_size=8)


@given(CONTENTS, st.lists(st.integers(1, 50), min_size=1, max_size=30))
def test_messages_are_the_same_however_the_bytes_are_cut(contents, sizes):
    data = b"".join(message(content, compressed) for content, compressed in contents)
    assembler = Assembler(100)
    found, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        found += assembler.feed(data[at : at + size])
        at, turn = at + size, turn + 1
    assert found == [(compressed, content) for content, compressed in contents]
    assert assembler.pending == 0


@given(st.binary(max_size=200), st.integers(0, 50))
def test_junk_is_messages_or_a_fault(data, limit):
    try:
        found = Assembler(limit).feed(data)
    except CallFault:
        pass  # anything else fails the test
    else:
        assert all(len(content) <= limit for _, content in found)


def test_a_message_above_the_limit_is_refused_by_its_prefix():
    assembler = Assembler(10)
    assert assembler.feed(message(bytes(10))) == [(False, bytes(10))]
    with pytest.raises(CallFault, match=r"11 vs\. 10") as caught:
        assembler.feed(message(bytes(11))[:5])
    assert caught.value.status == RESOURCE_EXHAUSTED


def inflate(content, limit):
    inflation = Inflation(content, limit)
    small = inflation.at_once()
    return inflation.rest() if small is None else small


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
@given(st.integers(0, 300_000))
def test_compressed_messages_come_back(pack, size):
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert inflate(pack(content), 1 << 20) == content
    if size:
        with pytest.raises(CallFault) as caught:
            inflate(pack(content), size - 1)
        assert caught.value.status == RESOURCE_EXHAUSTED


@given(st.binary(max_size=100))
def test_damaged_compression_is_a_fault(content):
    for junk in (content, gzip.compress(content)[:-1], gzip.compress(content) + b"x"):
        with pytest.raises(CallFault):
            inflate(junk, 1 << 20)


def test_a_bomb_is_not_unpacked():
    bomb = gzip.compress(bytes(64 << 20))
    tracemalloc.start()
    with pytest.raises(CallFault):
        inflate(bomb, 1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1S", 1.0), ("100m", 0.1), ("5u", 5e-6), ("7n", 7e-9), ("2M", 120.0), ("1H", 3600.0),
     ("99999999H", 99999999 * 3600.0), ("0S", 0.0),
     ("", None), ("S", None), ("1", None), ("1s", None), ("-1S", None), ("123456789S", None),
     ("1.5S", None), (" 1S", None), ("1S ", None), ("\N{ARABIC-INDIC DIGIT ONE}S", None)],
)  # fmt: skip
def test_timeouts(text, seconds):
    found = parse_timeout(text)
    assert found is None if seconds is None else found == pytest.approx(seconds)


@given(st.text(max_size=2000))
def test_details_are_plain_in_a_header(text):
    encoded = percent_encoded(text)
    assert encoded.isascii()
    assert encoded.isprintable() or not encoded
    assert len(encoded) <= 12 * 1024


def test_a_callers_text_makes_no_header():
    block = trailers_only_block(3, "a\r\nb", (("field", "x\r\ngrpc-status: 0"),))
    assert b"\r" not in block
    assert b"\n" not in block
