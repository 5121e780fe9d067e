"""Attacks on generators: copies are found, independent rows give nobody away."""

from itertools import product

import numpy as np
import pytest

from attacks.classifier.pools import Pool
from attacks.generator import shadows as generator_shadows
from attacks.generator.density import WIDTHS, best_width, closeness, log_density
from attacks.generator.shadows import ATTACKS, GeneratorShadows, generator_membership
from attacks.generator.study import VARIANTS, GeneratorStudy, generator_figures
from attacks.view import Auxiliary
from cipherscore.errors import ConfigurationError
from evaluation.store import Store
from tests.support.raw_tables import tiny_table
from training.generator_presets import DEFAULT

SIZES = (3, 4, 2)


def drawn(rows, seed, fields=None):
    random = np.random.default_rng(seed)
    sizes = fields or SIZES
    return np.stack([random.integers(0, size, rows) for size in sizes], 1).astype(np.int32)


def test_the_density_is_the_kernel_s_and_adds_up_to_one():
    around = drawn(7, 0)
    every = np.array(list(product(*map(range, SIZES))), np.int32)
    found = log_density(every, around, SIZES, 0.2)
    assert np.exp(found).sum() == pytest.approx(1, abs=1e-5)
    row = every[5]
    direct = np.mean([
        np.prod([0.8 if row[f] == other[f] else 0.2 / (size - 1) for f, size in enumerate(SIZES)])
        for other in around
    ])  # fmt: skip
    assert found[5] == pytest.approx(np.log(direct), abs=1e-5)


def test_a_left_out_row_does_not_count_for_itself(monkeypatch):
    monkeypatch.setattr("attacks.generator.density.CHUNK", 4)
    rows = drawn(9, 1)
    found = log_density(rows, rows, SIZES, 0.1, leave_out=True)
    for number, row in enumerate(rows):
        others = np.delete(rows, number, axis=0)
        assert found[number] == pytest.approx(log_density(row[None], others, SIZES, 0.1)[0])


def test_the_width_is_wide_for_chance_and_narrow_for_repeated_rows():
    assert best_width(np.repeat(drawn(5, 2), 20, axis=0), SIZES) == WIDTHS[0]
    assert best_width(drawn(60, 3, (5,) * 6), (5,) * 6) == WIDTHS[-1]


def test_closeness_counts_the_fields_of_the_closest_row():
    around = np.array([[0, 0, 0], [2, 3, 1]], np.int32)
    rows = np.array([[0, 0, 0], [2, 0, 1], [1, 1, 0]], np.int32)
    assert closeness(rows, around, SIZES).tolist() == [3, 2, 1]


def pool(rows=240, fields=8):
    levels = drawn(rows, 4, (4,) * fields)
    return Pool(Auxiliary(levels, (np.arange(rows) % 3 == 0).astype(np.int8), (4,) * fields))


REFERENCE = drawn(200, 5, (*(4,) * 8, 2))


def copier(learned, *_):
    return np.column_stack([learned.indices, learned.label]).astype(np.int32)


def stranger(learned, sizes, preset, epsilon, seed):
    return drawn(500, 100 + seed, (*sizes, 2))


def attacked(monkeypatch, source):
    monkeypatch.setattr(generator_shadows, "synthetic_rows", source)
    found = GeneratorShadows(pool(), REFERENCE, 6, DEFAULT, None, 0, {})
    for task in found.tasks():
        task.results[task.key] = task.compute()
    return generator_membership(found)


def test_a_generator_that_copies_gives_everybody_away(monkeypatch):
    found = attacked(monkeypatch, copier)
    assert found.keys() == ATTACKS.keys()
    for attack in ("closest", "ratio", "offline", "online"):
        assert found[attack]["auc"]["mean"] > 0.98, attack
    assert found["control"]["auc"]["low"] < 0.5 < found["control"]["auc"]["high"]


def test_rows_of_another_source_give_nobody_away(monkeypatch):
    found = attacked(monkeypatch, stranger)
    for attack in ATTACKS:
        assert found[attack]["auc"]["low"] < 0.5 < found[attack]["auc"]["high"], attack


def test_the_reference_sample_is_learned_by_no_generator(monkeypatch, tmp_path):
    learned = []

    def seen(rows, sizes, preset, epsilon, seed):
        learned.append((rows, epsilon))
        return copier(rows)

    monkeypatch.setattr(generator_shadows, "synthetic_rows", seen)
    raw = tiny_table(rows=100)
    store = Store(tmp_path / "kept.json")
    study = GeneratorStudy(raw, 4, 0, store)
    for task in study.tasks():
        task.results[task.key] = task.compute()
    content = generator_figures(study)
    assert (content["pool_rows"], content["reference_rows"]) == (80, 20)
    assert [(v["name"], v["generators"], v["learned_rows"]) for v in content["variants"]] == [
        ("default", 4, 40), ("private", 4, 40)
    ]  # fmt: skip
    assert [epsilon for _, epsilon in learned] == [None] * 4 + [VARIANTS["private"][1]] * 4
    assert all(len(rows.label) == 40 for rows, _ in learned)


def test_too_few_generators_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="generators 3 are too few"):
        GeneratorStudy(tiny_table(), 3, 0, Store(tmp_path / "kept.json"))
