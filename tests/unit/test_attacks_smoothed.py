"""Attacks on tables whose levels have homophones: planted structure, its absence, and copies."""

from dataclasses import replace

import numpy as np
import pytest

from attacks.baselines import mode_guess, random_guess
from attacks.cuts import Cut
from attacks.recovery import ideal, recovered
from attacks.tokens.annealing import annealed
from attacks.tokens.copies import linked_pairs
from attacks.tokens.frequency import by_assignment, by_rank, split
from attacks.view import Auxiliary, KnownRows, TokenTable
from cipherscore.client.sources import find_table
from cipherscore.schema import Smoothing
from cipherscore.schema_file import load_schema
from evaluation.folds import RawData
from tests.support.real_data import german_credit

NONE = np.empty(0, np.intp)
FIELDS, LEVELS, HOMOPHONES = 6, 3, 4


def right(guess, table, truth):
    return float(np.mean(recovered(guess, table, truth, apart=NONE)))


def rows(generator, count, dependence):
    """Rows of six fields with three levels each, which follow one hidden group of the row."""
    share = np.array([0.5, 0.3, 0.2])
    group = generator.choice(LEVELS, count, p=share)
    alone = generator.choice(LEVELS, (count, FIELDS), p=share)
    follows = generator.random((count, FIELDS)) < dependence
    label = (generator.random(count) < np.where(group == 0, 0.2, 0.5)).astype(np.int8)
    return np.where(follows, group[:, None], alone).astype(np.int32), label


def planted(dependence, seed=0, count=1200, draws=1):
    """A table in which each level has four homophones, its truth, and the attacker's sample."""
    generator = np.random.default_rng(seed)
    truth, label = rows(generator, count, dependence)
    order = np.random.default_rng(seed + 1).permutation(np.repeat(np.arange(count), draws))
    truth, label = truth[order], label[order]
    number = generator.integers(0, HOMOPHONES, truth.shape)
    columns = list((truth * HOMOPHONES + number).T)
    table = TokenTable.numbered(columns, label, draws=draws, most_share=0.125)
    others, others_label = rows(generator, count, dependence)
    return table, truth, Auxiliary(others, others_label, (LEVELS,) * FIELDS), order


def test_homophones_are_named_by_what_they_occur_with():
    table, truth, sample, _ = planted(0.7)
    assert right(annealed(table, sample), table, truth) > 0.95
    assert right(split(by_rank)(table, sample), table, truth) < 0.7


def test_nothing_is_named_beyond_chance_where_fields_are_independent():
    # All tokens of a level have as many homophones, so their size says which level it is only
    # through the share of each: take that away, too.
    found = []
    for seed in range(4):
        table, truth, sample, _ = planted(0.0, seed)
        blind = replace(table, even=False, label=np.zeros_like(table.label))
        known_label = Auxiliary(sample.levels, np.zeros_like(sample.label), sample.sizes)
        guess = annealed(blind, known_label)
        found.append(right(guess, table, truth) - right(mode_guess(table, sample), table, truth))
    assert np.mean(found) < 0.05


def test_known_rows_keep_their_names():
    table, truth, sample, _ = planted(0.3)
    places = np.arange(0, 40)
    guess = annealed(table, sample, KnownRows(places, truth[places]))
    for field, named in enumerate(guess):
        assert np.array_equal(named[table.tokens[places, field]], truth[places, field])


def test_copies_of_a_row_are_linked():
    table, _, _, order = planted(0.3, count=400, draws=4)
    pairs = linked_pairs(table)
    same = order[pairs.first] == order[pairs.second]
    # Of 1,599 other rows 3 are copies: 0.2 % by chance.
    assert same.mean() > 0.03
    assert np.all(table.label[pairs.first] == table.label[pairs.second])
    assert not np.any(pairs.first == pairs.second)


def test_linked_rows_count_tokens_of_one_level():
    table, truth, _, _ = planted(0.3, count=400, draws=4)
    counts = linked_pairs(table).of(table.tokens[:, 0], int(table.tokens[:, 0].max()) + 1)
    level = np.array([truth[table.tokens[:, 0] == t, 0][0] for t in range(len(counts))])
    alike = level[:, None] == level
    within = counts[alike].sum() / counts.sum()
    size = table.counts[0] / len(table.label)
    by_chance = np.outer(size, size)[alike].sum()
    assert within > by_chance + 0.02


@pytest.mark.parametrize("attack", [split(by_rank), split(by_assignment), annealed])
def test_tokens_that_the_sample_has_too_few_levels_for_are_named_all_the_same(attack):
    table, _, sample, _ = planted(0.5, count=300)
    small = Auxiliary(sample.levels[:2], sample.label[:2], sample.sizes)
    for guess in (attack(table, small), random_guess(table, small, 0)):
        for named, tokens in zip(guess, table.counts, strict=True):
            assert named.shape == tokens.shape
            assert np.all((named >= 0) & (named < LEVELS))


def test_without_smoothing_splitting_changes_nothing():
    table, truth, sample, _ = planted(0.5)
    plain = TokenTable.numbered(list(truth.T), table.label)
    for attack in (by_rank, by_assignment):
        once, again = attack(plain, sample), split(attack)(plain, sample)
        assert all(np.array_equal(a, b) for a, b in zip(once, again, strict=True))


def smoothed_german(most_share, method="proportional"):
    schema = load_schema("german-credit")
    fields = tuple(replace(f, smoothing=Smoothing(most_share, method)) for f in schema.fields)
    return RawData.read(replace(schema, fields=fields), find_table(schema, german_credit()))


def test_german_credit_is_named_in_spite_of_smoothing():
    raw = smoothed_german(0.1)
    cut = Cut.of(raw, 0, 0)
    sample = cut.sample(1.0, shifted=False)
    assert cut.table.most_share == 0.1
    assert max(counts.max() for counts in cut.table.counts) <= 1.5 * 0.1 * cut.rows
    assert right(ideal(cut.table, cut.truth), cut.table, cut.truth) == 1.0
    assert right(split(by_rank)(cut.table, sample), cut.table, cut.truth) < 0.7
    assert right(annealed(cut.table, sample), cut.table, cut.truth) > 0.9


def test_a_smoothed_cut_depends_on_the_seed_and_not_on_the_key():
    raw = smoothed_german(0.2, "poisson")
    one, again = Cut.of(raw, 1, 5, draws=3), Cut.of(raw, 1, 5, draws=3)
    assert np.array_equal(one.table.tokens, again.table.tokens)
    assert np.array_equal(one.truth, again.truth)
    assert (one.rows, len(one.truth), one.table.draws, one.table.even) == (500, 1500, 3, False)
    assert len(one.sample(1.0, shifted=False).label) == 500
