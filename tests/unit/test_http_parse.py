"""Bodies of HTTP requests: the parser takes what the OpenAPI page says, and nothing else."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from cipherscore.errors import InvalidRequest, RequestError
from cipherscore.tokens import to_text
from serving.http_bodies import GenerateBody, ScoreBody
from serving.http_parse import check_records, parse_generate, parse_score
from serving.http_rows import TextTable
from serving.tables import RecordTable
from tests.support.models import KEY_ID, token, vocabulary

ROWS = 1_000
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
ANY = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


def bodies(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Nearly right bodies: each member right, wrong or absent, and perhaps one more."""
    mixed = {name: right | ANY for name, right in members.items()}
    return st.fixed_dictionaries({}, optional={**mixed, "other": ANY}) | ANY


SCORE = bodies(
    key_id=st.just(KEY_ID),
    records=st.lists(
        st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3), max_size=3
    ),
    model=st.text(max_size=3),
)
GENERATE = bodies(
    key_id=st.just(KEY_ID),
    count=st.integers(),
    seed=st.none() | st.integers(),
    credit_class=st.none() | st.sampled_from(["good", "bad"]),
    noise=st.none()
    | st.lists(st.lists(st.floats(), min_size=1, max_size=2), min_size=1, max_size=2),
    model=st.text(max_size=3),
)


def allowed(form: type[Any], content: bytes) -> bool:
    try:
        TypeAdapter(form).validate_json(content, strict=True)
    except ValidationError:
        return False
    return True


@given(SCORE)
def test_score_bodies_are_those_of_the_page(body: Any) -> None:
    content = json.dumps(body).encode()
    try:
        check_records(parse_score(content, ROWS).records)
        taken = True
    except InvalidRequest:
        taken = False
    assert taken == allowed(ScoreBody, content)


@given(GENERATE)
def test_generate_bodies_are_those_of_the_page(body: Any) -> None:
    content = json.dumps(body).encode()
    try:
        parse_generate(content, ROWS)
        taken = True
    except InvalidRequest:
        taken = False
    except RequestError:
        return  # of the right form, but a value that no model takes
    assert taken == allowed(GenerateBody, content)


@given(st.binary(max_size=200))
def test_any_bytes(content: bytes) -> None:
    for parse in (parse_score, parse_generate):
        try:
            parse(content, ROWS)
        except RequestError:
            continue


@pytest.mark.parametrize("cell", ["null", "0", "[]", "{}", '"x"', '{"a":1}', "[[]]"])
def test_a_body_that_is_wrong_everywhere_takes_little_memory(cell: str) -> None:
    content = b'{"key_id":"0aab8d7c","records":[' + b",".join([cell.encode()] * 400_000) + b"]}"
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest):
            check_records(parse_score(content, ROWS).records)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * len(content)


def test_noise_becomes_an_array() -> None:
    order, model = parse_generate(
        b'{"key_id":"0aab8d7c","count":2,"noise":[[1,0.5],[-2,1e300]],"model":"m:1"}', ROWS
    )
    assert order.noise is not None
    assert order.noise.dtype == np.float32
    assert order.noise.tolist() == [[1.0, 0.5], [-2.0, float("inf")]]
    assert model == "m:1"


TOKENS = vocabulary().tokens
CELLS = {
    field: st.sampled_from([to_text(one) for one in column[:3]]) for field, column in TOKENS.items()
}
STRANGE = st.sampled_from(
    [
        to_text(TOKENS["alpha"][0]),
        to_text(TOKENS["alpha"][0]) + "==",
        to_text(token("beta", 77)),
        "",
        "AAAA",
    ]
)


@given(
    st.lists(
        st.fixed_dictionaries(CELLS)
        | st.fixed_dictionaries(
            {},
            optional={**{name: cell | STRANGE for name, cell in CELLS.items()}, "delta": STRANGE},
        ),
        min_size=1,
        max_size=4,
    )
)
def test_tokens_by_their_text_mean_what_decoded_ones_mean(records: list[dict[str, str]]) -> None:
    def outcome(table: RecordTable) -> Any:
        try:
            found = table.indices(vocabulary())
        except RequestError as error:
            return type(error), error.detail, error.field, error.row
        if isinstance(found, bytes):
            found = np.frombuffer(found, dtype="<i4").reshape(table.rows, -1)
        return found.tolist()

    assert outcome(TextTable(records)) == outcome(RecordTable(records))
