# ruff: noqa: E402 - the trainer's packages may be absent
import itertools

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from hypothesis import given, settings
from hypothesis import strategies as st

from training.heads import CategoricalHeads, normal_cdf

SIZES = (3, 1, 5, 2)
WIDTH = sum(SIZES)
BOUNDS = np.cumsum((0, *SIZES))


@pytest.fixture(scope="module")
def heads():
    return CategoricalHeads(SIZES)


def logits(rows=200, seed=0, scale=3.0):
    return np.random.default_rng(seed).normal(0, scale, (rows, WIDTH)).astype(np.float32)


def by_field(matrix):
    return [matrix[:, a:b] for a, b in itertools.pairwise(BOUNDS)]


def test_probabilities_of_each_field_sum_to_one(heads):
    for part in by_field(heads.probabilities(tf.constant(logits())).numpy()):
        assert np.allclose(part.sum(axis=1), 1, atol=1e-6)
        assert (part >= 0).all()


def test_probabilities_are_a_softmax_of_capped_logits(heads):
    raw = logits()
    capped = 12 * np.tanh(raw / 12)
    power = np.exp(capped)
    expected = np.concatenate([p / p.sum(axis=1, keepdims=True) for p in by_field(power)], axis=1)
    assert np.allclose(heads.probabilities(tf.constant(raw)).numpy(), expected, atol=1e-6)


def test_straight_through_rows_are_one_hot_and_carry_a_gradient(heads):
    raw = tf.constant(logits())
    uniform = tf.constant(np.random.default_rng(1).random(raw.shape).astype(np.float32))
    weights = tf.constant(np.random.default_rng(2).normal(size=WIDTH).astype(np.float32))
    with tf.GradientTape() as tape:
        tape.watch(raw)
        hot = heads.straight_through(raw, uniform, 0.6)
        loss = tf.reduce_sum(hot * weights)
    assert np.allclose(np.round(hot), hot, atol=1e-5)
    for part in by_field(hot.numpy()):
        assert np.allclose(part.sum(axis=1), 1, atol=1e-5)
    gradient = tape.gradient(loss, raw).numpy()
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0.01


def test_straight_through_draws_with_the_heads_probabilities(heads):
    raw = np.repeat(logits(1), 20_000, axis=0)
    uniform = np.random.default_rng(3).random(raw.shape).astype(np.float32)
    hot = heads.straight_through(tf.constant(raw), tf.constant(uniform), 0.6).numpy()
    expected = heads.probabilities(tf.constant(raw[:1])).numpy()[0]
    assert np.allclose(hot.mean(axis=0), expected, atol=0.015)


def test_draw_follows_the_probabilities(heads):
    probabilities = heads.probabilities(tf.constant(logits(1))).numpy()
    uniform = np.random.default_rng(4).random((20_000, len(SIZES))).astype(np.float32)
    drawn = heads.draw(
        tf.constant(np.repeat(probabilities, len(uniform), axis=0)), tf.constant(uniform)
    ).numpy()
    assert drawn.dtype == np.int32
    for field, expected in enumerate(by_field(probabilities)):
        seen = np.bincount(drawn[:, field], minlength=SIZES[field]) / len(drawn)
        assert np.allclose(seen, expected[0], atol=0.015)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(width=32, allow_subnormal=False), min_size=WIDTH, max_size=WIDTH),
    st.lists(
        st.floats(-2, 3, width=32, allow_subnormal=False),
        min_size=len(SIZES),
        max_size=len(SIZES),
    ),
)
def test_draw_is_valid_whatever_it_is_given(row, uniform):
    heads = CategoricalHeads(SIZES)
    probabilities = heads.probabilities(tf.constant([row], tf.float32))
    drawn = heads.draw(probabilities, tf.constant([uniform], tf.float32)).numpy()
    assert ((drawn >= 0) & (drawn < np.array(SIZES))).all()


def test_best_is_the_highest_of_each_field(heads):
    raw = logits()
    expected = np.stack([part.argmax(axis=1) for part in by_field(raw)], axis=1)
    assert (heads.best(tf.constant(raw)).numpy() == expected).all()


def test_margins_measure_the_distance_to_the_next_decision(heads):
    probabilities = np.array([[0.5, 0.25, 0.25, 1, 0.2, 0.2, 0.2, 0.2, 0.2, 0.9, 0.1]], np.float32)
    margins = heads.margins(probabilities, np.array([[0.6, 0.3, 0.41, 0.9]], np.float32))
    assert np.allclose(margins[0], [0.1, np.inf, 0.01, 0.0], atol=1e-6)


def test_leads_are_the_top_two_gap(heads):
    scores = np.array([[0.5, 0.2, 0.4, 1, 0.1, 0.9, 0.2, 0.2, 0.2, 0.9, 0.9]], np.float32)
    assert np.allclose(heads.leads(scores)[0], [0.1, np.inf, 0.7, 0.0], atol=1e-6)
    alone = CategoricalHeads((1, 1)).leads(np.ones((2, 2), np.float32))
    assert np.isinf(alone).all()


def test_normal_cdf_makes_uniform_numbers():
    assert np.allclose(normal_cdf(tf.constant([-1.959964, 0.0, 1.959964])), [0.025, 0.5, 0.975],
                       atol=1e-5)  # fmt: skip
