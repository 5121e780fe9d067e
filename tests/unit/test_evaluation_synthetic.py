"""Synthetic rows in the evaluation: sources, figures, peers, and what is computed again."""

import json
from dataclasses import replace

import numpy as np
import pytest

from evaluation import peers
from evaluation.code_digest import code_digest, imported
from evaluation.page import clean
from evaluation.peers import IDEAL, beside_peers, peer_figures, standing
from evaluation.plan import plan
from evaluation.store import Store, run
from evaluation.study import CODE
from evaluation.synthetic import SyntheticStudy, independent_columns, synthetic_rows
from tests.support.generator_tables import SIZES, SMALL_PRESETS, structured_rows
from tests.support.raw_tables import tiny_table
from training.fidelity import Rows, tstr_auc

COLUMNS = tuple(SIZES.values())
PLAN = replace(plan(100), folds=3, synthetic_folds=2)


def study(tmp_path, preset=SMALL_PRESETS["default"]):
    store = Store(tmp_path / "folds.json")
    return SyntheticStudy(tiny_table(), PLAN, preset, 1, store), store


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    made, store = study(folder)
    run(list(made.tasks()), store)
    return made, folder


def test_independent_columns_keep_columns_and_lose_structure():
    learned, tests = Rows(*structured_rows(2000)), Rows(*structured_rows(1000, 1))
    made = independent_columns(learned, 5000, 3)
    for place in range(3):
        shares = [np.bincount(rows.indices[:, place]) / len(rows.label) for rows in (made, learned)]
        assert shares[0] == pytest.approx(shares[1], abs=0.03)
    assert np.corrcoef(learned.indices[:, 0], learned.indices[:, 1])[0, 1] > 0.3
    assert abs(np.corrcoef(made.indices[:, 0], made.indices[:, 1])[0, 1]) < 0.05
    assert tstr_auc(learned, tests, COLUMNS, boosted=True) > 0.7
    assert abs(tstr_auc(made, tests, COLUMNS, boosted=True) - 0.5) < 0.2
    one_class = Rows(learned.indices, learned.label * 0)
    assert tstr_auc(one_class, tests, COLUMNS, boosted=True) == 0.5


def test_figures_of_all_sources(finished):
    content = clean(synthetic_rows(finished[0]))
    assert json.dumps(content, allow_nan=False)
    real, independent, ours = (row["figures"] for row in content["sources"])
    assert [row["name"] for row in content["sources"]] == ["real", "independent", "ours"]
    assert real["copy_rate"]["mean"] == 1
    assert all(row["validity"]["mean"] == 1 for row in (real, independent, ours))
    assert {"train_seconds"} == ours.keys() - real.keys()
    assert content["learned_rows"] == 80
    assert content["fields"] == ["color", "size", "y"]
    table = np.array(content["fidelity"]["ours"])
    assert table.diagonal().mean() == pytest.approx(ours["column_fidelity"]["mean"], abs=1e-5)
    assert table[np.triu_indices(3, 1)].mean() == pytest.approx(
        ours["pair_fidelity"]["mean"], abs=1e-5
    )


def test_utility_is_the_mean_share_of_the_same_folds_real_figure(finished):
    results = finished[0].results()
    shares = [one["tstr_auc"] / real["tstr_auc"]
              for one, real in zip(results["ours"], results["real"], strict=True)]  # fmt: skip
    found = synthetic_rows(finished[0])["utility"]["tstr_auc"]
    assert found["mean"] == pytest.approx(np.mean(shares))
    assert found["folds"] == 2


def test_the_same_seed_gives_the_same_figures_under_another_key(finished, tmp_path):
    again, store = study(tmp_path)  # every study encrypts under a key of its own
    tasks = list(again.tasks())[:3]
    run(tasks, store)
    for task, entries in zip(tasks, finished[0].results().values(), strict=True):
        kept, first = ({k: v for k, v in entry.items() if "seconds" not in k}
                       for entry in (task.results[task.key], entries[0]))  # fmt: skip
        assert kept == first


def test_a_changed_generator_recipe_is_trained_again_and_the_others_are_kept(finished):
    changed = replace(SMALL_PRESETS["default"], steps=8)
    made, _ = study(finished[1], changed)
    assert [task.done for task in made.tasks()] == [True, True, False] * 2
    kept, _ = study(finished[1])
    assert all(task.done for task in kept.tasks())


def test_the_classifiers_code_is_not_the_generators():
    classifier, generator = imported(*CODE), imported("evaluation.synthetic")
    assert {"training.fitting", "training.table", "cipherscore.client.binning"} <= set(classifier)
    assert not [name for name in classifier if "gan" in name or "generator" in name]
    assert {"training.gan", "training.generator", "evaluation.synthetic"} <= set(generator)
    assert "training.fitting" not in generator
    assert code_digest(*CODE) != code_digest("evaluation.synthetic")


def figures(**values):
    return {name: {"mean": mean, "sd": sd} for name, (mean, sd) in values.items()}


def test_a_peers_standing_by_hand():
    ours = figures(tstr_auc=(0.79, 0.02), closeness_share=(0.52, 0.01), detection_auc=(0.6, 0.01),
                   copy_rate=(0.0, 0.0), train_seconds=(5.0, 1.0))  # fmt: skip
    peer = figures(tstr_auc=(0.78, 0.01), closeness_share=(0.61, 0.01), detection_auc=(0.45, 0.01),
                   copy_rate=(0.0, 0.0), train_seconds=(3.0, 0.5), peak_mb=(9.0, 0.0))  # fmt: skip
    found = {kind: [one["figure"] for one in ones] for kind, ones in standing(ours, peer).items()}
    # Below 0.5 counts as its distance from it: 0.05 against 0.1.
    assert found == {
        "better": ["detection_auc", "train_seconds"],
        "worse": ["closeness_share"],
        "near": ["tstr_auc", "copy_rate"],
    }


def test_peers_are_read_by_table_without_our_own_rows(tmp_path):
    path = tmp_path / "figures.json"
    assert peer_figures("tiny", path) is None
    one = {"title": "One 1.0", "figures": figures(tstr_auc=(0.7, 0.1), peak_mb=(900.0, 0.0))}
    entry = {"made": "2030-01-02", "folds": 5, "seed": 0, "rows_learned": 80}
    sources = {"one": one, "ours": one, "real": one, "independent": one}
    content = {"tiny": {**entry, "sources": sources}, "bare": {**entry, "sources": {"ours": one}}}
    path.write_text(json.dumps(content))
    assert peer_figures("other", path) is None
    assert peer_figures("bare", path) is None
    found = peer_figures("tiny", path)
    assert found["sources"] == {"one": one}
    ours = {"name": "ours", "figures": figures(tstr_auc=(0.9, 0.1))}
    table = beside_peers({"sources": [ours]}, found)
    assert table["figures"] == ["tstr_auc", "peak_mb"]
    # What is not measured here is the benchmark's.
    assert table["elsewhere"] == ["peak_mb"]
    assert table["ours"]["figures"] == figures(tstr_auc=(0.9, 0.1), peak_mb=(900.0, 0.0))
    assert table["standing"][0]["worse"][0] == {"figure": "tstr_auc", "peer": 0.7, "ours": 0.9}


def test_the_packaged_figures_of_peers_can_be_shown():
    if not peers.FILE.is_file():
        pytest.skip("no peers were measured")
    for name, entry in json.loads(peers.FILE.read_text("utf-8")).items():
        assert {"made", "folds", "seed", "rows_learned", "sources"} <= entry.keys(), name
        for source in entry["sources"].values():
            assert source["title"]
            assert {"tstr_auc", "closeness_share"} <= source["figures"].keys() <= IDEAL.keys()
            assert all({"mean", "sd"} <= one.keys() for one in source["figures"].values())
