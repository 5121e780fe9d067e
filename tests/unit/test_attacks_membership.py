"""Membership attacks: planted leaks are found, and nothing where there is none."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from attacks.classifier import membership
from attacks.classifier.answers import DECISION, FORMS, FULL, ONE, TWO, logit
from attacks.classifier.membership import (
    Shadows,
    by_rightness,
    by_signal,
    lira_offline,
    lira_online,
)
from attacks.classifier.pools import Pool
from attacks.classifier.shadows import ATTACKS, ClassifierShadows, classifier_membership
from attacks.ranking import _Curve, membership_figures
from attacks.view import Auxiliary
from tests.support.raw_tables import TINY, tiny_table
from training.presets import ClassifierPreset


def planted(models=20, rows=300, leak=1.0, seed=0):
    """Signals of rows that are easy or hard, raised by ``leak`` where the row was learned."""
    random = np.random.default_rng(seed)
    inside = random.random((models, rows)) < 0.5
    ease = random.normal(0, 5, rows)
    return ease + leak * inside + random.normal(0, 0.3, (models, rows)), inside


def attacked(attack, signal, inside):
    scores = [
        attack(signal[one], Shadows(signal, inside).without(one)) for one in range(len(signal))
    ]
    return membership_figures(np.stack(scores), inside, 0, draws=60)


@pytest.mark.parametrize("attack", [lira_online, lira_offline])
def test_lira_finds_what_a_common_threshold_does_not(attack):
    signal, inside = planted()
    found = attacked(attack, signal, inside)
    # Two normal distributions 1 / 0.3 spreads apart have AUC 0.991.
    assert found["auc"]["mean"] > 0.97
    assert found["tpr_1"]["mean"] > 0.5
    common = membership_figures(np.stack([by_signal(row) for row in signal]), inside, 0, draws=5)
    assert common["auc"]["mean"] < 0.6


@pytest.mark.parametrize("attack", [lira_online, lira_offline, lambda signal, _: by_signal(signal)])
def test_nothing_is_found_where_nothing_leaks(attack):
    signal, inside = planted(leak=0.0)
    found = attacked(attack, signal, inside)
    assert found["auc"]["low"] < 0.5 < found["auc"]["high"]
    assert found["tpr_1"]["low"] <= 0.01 <= found["tpr_1"]["high"] + 0.002


def test_online_lira_is_the_likelihood_ratio_of_two_normal_distributions(monkeypatch):
    monkeypatch.setattr(membership, "SHADOWS_OF_SPREAD", 0)
    signal, inside = planted(models=12, rows=30)
    shadows = Shadows(signal, inside).without(0)
    found = lira_online(signal[0], shadows)
    for row in range(30):
        with_it = shadows.signal[shadows.inside[:, row], row]
        without = shadows.signal[~shadows.inside[:, row], row]
        if min(len(with_it), len(without)) > 1:
            ratio = norm.logpdf(signal[0, row], with_it.mean(), with_it.std(ddof=1))
            ratio -= norm.logpdf(signal[0, row], without.mean(), without.std(ddof=1))
            assert found[row] == pytest.approx(ratio)


def test_a_row_that_no_shadow_learned_gets_a_score():
    signal, inside = planted(models=6, rows=40)
    inside[:, 0], inside[:, 1] = False, True
    for attack in (lira_online, lira_offline):
        assert np.isfinite(attack(signal[0], Shadows(signal, inside).without(0))).all()


def test_decisions_are_compared_with_how_often_shadows_are_right():
    inside = np.array([[True] * 4, [True] * 4, [False] * 4, [False] * 4])
    right = np.array([[1, 1, 0, 1], [1, 1, 0, 1], [0, 1, 0, 1], [0, 1, 0, 1]], float)
    online, offline = by_rightness(np.array([1.0, 1.0, 0.0, 0.0]), Shadows(right, inside))
    # The first row is right only where it was learned, the others tell nothing.
    assert online[0] > max(online[1:]) + 1
    assert offline[0] == max(offline)


def test_figures_are_those_of_the_pooled_curve():
    random = np.random.default_rng(1)
    members = random.random((3, 1200)) < 0.5
    scores = np.round(random.normal(0.7 * members, 1), 1)
    found = membership_figures(scores, members, 0, draws=20)
    assert found["auc"]["mean"] == pytest.approx(roc_auc_score(members.ravel(), scores.ravel()))
    false, true, _ = roc_curve(members.ravel(), scores.ravel(), drop_intermediate=False)
    assert found["advantage"]["mean"] == pytest.approx((true - false).max())
    assert found["tpr_1"]["mean"] == pytest.approx(np.interp(0.01, false, true))
    assert found["tpr_01"]["mean"] == pytest.approx(np.interp(0.001, false, true))
    for value in found.values():
        assert value["low"] <= value["mean"] <= value["high"]


def test_a_redrawn_curve_is_that_of_repeated_models_and_rows():
    random = np.random.default_rng(2)
    members = random.random((3, 40)) < 0.5
    scores = np.round(random.normal(members, 1), 1)
    models, rows = np.array([2.0, 0.0, 1.0]), random.integers(0, 3, 40).astype(float)
    found = _Curve(scores, members).figures(models, rows, {})
    weight = np.outer(models, rows).ravel()
    expected = roc_auc_score(members.ravel(), scores.ravel(), sample_weight=weight)
    assert found["auc"] == pytest.approx(expected)


def test_equal_scores_are_a_tossed_coin():
    members = np.arange(4000).reshape(2, 2000) % 2 == 0
    found = membership_figures(np.zeros(members.shape), members, 0, draws=10)
    assert found["auc"]["mean"] == pytest.approx(0.5)
    assert found["tpr_1"]["mean"] == pytest.approx(0.01)
    assert found["advantage"]["mean"] == pytest.approx(0)


def test_small_shares_of_false_positives_need_rows():
    members = np.arange(100) % 2 == 0
    found = membership_figures(members[None].astype(float), members[None], 0, draws=5)
    assert "tpr_1" in found
    assert "tpr_01" not in found
    assert found["auc"] == {"mean": 1.0, "low": 1.0, "high": 1.0}


def test_answers_hold_the_probability_and_no_more():
    chance = np.array([0.0004, 0.123456, 0.55, 0.97])
    assert TWO.of(chance, 0.5).tolist() == [0.0, 0.12, 0.55, 0.97]
    assert ONE.of(chance, 0.5).tolist() == [0.0, 0.1, 0.6, 1.0]
    assert DECISION.of(chance, 0.55).tolist() == [0, 0, 1, 1]
    for form in FORMS.values():
        low, high = form.bounds(form.of(chance, 0.5), 0.5)
        assert ((low <= chance) & (chance <= high)).all()
        confidence = form.confidence(form.of(chance, 0.5), np.array([0, 0, 1, 1], np.int8), 0.5)
        assert np.isfinite(confidence).all()
    assert FULL.confidence(chance, np.array([0, 0, 1, 1], np.int8), 0.5) == pytest.approx(
        np.array([-1, -1, 1, 1]) * logit(chance), abs=3e-3
    )


@pytest.mark.parametrize("form", [TWO, ONE, DECISION])
def test_likelihoods_of_all_answers_add_up_to_one(form):
    steps = [0.0, 1.0] if form.decision else np.arange(0, 10**form.decimals + 1) / 10**form.decimals
    likely = form.log_likelihood(np.array(steps), np.array(-0.4), 0.7, 0.3)
    # Neighbouring intervals overlap by the least that float32 tells apart.
    assert np.exp(likely).sum() == pytest.approx(1, abs=1e-3)
    sure = form.log_likelihood(form.of(np.array([0.33]), 0.3), logit(np.array([0.33])), 0.0, 0.3)
    assert sure.tolist() == [0.0]


def test_a_pool_is_halved_anew_for_each_model_and_keeps_groups_together():
    raw = tiny_table(rows=120, group="who")
    pool = Pool.of(raw, 1000, 0)
    first, again, second = (pool.members(5, number) for number in (0, 0, 1))
    assert first.sum() == 60
    assert np.array_equal(first, again)
    assert 0.2 < (first == second).mean() < 0.8
    for group in range(40):
        assert len(set(first[pool.group == group].tolist())) == 1
    some = Pool.of(raw, 50, 0)
    assert len(some.rows.label) == len(some.group) == 50
    assert pool.with_label[:, -1].tolist() == pool.rows.label.tolist()


def overfitting():
    """A recipe that learns rows by heart."""
    return ClassifierPreset(
        "heart", "wide_deep", (32,), 1, False, 150, 0, 50, "adam", 0.05, 0, 0, 0, 0, "test"
    )


def random_pool(rows=120, fields=8, seed=0):
    """Rows whose label nothing tells: what a model knows of it, it learned by heart."""
    random = np.random.default_rng(seed)
    levels = random.integers(0, 4, (rows, fields)).astype(np.int32)
    return Pool(Auxiliary(levels, random.integers(0, 2, rows).astype(np.int8), (4,) * fields))


def shadows_of(preset, models=8):
    found = ClassifierShadows(random_pool(), models, preset, (1.0, 1.0), 0, {})
    for task in found.tasks():
        task.results[task.key] = task.compute()
    return found


def test_rows_learned_by_heart_are_found_and_those_of_another_model_are_not():
    found = classifier_membership(shadows_of(overfitting()))
    assert found.keys() == FORMS.keys()
    for form, least in (("full", 0.65), ("two", 0.65), ("decision", 0.57)):
        assert found[form].keys() == ATTACKS.keys()
        for attack in ("loss", "offline", "online"):
            assert found[form][attack]["auc"]["mean"] > least, (form, attack)
        control = found[form]["control"]["auc"]
        assert control["low"] - 0.02 < 0.5 < control["high"] + 0.02
    assert found["full"]["loss"]["auc"]["mean"] > found["decision"]["loss"]["auc"]["mean"]


def test_models_that_learn_nothing_give_nobody_away():
    untaught = replace(TINY, steps=1, check_every=1, learning_rate=1e-9)
    found = classifier_membership(shadows_of(untaught))
    for attack in ("loss", "offline", "online"):
        auc = found["full"][attack]["auc"]
        assert auc["low"] - 0.01 < 0.5 < auc["high"] + 0.01


def test_the_same_seed_trains_the_same_shadows():
    one, again = shadows_of(TINY, models=4), shadows_of(TINY, models=4)
    assert one.kept == again.kept
    assert one.kept["model/0"]["logits"] != one.kept["model/1"]["logits"]
