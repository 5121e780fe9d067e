"""Attacks on scoring requests: planted leaks are found, and nothing where there is none."""

import json
from dataclasses import replace
from math import log

import numpy as np
import pytest

from attacks import command
from attacks.recovery import estimates
from attacks.requests import cuts as request_cuts
from attacks.requests import linkage
from attacks.requests import naming as requests
from attacks.requests.cuts import RequestCut, draw_tokens, smoothed
from attacks.requests.link_content import link_content
from attacks.requests.link_study import changed, link_figures, linked
from attacks.requests.linkage import (
    KEPT,
    Requests,
    groups,
    homophones,
    learnt_evidence,
    score_evidence,
    token_evidence,
    undivided,
)
from attacks.requests.naming import Stream
from attacks.requests.report import request_facts, request_lines, request_warnings
from attacks.requests.study import DECOYS, RATIOS, SENT, TITLES, RequestStudy, requests_content
from attacks.view import Auxiliary
from cipherscore.client.sources import from_arrow
from cipherscore.errors import ConfigurationError, DataError
from evaluation.store import Store, run
from tests.support.pages import Page
from tests.support.raw_tables import TINY, tiny_table


def even_field(seed, rows=400, tie=0.9):
    """Requests and a sample of one field with two equally frequent levels, in another order.

    The second level is bad, or has the higher score, with probability ``tie``.
    """
    generator = np.random.default_rng(seed)
    levels = np.repeat([0, 1], rows // 2).astype(np.int32)
    asked, known = generator.permutation(levels), generator.permutation(levels)
    score = np.where(generator.random(rows) < tie, asked, 1 - asked) + 0.01 * generator.random(rows)
    bad = np.where(generator.random(rows) < tie, known, 1 - known).astype(np.int8)
    # Which token is numbered first says nothing: it is the first row's.
    return Stream([asked], score), Auxiliary(known[:, None], bad, (2,)), asked


def named(guess, stream, asked):
    """Share of requests whose level is named."""
    tokens = stream.labelled(np.zeros(len(asked), np.int8)).tokens[:, 0]
    return float(np.mean(guess[0][tokens] == asked))


def test_the_score_names_what_frequencies_leave_open():
    for seed in range(8):
        stream, sample, asked = even_field(seed)
        assert named(requests.with_score(stream, sample), stream, asked) == 1.0


def test_without_a_tie_to_the_score_the_attack_finds_nothing():
    found = []
    for seed in range(24):
        stream, sample, asked = even_field(seed, rows=60, tie=0.5)
        found.append(named(requests.with_score(stream, sample), stream, asked))
    assert set(found) == {0.0, 1.0}
    assert 0.2 < np.mean(found) < 0.8


def test_the_score_names_fields_among_decoys_whose_kind_is_known():
    stream, sample, asked = even_field(3)
    generator = np.random.default_rng(0)
    decoys = generator.permutation(asked)
    among = Stream(
        [np.concatenate([stream.columns[0], decoys])],
        np.concatenate([stream.score, decoys + 0.01 * generator.random(len(decoys))]),
    )
    made = Auxiliary(decoys[:, None], np.zeros(len(decoys), np.int8), (2,))
    guess = requests.among_decoys(made, 1)(among, sample)
    assert named(guess, among, among.columns[0]) == 1.0


def test_sifting_undoes_decoys_that_do_not_look_real():
    """The first field of a real row decides the others; a decoy has any, all equally often."""
    sizes = (3, 2, 2)
    sifted, ranked = [], []
    for seed in range(6):
        generator = np.random.default_rng(seed)
        first = generator.choice(3, 400, p=[0.6, 0.3, 0.1])
        rows = np.stack([first, first == 0, first == 2], axis=1).astype(np.int32)
        real, known = rows[:200], rows[200:]
        decoys = generator.integers(0, sizes, (2, 1400, 3)).astype(np.int32)
        bad = (generator.random(200) < 0.2 + 0.3 * known[:, 0]).astype(np.int8)
        sample = Auxiliary(known, bad, sizes)
        among = np.concatenate([real, decoys[0]])
        stream = Stream(list(among.T), among[:, 0] + 0.01 * generator.random(len(among)))
        made = Auxiliary(decoys[1], np.zeros(1400, np.int8), sizes)
        tokens = stream.labelled(np.zeros(len(among), np.int8)).tokens
        first = requests.with_score(stream, sample)
        strange = requests.strangeness(requests.read(tokens, first), sample, made, seed)
        for found, guess in (
            (sifted, requests.sifted(stream, sample, first, strange, 7)),
            (ranked, requests.rank(stream, sample)),
        ):
            found.append(np.mean(requests.read(tokens, guess)[:200] == real))
    assert np.mean(sifted) > np.mean(ranked) + 0.05, (sifted, ranked)
    assert np.mean(sifted) > 0.9


def test_too_few_labelled_rows_leave_the_score_unused():
    stream, sample, _ = even_field(1)
    few = Auxiliary(sample.levels[:3], np.array([0, 1, 1], np.int8), sample.sizes)
    assert requests.own_scores(few) is None
    expected = requests.without_score(stream, few)
    assert all(map(np.array_equal, requests.with_score(stream, few), expected))


def test_a_row_is_judged_by_a_model_that_has_not_learnt_it():
    """Each row has a level of its own, which a model that learnt the row would know."""
    label = np.tile([0, 1], 50).astype(np.int8)
    rows = np.arange(100, dtype=np.int32)[:, None]
    own = requests.own_scores(Auxiliary(rows, label, (100,)))
    assert own[label == 1].mean() == pytest.approx(own[label == 0].mean(), abs=0.02)


@pytest.mark.parametrize("rows", [1, 2, 5, 8])
def test_the_upper_half_is_half(rows):
    for score in (np.arange(rows)[::-1], np.zeros(rows)):
        assert requests.upper_half(score).sum() == rows - rows // 2
    assert requests.upper_half(np.array([0.3, 0.9, 0.1, 0.5])).tolist() == [0, 1, 0, 1]


def test_repeated_and_impossible_rows_stand_out():
    tokens = np.array([[0, 1], [0, 1], [1, 1], [0, 1], [1, 0]], np.int32)
    assert requests.repetition(tokens).tolist() == [3, 3, 1, 3, 1]
    generator = np.random.default_rng(0)
    same = generator.choice(4, 300, p=[0.5, 0.3, 0.15, 0.05]).astype(np.int32)
    real = Auxiliary(np.stack([same, same], 1), np.zeros(300, np.int8), (4, 4))
    mixed = np.stack([generator.choice(same, 300), generator.choice(same, 300)], 1)
    made = Auxiliary(mixed, np.zeros(300, np.int8), (4, 4))
    found = requests.strangeness(np.array([[1, 1], [1, 2]], np.int32), real, made, 0)
    assert found[0] < 0.4
    assert found[1] > 0.9


def asked(tokens, score=None):
    tokens = np.asarray(tokens, np.int32)
    return Requests(tokens, np.full(len(tokens), 0.5) if score is None else np.asarray(score))


def test_evidence_is_that_of_the_model():
    """Shares over both: token 0 in 4 of 8, token 1 in 3, token 2 in 1."""
    first, second = asked([[0], [0], [1], [2]]), asked([[0], [1], [0], [1]])
    found = token_evidence(first, second, undivided([3]))
    assert found[0, 0] == pytest.approx(log(1 - KEPT + KEPT / (4 / 8)))
    assert found[2, 1] == pytest.approx(log(1 - KEPT + KEPT / (3 / 8)))
    assert found[0, 1] == found[3, 3] == pytest.approx(log(1 - KEPT))
    assert found[2, 1] > found[0, 0] > 0 > found[0, 1]  # rare tokens say more


def test_evidence_sums_over_fields():
    first, second = asked([[0, 1], [1, 0]]), asked([[0, 0], [1, 0]])
    alone = [
        token_evidence(
            asked(first.tokens[:, [f]]), asked(second.tokens[:, [f]]), undivided([2])
        )
        for f in (0, 1)
    ]  # fmt: skip
    assert np.allclose(token_evidence(first, second, undivided([2, 2])), sum(alone))


def test_two_homophones_speak_less_against_than_two_values():
    tokens = np.array([0] * 4 + [1] * 4 + [2] * 4 + [3] * 4)[:, None]
    found = token_evidence(asked(tokens), asked(tokens), [np.array([2.0, 2.0, 1.0, 1.0])])
    same, another, value, other = found[0, 0], found[0, 4], found[8, 8], found[0, 8]
    assert value > same > another > other == pytest.approx(log(1 - KEPT))
    assert same == pytest.approx(log(1 - KEPT + KEPT / 2 / 0.25))
    assert another == pytest.approx(log(1 - KEPT + KEPT / 2 / 0.5))


def test_the_attacker_tells_from_shares_which_tokens_are_homophones():
    """Levels of 60, 30 and 10 %: three tokens of 20 %, two of 15 %, one of 10 %."""
    sample = Auxiliary(np.repeat([0, 1, 2], [600, 300, 100])[:, None].astype(np.int32),
                       np.zeros(1000, np.int8), (3,))  # fmt: skip
    tokens = np.repeat(np.arange(6), [200, 200, 200, 150, 150, 100])[:, None]
    assert homophones([asked(tokens)], sample, 0.2)[0].tolist() == [3, 3, 3, 2, 2, 1]


def split_twice(seed, rows=250, fields=20, levels=3, homophones=2):
    """Two requests of each applicant: values the same, each time another homophone."""
    generator = np.random.default_rng(seed)
    values = generator.integers(0, levels, (rows, fields))
    first, second = (
        asked(values * homophones + generator.integers(0, homophones, values.shape))
        for _ in range(2)
    )
    return first, second, [np.full(levels * homophones, float(homophones))] * fields


def test_likely_links_teach_which_tokens_stand_for_one_value():
    for seed in range(3):
        first, second, copies = split_twice(seed)
        before = link_figures(token_evidence(first, second, copies))["rank_1"]
        after = link_figures(learnt_evidence(first, second, copies))["rank_1"]
        assert before < 0.8
        assert after > 0.98


def test_links_join_the_homophones_of_a_value():
    first, second, copies = split_twice(0)
    sample = Auxiliary(np.repeat([[0], [1], [2]], 20, axis=1).astype(np.int32),
                       np.zeros(3, np.int8), (3,) * 20)  # fmt: skip
    for number in groups(first, second, copies, sample):
        pairs = number.reshape(3, 2)
        assert (pairs[:, 0] == pairs[:, 1]).all()
        assert len(set(pairs[:, 0])) == 3


def test_nothing_is_learnt_where_nothing_is_linked():
    """Second requests are by others: the first applicants' own places mean nothing."""
    found = []
    for seed in range(4):
        first, _, copies = split_twice(seed)
        _, second, _ = split_twice(seed + 100)
        found.append(link_figures(learnt_evidence(first, second, copies)))
    assert np.mean([one["auc"] for one in found]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([one["rank_1"] for one in found]) < 0.02


def test_close_scores_speak_for_one_applicant():
    score = np.random.default_rng(0).uniform(0.05, 0.95, 50)
    found = score_evidence(asked(np.zeros((50, 1)), score), asked(np.zeros((50, 1)), score))
    assert (found.argmax(axis=1) == np.arange(50)).all()
    assert (np.diag(found) > 0).all()
    assert found[score.argmin(), score.argmax()] == pytest.approx(log(1 - KEPT), abs=0.01)
    assert np.isfinite(score_evidence(asked([[0]], [0.0]), asked([[0]], [1.0]))).all()


def test_link_figures_of_known_evidence():
    perfect = link_figures(np.eye(40))
    assert perfect == {"auc": 1.0, "tpr_1e-3": 1.0, "tpr_1e-4": 1.0, "rank_1": 1.0}
    none = link_figures(np.zeros((40, 40)))
    assert none == {"auc": 0.5, "tpr_1e-3": 0.0, "tpr_1e-4": 0.0, "rank_1": pytest.approx(1 / 40)}
    against = link_figures(-np.eye(40))
    assert against["auc"] == against["rank_1"] == 0.0


def test_rare_wrong_links_are_counted():
    """2 of 380 wrong pairs beat all right ones: more than 1 in 1,000, fewer than 1 in 100."""
    evidence = np.eye(20)
    evidence[0, 5] = evidence[3, 7] = 2.0
    assert link_figures(evidence)["tpr_1e-3"] == 0.0
    assert link_figures(evidence)["rank_1"] == 18 / 20
    many = np.eye(100)
    many[0, :9] += 2.0  # 8 wrong pairs of 9,900, and the right one
    assert link_figures(many)["tpr_1e-3"] == 1.0  # at most 9 wrong ones pass
    assert link_figures(many)["tpr_1e-4"] == 1 / 100  # none may, and one right pair has more


def test_fields_are_changed_as_told():
    levels = np.random.default_rng(0).integers(0, 1000, (200, 6)).astype(np.int32)
    rows = [changed(levels, count, np.random.default_rng(1)) for count in range(8)]
    away = [(row != levels).sum(axis=1) for row in rows]
    assert (away[0] == 0).all()
    for count in range(1, 7):
        assert (away[count] <= count).all()
        assert away[count].mean() > 0.98 * count
        # What had changed before stays changed to the same.
        earlier = rows[count - 1] != levels
        assert np.array_equal(rows[count][earlier], rows[count - 1][earlier])
    assert np.array_equal(rows[6], rows[7])
    assert all(set(rows[6][:, f]) <= set(levels[:, f]) for f in range(6))


@pytest.fixture(scope="module")
def cut():
    return RequestCut.of(tiny_table(rows=240), 0, 5, TINY)


def test_thirds_share_no_row():
    raw = tiny_table(rows=90)
    parts = request_cuts._thirds(raw, np.random.default_rng(0))
    assert sorted(np.concatenate(parts)) == list(range(90))
    assert [len(part) for part in parts] == pytest.approx([30, 30, 30], abs=1)
    bad = [raw.label[part].sum() for part in parts]
    assert max(bad) - min(bad) <= 1
    grouped = replace(raw, group=np.arange(90) // 3)
    groups = [set(grouped.group[part]) for part in
              request_cuts._thirds(grouped, np.random.default_rng(0))]  # fmt: skip
    assert sum(map(len, groups)) == len(set.union(*groups)) == 30


@pytest.mark.parametrize(("bad", "least"), [(0, 0), (14, 4)])
def test_a_table_too_small_or_one_sided_is_refused(bad, least):
    raw = tiny_table(rows=60)
    label = (np.arange(60) < bad).astype(np.int8)
    with pytest.raises(DataError, match=f"has {least} rows of its rarer class, too few to audit"):
        RequestCut.of(replace(raw, label=label), 0, 0, TINY)


@pytest.mark.parametrize("most_share", [1.0, 0.2])
def test_figures_depend_on_the_seed_and_not_on_the_key(most_share):
    raw = smoothed(tiny_table(rows=120), most_share)
    one, again, other = (RequestCut.of(raw, number, 7, TINY) for number in (0, 0, 1))
    asked = [cut.service.asked(cut.truth, cut.generator(1)) for cut in (one, again, other)]
    assert one.service.codec.key_id != again.service.codec.key_id
    assert np.array_equal(asked[0].tokens, asked[1].tokens)
    assert np.array_equal(asked[0].score, asked[1].score)
    assert not np.array_equal(asked[0].score, asked[2].score)


def test_tokens_stand_for_their_levels_and_are_drawn_by_weight():
    raw = smoothed(tiny_table(rows=600), 0.1)
    cut = RequestCut.of(raw, 0, 0, TINY)
    codec = cut.service.codec
    levels = np.repeat(cut.truth, 40, axis=0)
    tokens = draw_tokens(codec, levels, np.random.default_rng(3))
    for place, field in enumerate(codec.schema.fields):
        choices = codec.choices[field.name].tokens
        read = [codec.levels[field.name][choices[token]] for token in tokens[:, place]]
        assert read == [field.levels[level] for level in levels[:, place]]
    field = codec.schema.fields[0]
    weights = np.array(field.weights_of(field.levels[0]), float)
    assert len(weights) > 2
    drawn = np.bincount(tokens[levels[:, 0] == 0, 0], minlength=len(weights))[: len(weights)]
    assert drawn / drawn.sum() == pytest.approx(weights / weights.sum(), abs=0.02)


def test_the_service_scores_what_its_network_learnt(cut):
    """Bad rows of the tiny table are larger and more often red."""
    asked = cut.service.asked(cut.truth, cut.generator(1))
    size = cut.truth[:, 1]
    assert asked.score[size == size.max()].mean() > asked.score[size == 0].mean()


def test_a_share_of_the_pool(cut):
    whole = min(len(cut.truth), len(cut.pool.label))
    assert whole == pytest.approx(80, abs=1)
    assert [len(cut.sample(share).label) for share in (0.001, 0.1, 1.0)] == [1, 8, whole]


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("study") / "cuts.json")
    study = RequestStudy(tiny_table(rows=150), 2, 0, store, TINY)
    run(list(study.tasks()), store)
    return requests_content(study)


def test_the_study_has_every_figure(content):
    assert [stream["requests"] for stream in content["streams"]] == [10, 50]
    assert [sample["rows"] for sample in content["streams"][0]["samples"]] == [1, 5, 50]
    assert set(content["streams"][0]["samples"][0]["cells"]) == set(TITLES)
    assert [one["name"] for one in content["sent"]] == list(SENT)
    assert len(content["decoys"]) == len(DECOYS) * len(RATIOS)
    assert content["again"]["changed"] == 2
    attackers = [len(one["attackers"]) for one in content["links"]["strengths"]]
    assert attackers == [1, 4, 4, 4]
    assert content["links"]["strengths"][0]["strongest"] == "tokens"
    assert all(len(one["named"]) == 2 for one in content["links"]["strengths"])
    assert all(len(one["half_return"]) == 2 for one in content["links"]["strengths"])
    for strength in content["links"]["strengths"]:
        for attacker in strength["attackers"]:
            assert [one["fields"] for one in attacker["changed"]] == [0, 1, 2]
    json.dumps(content)


def test_when_all_fields_change_nothing_links(content):
    """The control of linkage: two requests that have nothing to do with each other."""
    for strength in content["links"]["strengths"]:
        for attacker in strength["attackers"]:
            assert attacker["changed"][-1]["auc"]["mean"] == pytest.approx(0.5, abs=0.12)


def test_decoys_are_further_wrong_candidates(content):
    wide = np.concatenate([np.eye(20), np.zeros((20, 30))], axis=1)
    assert link_figures(wide)["auc"] == link_figures(wide)["rank_1"] == 1.0
    wide[4, 40] = 3.0
    assert link_figures(wide)["rank_1"] == 19 / 20
    assert link_figures(np.zeros((20, 50)))["rank_1"] == pytest.approx(1 / 50)
    for strength in content["links"]["strengths"]:
        alone = strength["attackers"][0]["changed"][-1]["rank_1"]["mean"]
        assert [one["ratio"] for one in strength["decoys"]] == [1, 3]
        assert strength["decoys"][1]["rank_1"]["mean"] <= alone + 0.05


def test_a_rounded_score_is_no_fingerprint(content):
    """One of two rounded scores: the other request is one of about half of all."""
    exact, *_, decided = (
        one["changed"][0]["rank_1"]["mean"] for one in content["links"]["by_score"]
    )
    assert decided < 0.1
    assert exact > 2 * decided


def test_smoothing_hides_links_from_tokens_and_not_from_values(content):
    found = {
        (strength["most_share"], attacker["name"]): attacker["changed"][0]["auc"]["mean"]
        for strength in content["links"]["strengths"]
        for attacker in strength["attackers"]
    }
    assert found[0.05, "tokens"] < found[1.0, "tokens"] - 0.1
    assert found[0.05, "values"] == found[1.0, "tokens"]


def test_what_the_command_says(content):
    facts = request_facts(content)
    assert [row["rows"] for row in facts["cells_recovered"]] == [1, 5, 50]
    assert len(facts["other_request_found_first"]) == 4 * 3
    assert any("most_share 0.05" in line for line in request_lines(content))
    assert [text.split(":")[0] for text in request_warnings(content)] == ["Requests", "Requests"]


def test_the_audit_runs_this_section_alone(tmp_path):
    raw = tiny_table(rows=120)
    asked = command.Request(raw.schema, tmp_path, cuts=1, only=("requests",))
    found = command.audit(asked, from_arrow(raw.table))
    assert "tokens" not in found
    page = Page((tmp_path / "audit.html").read_text())
    assert page.figures == ["Cells of requests named correctly", "Requests of one applicant linked"]
    with pytest.raises(ConfigurationError, match="no section 'other'"):
        command.audit(replace(asked, only=("other",)), from_arrow(raw.table))


def test_linkage_of_one_cut_is_told_by_name():
    entry = linked(tiny_table(rows=90), 0, 0, TINY)
    assert set(entry["figures"]["0.1/score/1"]) == {"auc", "tpr_1e-3", "tpr_1e-4", "rank_1"}
    content = link_content([entry, entry], 0)
    assert content["chance"] == 1 / 30
    assert estimates({"a": [1.0, 1.0]}, 0)["a"]["mean"] == 1.0
    assert linkage.KEPT < 1
