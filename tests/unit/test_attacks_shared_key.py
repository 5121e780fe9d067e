"""The attack on tables whose fields share a key."""

import numpy as np

from attacks.tokens.frequency import by_rank
from attacks.tokens.shared_key import by_shared_code
from attacks.view import Auxiliary, TokenTable

NONE = np.zeros(4000, np.int8)


def shared(seed):
    """Two fields of three codes under one cipher: frequencies of one say nothing, of both all."""
    generator = np.random.default_rng(seed)
    first = generator.choice(3, (4000, 2), p=[0.4, 0.4, 0.2])
    second = generator.choice(3, (4000, 2), p=[0.5, 0.25, 0.25])
    levels = np.stack([first, second], axis=2).astype(np.int32)
    cipher = generator.permutation(3).astype(np.int32)
    return levels[:, 0], cipher[levels[:, 0]], Auxiliary(levels[:, 1], NONE, (3, 3)), cipher


def test_fields_that_share_a_key_name_each_others_tokens():
    for seed in range(5):
        _, tokens, sample, cipher = shared(seed)
        codes = by_shared_code(tokens, NONE, sample)
        assert np.array_equal(codes[cipher], [0, 1, 2])


def test_one_key_per_field_does_not():
    wrong = 0
    for seed in range(12):
        levels, tokens, sample, _ = shared(seed)
        table = TokenTable.numbered(list(tokens.T), NONE)
        guess = by_rank(table, sample)
        wrong += np.mean(guess[0][table.tokens[:, 0]] == levels[:, 0]) < 1
    assert wrong >= 2


def test_a_code_that_a_field_lacks_names_no_token_that_it_has():
    levels = np.array([[0, 2], [1, 0], [0, 1], [1, 0], [0, 0]], np.int32)
    label = np.zeros(5, np.int8)
    cipher = np.array([2, 0, 1], np.int32)
    sample = Auxiliary(levels[:1], label[:1], (2, 3))
    codes = by_shared_code(cipher[levels], label, sample)
    assert set(codes.tolist()) == {0, 1, 2}
    assert {codes[cipher[0]], codes[cipher[1]]} <= {0, 1}
