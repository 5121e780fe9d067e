"""Attacks on token tables: constructed tables with known answers, and properties of all attacks."""

from itertools import combinations, permutations, product
from math import lgamma

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.baselines import mode_guess, random_guess
from attacks.recovery import estimates, ideal, recovered
from attacks.tokens.frequency import PSEUDO_ROWS, by_assignment, by_rank
from attacks.tokens.joint import PAIR_ROWS, UNKNOWN, _Climb, joint, known_plaintext
from attacks.view import Auxiliary, KnownRows, TokenTable

NONE = np.empty(0, np.intp)


def tables(levels, label, seed=0):
    """The same rows as an encrypted table, in another order, and as the attacker's sample."""
    levels, label = np.asarray(levels, np.int32), np.asarray(label, np.int8)
    order = np.random.default_rng(seed).permutation(len(levels))
    truth = levels[order]
    table = TokenTable.numbered(list(truth.T), label[order])
    sizes = tuple(int(column.max()) + 1 for column in levels.T)
    return table, Auxiliary(levels, label, sizes), truth


def right(guess, table, truth):
    return recovered(guess, table, truth, apart=NONE)


def repeated(rows, counts):
    return np.repeat(np.asarray(rows), counts, axis=0)


def both_classes(levels):
    """Every row once in each class, so that the label says nothing."""
    return np.concatenate([levels, levels]), np.repeat([0, 1], len(levels))


DISTINCT = repeated([[0, 2], [1, 0], [2, 1]], [9, 5, 2])
"""Each level of both fields has a frequency of its own."""

ANCHORED = repeated([[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [2, 0], [2, 2]], [9, 2, 1, 6, 6, 9, 3])
"""The first field's levels are equally frequent, but each goes with another share of the second's,
whose levels have frequencies of their own."""


@pytest.mark.parametrize("attack", [by_rank, by_assignment, joint])
def test_distinct_frequencies_name_every_token(attack):
    table, sample, truth = tables(*both_classes(DISTINCT))
    assert right(attack(table, sample), table, truth) == [1.0, 1.0]


@pytest.mark.parametrize("seed", range(6))
def test_the_joint_attack_tells_equal_frequencies_apart_by_another_field(seed):
    table, sample, truth = tables(*both_classes(ANCHORED), seed)
    assert right(joint(table, sample), table, truth) == [1.0, 1.0]


def test_frequency_matching_cannot_tell_equal_frequencies_apart():
    for attack in (by_rank, by_assignment):
        shares = []
        for seed in range(12):
            table, sample, truth = tables(*both_classes(ANCHORED), seed)
            shares.append(right(attack(table, sample), table, truth)[0])
        assert np.mean(shares) < 0.7


def test_the_label_tells_equal_frequencies_apart():
    levels = repeated([[0], [1], [2], [0], [1], [2]], [8, 5, 2, 2, 5, 8])
    label = np.repeat([0, 1], 15)
    for seed in range(4):
        table, sample, truth = tables(levels, label, seed)
        assert right(by_assignment(table, sample), table, truth) == [1.0]
        assert right(joint(table, sample), table, truth) == [1.0]


def test_known_rows_name_what_symmetry_hides():
    levels, label = both_classes(repeated([[0, 0], [1, 1], [2, 2]], [4, 4, 4]))
    found = []
    for seed in range(8):
        table, sample, truth = tables(levels, label, seed)
        found.append(right(joint(table, sample), table, truth) == [1.0, 1.0])
        rows = np.array([np.flatnonzero(truth[:, 0] == level)[0] for level in (0, 2)])
        known = KnownRows(rows, truth[rows])
        assert right(known_plaintext(table, sample, known), table, truth) == [1.0, 1.0]
    assert not all(found)


def test_baselines():
    table, sample, truth = tables(*both_classes(DISTINCT))
    assert [named.tolist() for named in mode_guess(table, sample)] == [[0] * 3, [2] * 3]
    assert right(mode_guess(table, sample), table, truth) == [9 / 16, 9 / 16]
    random = [
        np.mean(right(random_guess(table, sample, seed), table, truth)) for seed in range(400)
    ]
    assert np.mean(random) == pytest.approx(1 / 3, abs=0.05)
    assert right(ideal(table, truth), table, truth) == [1.0, 1.0]


def test_a_token_of_two_levels_is_at_best_the_more_frequent_one():
    table = TokenTable.numbered([np.zeros(5)], np.zeros(5))
    truth = np.array([[1], [0], [1], [1], [0]], np.int32)
    assert right(ideal(table, truth), table, truth) == [0.6]


def test_known_rows_do_not_count():
    table = TokenTable.numbered([np.array([5, 5, 7, 9])], np.zeros(4))
    truth = np.array([[0], [0], [1], [2]], np.int32)
    assert recovered([np.array([0, 2, 1])], table, truth, apart=np.array([2])) == [2 / 3]


def test_intervals_are_over_cuts_and_shared():
    found = estimates({"a": [0.0, 1.0] * 50, "b": [1.0, 2.0] * 50, "c": [0.5] * 100}, 3)
    assert found["a"]["mean"] == 0.5
    # Normal approximation: 0.5 +- 1.96 * 0.5 / sqrt(100).
    assert (found["a"]["low"], found["a"]["high"]) == pytest.approx((0.402, 0.598), abs=0.02)
    assert found["b"]["low"] == pytest.approx(found["a"]["low"] + 1)
    assert found["c"] == {"mean": 0.5, "low": 0.5, "high": 0.5}


@st.composite
def cases(draw, fields=3, sizes=4):
    """A table, a sample and its truth; not every level need occur in either."""
    size = tuple(draw(st.lists(st.integers(2, sizes), min_size=fields, max_size=fields)))
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    rows, others = draw(st.integers(3, 40)), draw(st.integers(1, 40))

    def some(count):
        return np.stack([generator.zipf(1.8, count) % n for n in size], 1).astype(np.int32)

    truth, label = some(rows), generator.integers(0, 2, rows).astype(np.int8)
    sample = Auxiliary(some(others), generator.integers(0, 2, others).astype(np.int8), size)
    return TokenTable.numbered(list(truth.T), label), sample, truth


@given(cases())
def test_no_level_is_named_twice_in_a_field(case):
    table, sample, truth = case
    known = KnownRows(np.array([0, 2]), truth[[0, 2]])
    guesses = [attack(table, sample) for attack in (by_rank, by_assignment, joint)]
    guesses += [random_guess(table, sample, 1), known_plaintext(table, sample, known)]
    for guess in guesses:
        for named, size, tokens in zip(guess, sample.sizes, table.counts, strict=True):
            assert named.shape == tokens.shape
            assert len(set(named.tolist())) == len(named)
            assert 0 <= named.min() <= named.max() < size
    for row in known.rows:
        assert [n[t] for n, t in zip(guesses[-1], table.tokens[row], strict=True)] == list(
            truth[row]
        )


@given(cases(), st.randoms(use_true_random=False))
def test_other_names_of_tokens_change_nothing(case, random):
    table, sample, _ = case
    renamed = []
    for column, tokens in zip(table.tokens.T, table.counts, strict=True):
        names = random.sample(range(1000), len(tokens))
        renamed.append(np.array(names)[column])
    again = TokenTable.numbered(renamed, table.label)
    assert np.array_equal(again.tokens, table.tokens)
    for attack in (by_rank, by_assignment, joint):
        both = zip(attack(again, sample), attack(table, sample), strict=True)
        assert all(np.array_equal(one, other) for one, other in both)


@given(cases(fields=2))
def test_without_the_label_no_assignment_is_likelier_than_by_rank(case):
    table, sample, _ = case
    blind = TokenTable(table.tokens, np.zeros_like(table.label))
    known = Auxiliary(sample.levels, np.zeros_like(sample.label), sample.sizes)
    both = zip(by_assignment(blind, known), by_rank(blind, known), strict=True)
    for field, (assigned, ranked) in enumerate(both):
        share = np.log(known.counts[field] + PSEUDO_ROWS)
        tokens = blind.counts[field]
        assert tokens @ share[assigned] == pytest.approx(tokens @ share[ranked])


def direct(table, sample, guess):
    """Log-likelihoods of each table of one field, and of each pair, cell by cell; label last."""
    sizes = [*sample.sizes, 2]
    named = [n[t] for n, t in zip(guess, table.tokens.T, strict=True)] + [table.label]
    known = [*sample.levels.T, sample.label]

    def rose(before, count):
        return lgamma(before + count) - lgamma(before)

    def rows(columns, field, level):
        return int((columns[field] == level).sum())

    def share(field, level):
        total = len(sample.label) + PSEUDO_ROWS * sizes[field]
        return (rows(known, field, level) + PSEUDO_ROWS) / total

    def pair(one, two):
        total = 0.0
        for a, b in product(range(sizes[one]), range(sizes[two])):
            seen = int(((named[one] == a) & (named[two] == b)).sum())
            before = int(((known[one] == a) & (known[two] == b)).sum())
            total += rose(before + PAIR_ROWS * share(one, a) * share(two, b), seen)
        return total

    alone = [
        sum(rose(rows(known, f, a) + PSEUDO_ROWS, rows(named, f, a)) for a in range(size))
        for f, size in enumerate(sizes)
    ]
    return alone, {both: pair(*both) for both in combinations(range(len(sizes)), 2)}


def potential(table, sample, guess):
    """What every step of the joint attack raises, as its docstring says it."""
    alone, pairs = direct(table, sample, guess)
    return sum(alone) + sum(m - alone[one] - alone[two] for (one, two), m in pairs.items())


def conditional(table, sample, guess):
    """The likelihood by which the joint attack chooses between its ends."""
    alone, pairs = direct(table, sample, guess)
    return sum(2 * m - alone[one] - alone[two] for (one, two), m in pairs.items())


def climb_of(table, sample):
    return _Climb(table, sample, [np.full(len(t), UNKNOWN, np.int32) for t in table.counts])


@settings(deadline=None, max_examples=30)
@given(cases(sizes=3))
def test_the_joint_attack_ends_where_no_renaming_of_one_field_is_likelier(case):
    table, sample, _ = case
    guess = joint(table, sample)
    best = potential(table, sample, guess)
    for field, size in enumerate(sample.sizes):
        for names in permutations(range(size), len(guess[field])):
            other = [*guess[:field], np.array(names, np.int32), *guess[field + 1 :]]
            assert potential(table, sample, other) <= best + 1e-5


@settings(deadline=None)
@given(cases())
def test_the_joint_attack_keeps_the_likelier_of_its_ends(case):
    table, sample, _ = case
    climb = climb_of(table, sample)
    ends = [climb.split(climb.run(start(table, sample))) for start in (by_rank, by_assignment)]
    likely = [conditional(table, sample, end) for end in ends]
    assert conditional(table, sample, joint(table, sample)) == pytest.approx(max(likely), abs=1e-6)
    for start, end in zip((by_rank, by_assignment), ends, strict=True):
        before = potential(table, sample, start(table, sample))
        assert potential(table, sample, end) >= before - 1e-5
