"""Attribute inference and reconstruction: what must be found, and what cannot be."""

import numpy as np
import pytest

from attacks.classifier.answers import FULL, ONE, TWO, logit
from attacks.classifier.cuts import SETTINGS, Scene, attacked_answers
from attacks.classifier.inference import (
    AnswerTable,
    Expectation,
    Imputer,
    halves,
    infer_field,
    likeliest,
    marginals,
    spread_between,
    with_each_level,
)
from attacks.classifier.level_models import fit_level_model, level_dataset
from attacks.classifier.reason_log import ReasonLog, grouped
from attacks.classifier.reconstruction import (
    ContributionTable,
    Reasons,
    Told,
    evidence,
    reconstruct,
    refine,
)
from attacks.cuts import Cut
from attacks.view import Auxiliary
from tests.support.raw_tables import TINY, tiny_table
from training.classifier import fit_classifier, predict

SIZES = (3, 4, 2)


class Additive:
    """A model whose levels contribute amounts of their own."""

    def __init__(self, weights, base=0.0):
        self.weights, self.base = [np.asarray(w, float) for w in weights], base

    def contributions(self, levels):
        both = zip(self.weights, levels.T, strict=True)
        return np.stack([weight[column] for weight, column in both], axis=1)

    def probability(self, levels):
        return 1 / (1 + np.exp(-(self.base + self.contributions(levels).sum(axis=1))))


SPEAKING = Additive([[-0.9, 0.1, 1.3], [0.77, -0.31, 0.05, -1.1], [0.23, -0.41]])
SILENT = Additive([[0, 0, 0], [0, 0, 0, 0], [0, 0]])


def rows(count=600, seed=0):
    """Rows whose second field mostly follows the first; the third is alone."""
    random = np.random.default_rng(seed)
    first = random.choice(3, count, p=[0.5, 0.3, 0.2])
    second = np.where(random.random(count) < 0.8, first, random.integers(0, 4, count))
    levels = np.stack([first, second, random.integers(0, 2, count)], 1).astype(np.int32)
    return Auxiliary(levels, (random.random(count) < 0.3).astype(np.int8), SIZES)


@pytest.fixture(scope="module")
def sample():
    return rows(seed=1)


@pytest.fixture(scope="module")
def people():
    return rows(200, seed=2)


def named(people, guess):
    return (guess == people.levels).mean(axis=0)


def modes(sample, people):
    return named(people, likeliest([s[None].repeat(200, 0) for s in marginals(sample)]))


def test_an_imputer_knows_dependence_and_not_the_field_itself(sample, people):
    imputer = Imputer(sample, with_label=False)
    found = named(people, likeliest(imputer.log_shares(people.levels)))
    assert found[0] > 0.75
    assert found[2] == pytest.approx(0.5, abs=0.12)
    changed = people.levels.copy()
    changed[:, 1] = (changed[:, 1] + 1) % 4
    for one, other in ((imputer.log_shares(people.levels), imputer.log_shares(changed)),):
        assert np.array_equal(one[1], other[1])
        assert not np.array_equal(one[0], other[0])
    shares = imputer.field_log_shares(0, people.levels)
    assert np.exp(shares).sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_an_imputer_with_labels_asks_for_them(sample, people):
    imputer = Imputer(sample, with_label=True)
    with pytest.raises(ValueError, match="give the rows' labels"):
        imputer.log_shares(people.levels)
    assert len(imputer.log_shares(people.levels, people.label)) == 3


def test_an_imputer_takes_a_field_of_one_level(people):
    constant = Auxiliary(np.zeros((30, 2), np.int32), np.zeros(30, np.int8), (2, 3))
    shares = Imputer(constant, with_label=False).log_shares(np.zeros((4, 2), np.int32))
    assert likeliest(shares).tolist() == [[0, 0]] * 4


@pytest.mark.parametrize(("form", "least"), [(FULL, 1.0), (TWO, 1.0), (ONE, 0.8)])
def test_whoever_asks_the_model_names_the_missing_field(sample, people, form, least):
    imputer = Imputer(sample, with_label=False)
    told = form.of(SPEAKING.probability(people.levels), 0.5)
    for field, prior in enumerate(imputer.log_shares(people.levels)):
        guess = infer_field(
            field, people.levels, prior, Expectation([SPEAKING], 0.0), told, form, 0.5
        )
        assert (guess == people.levels[:, field]).mean() >= least


def test_a_model_that_says_nothing_adds_nothing_to_the_imputation(sample, people):
    prior = Imputer(sample, with_label=False).log_shares(people.levels)
    told = SILENT.probability(people.levels)
    for spread in (0.0, 0.5):
        for field in range(3):
            guess = infer_field(
                field, people.levels, prior[field], Expectation([SILENT], spread), told, FULL, 0.5
            )
            assert np.array_equal(guess, prior[field].argmax(axis=1))


def test_an_own_model_helps_as_far_as_it_is_near(sample, people):
    prior = Imputer(sample, with_label=False).log_shares(people.levels)[2]
    told = SPEAKING.probability(people.levels)
    near = Additive([w + 0.02 for w in SPEAKING.weights])
    shares = []
    for spread in (0.1, 3.0):
        guess = infer_field(2, people.levels, prior, Expectation([near], spread), told, FULL, 0.5)
        shares.append((guess == people.levels[:, 2]).mean())
    assert shares[0] > 0.95
    assert shares[1] <= shares[0]


def test_the_spread_between_models_is_that_of_their_logits(sample):
    other = Additive(SPEAKING.weights, base=0.5)
    assert spread_between(SPEAKING, other, sample.levels) == pytest.approx(0.5)
    first, second = halves(sample)
    assert len(first.label) == len(second.label) == 300


def test_each_level_is_put_in():
    found = with_each_level(np.array([[5, 1], [6, 2]], np.int32), 1, 3)
    assert found.tolist() == [[5, 0], [5, 1], [5, 2], [6, 0], [6, 1], [6, 2]]


def test_a_score_names_what_goes_with_it_and_no_more(sample, people):
    loud = Additive([[-2, 0, 2], [0, 0, 0, 0], [0, 0]])
    table = AnswerTable(sample, loud.probability(sample.levels))
    found = named(people, likeliest(table.log_shares(loud.probability(people.levels))))
    assert found[0] == 1.0
    assert found[2] == pytest.approx(0.5, abs=0.12)
    silent = AnswerTable(sample, SILENT.probability(sample.levels))
    nothing = named(people, likeliest(silent.log_shares(SILENT.probability(people.levels))))
    assert nothing.tolist() == modes(sample, people).tolist()
    for ratio in silent.log_ratios(SILENT.probability(people.levels)):
        assert np.abs(ratio).max() < 0.05


def test_a_table_of_answers_can_tell_labels_apart():
    levels = np.array([[0], [1]] * 100, np.int32)
    sample = Auxiliary(levels, levels[:, 0].astype(np.int8), (2,))
    table = AnswerTable(sample, np.full(200, 0.4), with_label=True)
    guess = likeliest(table.log_shares(np.full(2, 0.4), np.array([0, 1], np.int8)))
    assert guess.tolist() == [[0], [1]]
    with pytest.raises(ValueError, match="give the rows' labels"):
        table.log_shares(np.full(2, 0.4))


def test_reasons_are_the_largest_contributions():
    reasons = Reasons.largest(np.array([[0.11, -0.2, 0.35], [0.3, 0.26, 0.1]]), 2, decimals=1)
    assert reasons.told.tolist() == [[True, False, True], [True, True, False]]
    assert reasons.contribution[0, 2] == pytest.approx(0.4)
    assert reasons.least == pytest.approx([0.15, 0.35])
    assert not Reasons.largest(np.ones((2, 3)), 0).told.any()


def attack(model, sample, people, count, decimals=None, table=None):
    """Reconstruct from ``count`` reasons without a score."""
    imputer = Imputer(sample, with_label=False)
    table = table or ContributionTable.asked(sample, model.contributions(sample.levels))
    reasons = Reasons.largest(model.contributions(people.levels), count, decimals)
    told = Told(reasons, None, FULL, 0.5)
    answers = AnswerTable(sample, model.probability(sample.levels))
    seen = evidence(told, table, answers)
    guess = reconstruct(told, seen, sample, imputer)
    return guess, refine(told, guess, seen, model, imputer)


def test_all_reasons_are_a_fingerprint(sample, people):
    for guess in attack(SPEAKING, sample, people, 3):
        assert named(people, guess).tolist() == [1.0, 1.0, 1.0]


def test_some_reasons_name_their_fields_and_bound_the_others(sample, people):
    guess, _ = attack(SPEAKING, sample, people, 1)
    first = SPEAKING.contributions(people.levels).argmax(axis=1)
    row = np.arange(200)
    assert (guess[row, first] == people.levels[row, first]).all()
    # The largest is not above 0.05, so neither 0.1 nor 1.3 is the first field's.
    small = SPEAKING.contributions(people.levels).max(axis=1) <= 0.05
    assert small.any()
    assert (guess[small, 0] == 0).all()


def test_no_reason_and_no_score_leave_the_mode(sample, people):
    guess, _ = attack(SPEAKING, sample, people, 0)
    assert named(people, guess).tolist() == modes(sample, people).tolist()
    guess, _ = attack(SILENT, sample, people, 3)
    assert named(people, guess)[2] == pytest.approx(0.5, abs=0.12)


def test_rounded_reasons_tell_less(sample, people):
    fine = Additive([[0.0, 0.01, 0.02], [0.0, 0.03, 0.06, 0.09], [0.0, 0.04]])
    exact, _ = attack(fine, sample, people, 3)
    rounded, _ = attack(fine, sample, people, 3, decimals=1)
    assert named(people, exact).mean() == 1.0
    assert named(people, rounded).mean() < 0.9


def test_own_models_that_disagree_are_doubted(sample, people):
    def table(gap):
        one, other = (
            Additive([w + sign * gap for w in SPEAKING.weights]).contributions(sample.levels)
            for sign in (1, -1)
        )
        own = SPEAKING.contributions(sample.levels)
        return ContributionTable.estimated(sample, [own], (one, other))

    assert max(map(max, table(0.0).doubt)) < 1e-6
    assert table(0.5).doubt[2][0] > table(0.1).doubt[2][0] > 0
    guess, _ = attack(SPEAKING, sample, people, 3, table=table(0.05))
    assert named(people, guess).min() > 0.95


def test_a_score_counts_for_fields_without_a_reason(sample, people):
    loud = Additive([[-2, 0, 2], [0, 0, 0, 0], [0, 0]])
    score = loud.probability(people.levels)
    answers = AnswerTable(sample, loud.probability(sample.levels))
    table = ContributionTable.asked(sample, loud.contributions(sample.levels))
    told = Told(Reasons.largest(loud.contributions(people.levels), 0), score, FULL, 0.5)
    guess = reconstruct(told, evidence(told, table, answers), sample, None)
    assert named(people, guess)[0] == 1.0


def test_a_level_model_answers_as_one_trained_on_tokens():
    cut = Cut.of(tiny_table(), 0, 0)
    learned = Auxiliary(cut.truth, cut.table.label, cut.pool.sizes)
    model = fit_level_model(learned, 3, TINY)
    dataset = level_dataset(Auxiliary(cut.table.tokens, cut.table.label, cut.pool.sizes))
    vocabulary = dataset.build_vocabulary()
    fitted = fit_classifier(dataset, vocabulary, TINY, seed=3)
    on_tokens = predict(fitted.network, dataset.indices(vocabulary))
    assert model.probability(cut.truth) == pytest.approx(on_tokens, abs=1e-6)
    contributions = model.contributions(cut.truth)
    base = logit(model.probability(cut.truth)) - contributions.sum(axis=1)
    assert np.ptp(base) < 1e-5


def test_a_level_that_was_not_learned_counts_nothing():
    sample = rows(80)
    model = fit_level_model(Auxiliary(sample.levels.clip(max=1), sample.label, SIZES), 0, TINY)
    unseen = np.array([[2, 3, 0], [2, 2, 0]], np.int32)
    assert np.ptp(model.probability(unseen)) == 0


def test_attacks_on_a_cut_stand_in_the_order_of_what_they_know():
    scene = Scene.of(Cut.of(tiny_table(rows=400), 0, 0), TINY, (5.0, 1.0))
    found = attacked_answers(scene)
    again = attacked_answers(Scene.of(Cut.of(tiny_table(rows=400), 0, 0), TINY, (5.0, 1.0)))
    assert found == again
    assert (found["learned"], found["applicants"], found["sample"]) == (200, 40, 160)
    assert found["reconstruction"].keys() == {setting.name for setting in SETTINGS}
    assert np.mean(found["inference"]["full"]["query"]) == 1.0
    assert np.mean(found["reconstruction"]["all"]["exact"]) == 1.0
    assert found["inference"]["decision"]["imputation"] == found["inference"]["full"]["imputation"]
    assert found["score_only"]["mode"] == found["inference"]["full"]["mode"]


def log_of(model, own, sample, people, count=3, decimals=None):
    """What a log of answers adds to own models that are wrong: both shares named correctly."""
    imputer = Imputer(sample, with_label=False)
    gap = [Additive([w + sign * 0.4 for w in own.weights]) for sign in (1, -1)]
    table = ContributionTable.estimated(
        sample,
        [own.contributions(sample.levels)],
        tuple(half.contributions(sample.levels) for half in gap),
    )
    reasons = Reasons.largest(model.contributions(people.levels), count, decimals)
    told = Told(reasons, None, FULL, 0.5)
    guess = reconstruct(told, table.log_likelihoods(reasons), sample, imputer)
    learned = ReasonLog(reasons, sample, table, imputer).learned(guess)
    after = reconstruct(told, learned.log_likelihoods(reasons), sample, imputer)
    return named(people, guess).mean(), named(people, after).mean()


def test_a_log_of_answers_mends_what_own_models_have_wrong(sample, people):
    wrong = Additive([[0.5, -0.6, 0.9], [0.3, 0.35, 0.05, -0.4], [0.23, -0.41]])
    alone, together = log_of(SPEAKING, wrong, sample, people)
    assert together > 0.95
    assert together > alone + 0.1


def test_a_log_of_equal_contributions_says_nothing(sample, people):
    _, together = log_of(SILENT, SILENT, sample, people)
    assert together < modes(sample, people).mean() + 0.02


def test_contributions_fall_into_as_many_groups_as_there_are_levels(people):
    noise = np.random.default_rng(0).normal(0, 0.01, people.levels.shape)
    reasons = Reasons.largest(SPEAKING.contributions(people.levels) + noise, 3)
    for group, column in zip(grouped(reasons, SIZES), people.levels.T, strict=True):
        assert len(np.unique(group)) == len(np.unique(column))
        assert len(set(zip(group.tolist(), column.tolist(), strict=True))) == len(np.unique(column))
    rounded = grouped(Reasons.largest(np.zeros((5, 3)), 3, 1), SIZES)
    assert all(group.tolist() == [0] * 5 for group in rounded)


def test_a_log_needs_all_fields(sample, people):
    with pytest.raises(ValueError, match="answers that tell all fields"):
        log_of(SPEAKING, SPEAKING, sample, people, count=2)
