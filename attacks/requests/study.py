"""The stream of scoring requests: what a host names of it, and what defences change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import rankdata  # type: ignore[import-untyped]

from attacks.baselines import mode_guess, random_guess
from attacks.recovery import SAMPLES, estimates
from attacks.requests import naming as requests
from attacks.requests.cuts import RequestCut
from attacks.requests.link_content import link_content
from attacks.requests.link_study import SENT, changed, linked
from attacks.requests.naming import RequestAttack, Stream
from attacks.view import Auxiliary, Guess, Indices
from evaluation.code_digest import code_digest
from evaluation.folds import RawData
from evaluation.store import Entry, Store, Task
from training.presets import DEFAULT, ClassifierPreset

Content = dict[str, Any]

SHARES = (0.01, 0.1, 1.0)
"""Rows of the attacker's sample for each request of the longest stream."""
LENGTHS = (10, 100, 1_000, 10_000)
"""Requests of the shorter streams; the longest is all that a third of the table has."""
REPEATS_CHANGE = 3
"""Fields that an applicant who asks again gives anew."""
RATIOS = (1, 3, 7)
"""Decoys for each real request."""

BASELINES = {"random": "random guess", "mode": "most frequent level"}
ATTACKS: dict[str, tuple[str, RequestAttack]] = {
    "rank": ("frequency, by rank", requests.rank),
    "tokens": ("joint, without the score", requests.without_score),
    "score": ("joint, the higher half of the scores as label", requests.with_score),
}
TITLES = {**BASELINES, **{name: title for name, (title, _) in ATTACKS.items()}}

DecoySource = Callable[[RequestCut, Auxiliary, int, np.random.Generator], Indices]
"""Draws so many rows of a cut from the taught rows or, by an attacker, from a sample."""


def _whole(_: RequestCut, rows: Auxiliary, count: int, generator: np.random.Generator) -> Indices:
    chosen = generator.permutation(-(-count // len(rows.levels)) * len(rows.levels))[:count]
    return rows.levels[chosen % len(rows.levels)]


def _field_by_field(
    _: RequestCut, rows: Auxiliary, count: int, generator: np.random.Generator
) -> Indices:
    columns = [generator.choice(column, count) for column in rows.levels.T]
    return np.stack(columns, axis=1).astype(np.int32)


def _uniform(cut: RequestCut, _: Auxiliary, count: int, generator: np.random.Generator) -> Indices:
    # Of the levels that the model knows: a host refuses a token that it has not learnt.
    columns = [generator.choice(np.unique(column), count) for column in cut.taught.T]
    return np.stack(columns, axis=1).astype(np.int32)


DECOYS: dict[str, tuple[str, DecoySource]] = {
    "rows": ("rows of other applicants", _whole),
    "fields": ("each field drawn by itself, as often as in the population", _field_by_field),
    "uniform": ("each field drawn by itself, all levels equally often", _uniform),
}


class RequestStudy:
    """The attacks on requests, on several cuts of a table.

    Args:
        raw: The table.
        cuts: How many times it is cut.
        seed: Of cuts, samples and all that is drawn.
        store: Where results are kept.
        preset: Of the host's model.
    """

    def __init__(
        self,
        raw: RawData,
        cuts: int,
        seed: int,
        store: Store,
        preset: ClassifierPreset = DEFAULT,
    ) -> None:
        self.raw = raw
        self.cuts = cuts
        self.seed = seed
        self.preset = preset
        code = code_digest("attacks.requests.study")
        identity = {"data": raw.digest, "seed": seed, "code": code, "preset": repr(preset)}
        self._kept = store.part("requests", identity)

    def tasks(self) -> Iterator[Task]:
        """Yield all attacks, cut by cut."""
        for number in range(self.cuts):
            yield Task(self._kept, f"stream/{number}", partial(self._streamed, number))
            yield Task(self._kept, f"links/{number}", partial(self._linked, number))

    def results(self, part: str) -> list[Entry]:
        """Return the finished results of ``stream`` or ``links``, cut by cut."""
        return [self._kept[f"{part}/{number}"] for number in range(self.cuts)]

    def _streamed(self, number: int) -> Entry:
        return streamed(RequestCut.of(self.raw, number, self.seed, self.preset))

    def _linked(self, number: int) -> Entry:
        return linked(self.raw, number, self.seed, self.preset)


def streamed(cut: RequestCut) -> Entry:
    """Return all figures of one cut's stream."""
    stream = cut.stream(cut.truth)
    rows = len(cut.truth)
    lengths = [length for length in LENGTHS if length < rows] + [rows]
    return {
        "requests": rows,
        "lengths": lengths,
        "sample_rows": [len(cut.sample(share).label) for share in SHARES],
        "named": {
            f"{length}/{share}": _attacked(cut, _first(stream, length), share)
            for length in lengths
            for share in SHARES
        },
        "again": _again(cut),
        "sent": {name: _sent(cut, stream, name) for name in SENT},
        "decoys": {
            f"{source}/{ratio}": _padded(cut, source, ratio)
            for source in DECOYS
            for ratio in RATIOS
        },
    }


def _attacked(cut: RequestCut, stream: Stream, share: float) -> dict[str, float]:
    """Return per attack the share of cells of a stream's first requests named correctly."""
    sample = cut.sample(share)
    table = stream.labelled(np.zeros(len(stream.score), np.int8))
    guesses = {
        "random": random_guess(table, sample, cut.seed + cut.number),
        "mode": mode_guess(table, sample),
        **{name: attack(stream, sample) for name, (_, attack) in ATTACKS.items()},
    }
    return {name: _cells(guess, stream, cut.truth) for name, guess in guesses.items()}


def _again(cut: RequestCut) -> dict[str, float]:
    """Return the figures of a stream in which every applicant asks a second time."""
    generator = cut.generator(2)
    second = changed(cut.truth, REPEATS_CHANGE, generator)
    stream = cut.stream(np.concatenate([cut.truth, second]))
    return _attacked(cut, stream, SHARES[-1])


def _sent(cut: RequestCut, stream: Stream, name: str) -> float:
    """Return what the attack with scores names where scores are rounded."""
    seen = Stream(stream.columns, SENT[name][1](stream.score))
    return _cells(requests.with_score(seen, cut.sample(SHARES[-1])), seen, cut.truth)


def _padded(cut: RequestCut, source: str, ratio: int) -> dict[str, float]:
    """Return what is named of the real requests among decoys, and how well decoys are told apart.

    The attacker knows how decoys are drawn, and draws its own from its sample.
    """
    draw, sample = DECOYS[source][1], cut.sample(SHARES[-1])
    generator = cut.generator(3)
    owner = Auxiliary(cut.taught, np.zeros(len(cut.taught), np.int8), sample.sizes)
    real = len(cut.truth)
    decoys = draw(cut, owner, ratio * real, generator)
    stream = cut.stream(np.concatenate([cut.truth, decoys]))
    own = draw(cut, sample, ratio * len(sample.label), generator)
    made = Auxiliary(own, np.zeros(len(own), np.int8), sample.sizes)
    unaware = requests.with_score(stream, sample)
    aware = requests.among_decoys(made, ratio)(stream, sample)
    tokens = stream.labelled(np.zeros(len(stream.score), np.int8)).tokens
    named = requests.read(tokens, unaware)
    strange = requests.strangeness(named, sample, made, cut.seed + cut.number)
    sifted = requests.sifted(stream, sample, unaware, strange, ratio)
    repeated = requests.repetition(tokens)
    return {
        "unaware": _cells(unaware, stream, cut.truth),
        "aware": _cells(aware, stream, cut.truth),
        "sifted": _cells(sifted, stream, cut.truth),
        "strange": _auc(strange[real:], strange[:real]),
        "repeated": _auc(repeated[real:], repeated[:real]),
    }


def _cells(guess: Guess, stream: Stream, truth: Indices) -> float:
    """Return the share of cells named correctly; requests after those of ``truth`` do not count."""
    tokens = stream.labelled(np.zeros(len(stream.score), np.int8)).tokens
    rows = min(len(tokens), len(truth))
    right = [
        np.mean(named[tokens[:rows, field]] == truth[:rows, field])
        for field, named in enumerate(guess)
    ]
    return float(np.mean(right))


def _auc(higher: np.ndarray, lower: np.ndarray) -> float:
    """Return the chance that one of ``higher`` exceeds one of ``lower``, ties counting half."""
    ranks = rankdata(np.concatenate([higher, lower]))[: len(higher)].sum()
    pairs = len(higher) * len(lower)
    return float((ranks - len(higher) * (len(higher) + 1) / 2) / pairs)


def _first(stream: Stream, length: int) -> Stream:
    return Stream([column[:length] for column in stream.columns], stream.score[:length])


def requests_content(study: RequestStudy) -> Content:
    """Return the figures of streams, of defences and of links, with their intervals."""
    found = study.results("stream")
    seed = study.seed
    return {
        "cuts": study.cuts,
        "samples_drawn": SAMPLES,
        "requests": found[0]["requests"],
        "fields": len(study.raw.schema.fields),
        "attacks": [{"name": name, "title": title} for name, title in TITLES.items()],
        "streams": [
            {
                "requests": length,
                "samples": [
                    {
                        "share": share,
                        "rows": rows,
                        "cells": _over([e["named"][f"{length}/{share}"] for e in found], seed),
                    }
                    for share, rows in zip(SHARES, found[0]["sample_rows"], strict=True)
                ],
            }
            for length in found[0]["lengths"]
        ],
        "again": {
            "changed": min(REPEATS_CHANGE, len(study.raw.schema.fields)),
            "cells": _over([entry["again"] for entry in found], seed),
        },
        "sent": [
            {"name": name, "title": title, "cells": cells}
            for (name, (title, _)), cells in zip(
                SENT.items(), _over([entry["sent"] for entry in found], seed).values(), strict=True
            )
        ],
        "decoys": [
            _decoys([entry["decoys"][f"{source}/{ratio}"] for entry in found], source, ratio, seed)
            for source in DECOYS
            for ratio in RATIOS
        ],
        "links": link_content(study.results("links"), seed),
    }  # fmt: skip


def _decoys(entries: list[Mapping[str, float]], source: str, ratio: int, seed: int) -> Content:
    """Return the figures of one kind of decoys; they are told apart in the better of two ways."""
    found = _over(entries, seed)
    told_apart = max(found["strange"], found["repeated"], key=lambda one: float(one["mean"]))
    named = {name: found[name] for name in ("unaware", "aware", "sifted")}
    title = DECOYS[source][0]
    return {
        "source": source, "title": title, "ratio": ratio, **named, "told_apart": told_apart
    }  # fmt: skip


def _over(entries: list[Mapping[str, float]], seed: int) -> dict[str, Any]:
    """Return mean and interval over cuts of each figure."""
    return estimates({name: [e[name] for e in entries] for name in entries[0]}, seed)
