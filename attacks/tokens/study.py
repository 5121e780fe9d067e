"""All attacks on token tables, over many cuts of one raw table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from attacks.baselines import mode_guess, random_guess
from attacks.cuts import SHIFT, Cut
from attacks.recovery import SAMPLES, estimates, ideal, recovered
from attacks.tokens.annealing import annealed
from attacks.tokens.frequency import by_assignment, by_rank, split
from attacks.tokens.joint import joint, known_plaintext
from attacks.view import Attack, Guess
from cipherscore.schema import Field, Schema
from evaluation.code_digest import code_digest
from evaluation.folds import RawData
from evaluation.store import Entry, Store, Task

Content = dict[str, Any]

SAME = "same"
SHIFTED = "shifted"
KINDS = {
    SAME: "from the same distribution",
    SHIFTED: f"shifted: bad rows drawn {SHIFT:g} times as often, and the levels of one field, "
    f"another in each cut, up to {SHIFT:g} times too often or too seldom",
}
SHARES = (0.01, 0.1, 1.0)
"""Rows of the attacker's sample for each encrypted one."""
KNOWN = (1, 10, 100)
"""Rows of the encrypted table that an attacker with known plaintext knows."""

NO_ROWS: np.ndarray = np.empty(0, np.intp)

BASELINES = {"random": "random guess", "mode": "most frequent level"}
IDEAL = "ideal"
IDEAL_TITLE = "ideal: each token's true level"
RANK, ASSIGNMENT = "frequency, by rank", "frequency in each class, by assignment"
ANNEALED = "annealed, all fields and the label"
Matching = dict[str, tuple[str, Attack]]
MATCHING: Matching = {
    "rank": (RANK, by_rank),
    "assignment": (ASSIGNMENT, by_assignment),
    "joint": ("joint, all fields and the label", joint),
    "annealed": (ANNEALED, annealed),
}
"""Attacks on tables in which each level has one token."""
SMOOTHED_MATCHING: Matching = {
    "rank": (RANK, split(by_rank)),
    "assignment": (ASSIGNMENT, split(by_assignment)),
    "annealed": (ANNEALED, annealed),
}
"""Attacks on tables in which a level may have several."""


def matching(*, smoothed: bool) -> Matching:
    """Return the attacks without known rows, for tables with or without homophones."""
    return SMOOTHED_MATCHING if smoothed else MATCHING


def is_smoothed(schema: Schema) -> bool:
    """Return whether some field is to have homophones."""
    return any(field.smoothing for field in schema.fields)


def titles(schema: Schema) -> dict[str, str]:
    """Return what the report calls the attacks on tables of a schema, baselines first."""
    attacks = matching(smoothed=is_smoothed(schema))
    best = "joint" if "joint" in attacks else "annealed"
    return {
        **BASELINES,
        **{name: title for name, (title, _) in attacks.items()},
        **{f"known_{n}": f"{best}, {n} known row{'s' if n > 1 else ''}" for n in KNOWN},
        IDEAL: IDEAL_TITLE,
    }


CLASSES = {
    "binary": "2 levels",
    "few": "3 to 8 levels",
    "many": "9 levels or more",
    "numeric": "bins of numbers",
    "categorical": "categories",
}
FEW_LEVELS = 8


class TokenStudy:
    """The attacks on several cuts of a table.

    Args:
        raw: The table.
        cuts: How many times it is cut.
        kinds: Of the attacker's samples, names of `KINDS`.
        seed: Of cuts and samples.
        store: Where results are kept.
        draws: How often each row is written, where the schema asks for smoothing.
    """

    def __init__(
        self,
        raw: RawData,
        cuts: int,
        kinds: Sequence[str],
        seed: int,
        store: Store,
        draws: int = 1,
    ) -> None:
        self.raw = raw
        self.cuts = cuts
        self.kinds = kinds
        self.seed = seed
        self.draws = draws
        self.titles = titles(raw.schema)
        code = code_digest("attacks.tokens.study")
        facts = {"data": raw.digest, "seed": seed, "draws": draws, "code": code}
        self._kept = store.part("tokens", facts)

    def tasks(self) -> Iterator[Task]:
        """Yield all attacks, cut by cut."""
        for number in range(self.cuts):
            for kind in self.kinds:
                yield Task(self._kept, f"{kind}/{number}", partial(self._attacked, kind, number))

    def results(self, kind: str) -> list[Entry]:
        """Return the finished results of a kind of sample, cut by cut."""
        return [self._kept[f"{kind}/{number}"] for number in range(self.cuts)]

    def _attacked(self, kind: str, number: int) -> Entry:
        cut = Cut.of(self.raw, number, self.seed, self.draws)
        attacks = matching(smoothed=is_smoothed(self.raw.schema))
        return {str(share): attacked(cut, share, kind, attacks) for share in SHARES}


def attacked(cut: Cut, share: float, kind: str, attacks: Matching) -> Entry:
    """Return per attack the share of rows named correctly of each field, and the sample's size."""
    sample = cut.sample(share, shifted=kind == SHIFTED)
    guesses: dict[str, Guess] = {
        "random": random_guess(cut.table, sample, cut.seed + cut.number),
        "mode": mode_guess(cut.table, sample),
        **{name: attack(cut.table, sample) for name, (_, attack) in attacks.items()},
        IDEAL: ideal(cut.table, cut.truth),
    }
    found = {
        name: recovered(guess, cut.table, cut.truth, apart=NO_ROWS)
        for name, guess in guesses.items()
    }
    for count in KNOWN:
        known = cut.known(count)
        best = known_plaintext if "joint" in attacks else annealed
        guess = best(cut.table, sample, known)
        found[f"known_{count}"] = recovered(guess, cut.table, cut.truth, apart=known.rows)
    return {"rows": len(sample.label), "encrypted": cut.rows, "recovered": found}


def token_tables(study: TokenStudy) -> Content:
    """Return recovery by kind and size of the sample, attack, class of fields, and field."""
    fields = study.raw.fitted(np.arange(study.raw.rows)).fields
    classes = {name: places for name in CLASSES if (places := _members(name, fields))}
    return {
        "draws": study.draws,
        "most_share": min((f.smoothing.most_share for f in fields if f.smoothing), default=1.0),
        "encrypted_rows": study.results(study.kinds[0])[0][str(SHARES[0])]["encrypted"],
        "cuts": study.cuts,
        "samples_drawn": SAMPLES,
        "fields": [
            {"name": field.name, "kind": field.kind, "levels": len(field.levels)}
            for field in fields
        ],
        "classes": [
            {"name": name, "title": CLASSES[name], "fields": len(places)}
            for name, places in classes.items()
        ],
        "attacks": [{"name": name, "title": title} for name, title in study.titles.items()],
        "samples": [
            _sample(study, kind, share, classes) for kind in study.kinds for share in SHARES
        ],
    }


def _sample(study: TokenStudy, kind: str, share: float, classes: dict[str, list[int]]) -> Content:
    entries = [entry[str(share)] for entry in study.results(kind)]
    found = {
        name: np.array([entry["recovered"][name] for entry in entries]) for name in study.titles
    }
    figures = {}
    for name, shares in found.items():
        figures[f"{name}/cells"] = shares.mean(axis=1)
        figures[f"{name}/gain"] = (shares - found["mode"]).mean(axis=1)
        for group, places in classes.items():
            figures[f"{name}/{group}"] = shares[:, places].mean(axis=1)
    estimated = estimates(figures, study.seed)
    attacks = {
        name: {
            "cells": estimated[f"{name}/cells"],
            "above_mode": estimated[f"{name}/gain"],
            "classes": {group: estimated[f"{name}/{group}"] for group in classes},
            "fields": shares.mean(axis=0).tolist(),
        }
        for name, shares in found.items()
    }
    return {
        "kind": kind,
        "title": KINDS[kind],
        "share": share,
        "rows": entries[0]["rows"],
        "attacks": attacks,
        "strongest": {
            "cells": _strongest(study, found, list(range(len(study.raw.schema.fields)))),
            **{group: _strongest(study, found, places) for group, places in classes.items()},
        },
    }


def _strongest(study: TokenStudy, found: Mapping[str, np.ndarray], fields: list[int]) -> str:
    """Return the attack without known rows that names most cells of some fields."""
    attacks = matching(smoothed=is_smoothed(study.raw.schema))
    return max(attacks, key=lambda name: float(found[name][:, fields].mean()))


def _members(name: str, fields: Sequence[Field]) -> list[int]:
    """Return the positions of a class's fields."""
    return [
        place
        for place, field in enumerate(fields)
        if name in (field.kind, _by_levels(len(field.levels)))
    ]


def _by_levels(levels: int) -> str:
    if levels <= 2:
        return "binary"
    return "few" if levels <= FEW_LEVELS else "many"
