"""HPACK: remembered blocks mean what a decoder without memory says."""

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.http2.frames import ENHANCE_YOUR_CALM, ConnectionFault
from serving.http2.headers import HeaderReader, encode
from serving.http2.limits import HEADER_BLOCK_BYTES, KNOWN_BLOCKS

NAMES = st.sampled_from([":path", ":method", "grpc-timeout", "te", "x-a", "x-b", "authorization"])
VALUES = st.sampled_from(["", "/a", "POST", "1S", "trailers", "v" * 60, "w" * 3000, "é"])
FIELDS = st.lists(st.tuples(NAMES, VALUES, st.booleans()), max_size=6)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("block"), FIELDS, st.booleans()),
        st.tuples(st.just("again"), st.integers(0, 5)),
        st.tuples(st.just("table"), st.sampled_from([0, 40, 100, 1000, 4096])),
        st.tuples(st.just("raw"), st.binary(max_size=12)),
    ),
    max_size=25,
)


def outcome(read, block):
    try:
        return [(bytes(n), bytes(v)) for n, v in read(block)]
    except (hpack.HPACKError, ConnectionFault) as error:
        return type(error).__name__ and "refused"


@given(STEPS)
def test_a_reader_with_memory_agrees_with_a_plain_decoder(steps):
    encoder, plain = hpack.Encoder(), hpack.Decoder(max_header_list_size=HEADER_BLOCK_BYTES)
    reader = HeaderReader(list)
    sent = []
    for kind, *what in steps:
        if kind == "table":
            encoder.header_table_size = what[0]
            continue
        if kind == "block":
            block = encoder.encode(what[0], huffman=what[1])
        elif kind == "raw":
            block = what[0]
        elif sent:
            block = sent[what[0] % len(sent)]  # means something else once the table has changed
        else:
            continue
        sent.append(block)

        def read(data):
            known = reader.known.get(data)
            return reader.read(data) if known is None else known

        seen, expected = outcome(read, block), outcome(lambda b: plain.decode(b, raw=True), block)
        assert seen == expected
        if expected == "refused":
            return  # the connection would end


@given(st.lists(st.binary(max_size=30), max_size=6))
def test_junk_never_raises_anything_else(blocks):
    reader = HeaderReader(lambda fields: fields)
    for block in blocks:
        try:
            reader.read(block)
        except ConnectionFault:
            return  # anything else fails the test


def test_a_block_that_changes_no_table_is_remembered():
    reader = HeaderReader(len)
    encoder = hpack.Encoder()
    first = encoder.encode([("x-a", "1")])
    reader.read(first)
    assert reader.known == {}  # it added an entry
    second = encoder.encode([("x-a", "1")])
    assert reader.read(second) == 1
    assert reader.known == {second: 1}
    reader.read(encoder.encode([("x-b", "1")]))
    assert reader.known == {}


def test_blocks_that_are_read_without_interest_change_the_table_too():
    reader = HeaderReader(list)
    encoder = hpack.Encoder()
    reader.read(encoder.encode([("x-a", "1")]))
    indexed = encoder.encode([("x-a", "1")])
    assert reader.read(indexed) == [(b"x-a", b"1")]
    reader.fields(encoder.encode([("x-b", "2")]))
    assert indexed not in reader.known
    assert reader.read(indexed) == [(b"x-b", b"2")]


def test_memory_is_bounded():
    reader = HeaderReader(len)
    for number in range(KNOWN_BLOCKS * 3):
        reader.read(encode([("x", str(number))])[1:])
    assert 0 < len(reader.known) <= KNOWN_BLOCKS
    reader.known.clear()
    reader.read(encode([("x", "v" * 3000)])[1:])
    assert reader.known == {}


def test_a_bomb_ends_the_connection():
    reader = HeaderReader(len)
    encoder = hpack.Encoder()
    reader.read(encoder.encode([("x", "v" * 3900)]))
    index = encoder.encode([("x", "v" * 3900)])
    with pytest.raises(ConnectionFault) as caught:
        reader.read(index * 100)
    assert caught.value.code == ENHANCE_YOUR_CALM


@given(
    st.lists(st.tuples(st.text("abc-", min_size=1, max_size=200), st.text("xyz 1", max_size=700)))
)
def test_what_is_encoded_is_what_a_client_decodes(fields):
    decoder = hpack.Decoder(max_header_list_size=1 << 20)
    decoder.max_allowed_table_size = decoder.header_table_size = 0  # the strictest of clients
    assert [(n.decode(), v.decode()) for n, v in decoder.decode(encode(fields), raw=True)] == fields
