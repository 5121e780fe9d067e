"""Find out what is good and what is bad credit in a column nobody has described yet."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from cipherscore.errors import SchemaError, shorten
from cipherscore.schema import Field, Target

ABSENT_TEXTS = (
    "", "?", "NA", "N/A", "#N/A", "n/a", "na", "NaN", "nan", "NAN", "NaT", "<NA>", "null", "NULL",
    "Null", "(null)", "None", "none", "NONE",
)  # fmt: skip
"""Texts that are taken for "no value" in any column."""
SHOWN_CLASSES = 20
SHOWN_TEXT = 300
"""Most classes, and characters of them, that a message lists."""


@dataclass(frozen=True)
class Goal:
    """What the owner says of the target; all may be left open where it has two values.

    ``good`` and ``bad`` list values of either class, an entry also several with commas (one list
    may be left empty: it is the rest);
    ``below`` makes numbers up to it bad, ``above`` numbers from it on.
    """

    good: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()
    below: float | None = None
    above: float | None = None


def infer_target(name: str, column: pa.Array, goal: Goal, remarks: list[str]) -> Target:
    """Return the target; ``column`` holds texts.  ``remarks`` gets what was decided.

    Raises:
        SchemaError: It is not binary and ``goal`` does not make it so.
    """
    counts = Counter(
        {entry["values"]: entry["counts"] for entry in pc.value_counts(column).to_pylist()}
    )
    remarks.append(
        "costs: calling a bad applicant good and the reverse cost the same; edit [target]"
    )
    if goal.below is not None or goal.above is not None:
        return _cut_target(name, counts, goal)
    if any(value is None or value in ABSENT_TEXTS for value in counts):
        raise SchemaError(
            f"target {name!r} has {len(counts)} values; exactly two, never absent, are supported: "
            "some rows have no value; leave these rows out"
        )
    if goal.good or goal.bad:
        return _listed_target(name, counts, goal)
    if len(counts) != 2:
        raise SchemaError(
            f"target {name!r} has {len(counts)} values; exactly two, never absent, are supported. "
            f"{_shown(counts)}. Say which are bad with --bad A,B (and --good C,D), or where a "
            "number turns bad with --bad-below X or --bad-above X"
        )
    bad, good = sorted(counts, key=lambda value: (counts[value], value))
    remarks.append(f"target {name!r}: {bad!r} is the rarer value and taken as bad; --bad sets it")
    return Target(name, good, bad)


def _listed_target(name: str, counts: Counter[str], given: Goal) -> Target:
    goal = Goal(_split(given.good, counts), _split(given.bad, counts))
    for value in (*goal.good, *goal.bad):
        if value not in counts:
            raise SchemaError(f"target {name!r} has the values {_list(counts)}, not {value!r}")
    if len({*goal.good, *goal.bad}) < len(goal.good) + len(goal.bad):
        raise SchemaError(f"target {name!r}: a value is in --good and in --bad, or twice in one")
    rest = tuple(value for value, _ in counts.most_common() if value not in goal.good + goal.bad)
    if (goal.good and goal.bad and rest) or len(rest) > SHOWN_CLASSES:
        raise SchemaError(
            f"target {name!r}: {_list(dict.fromkeys(rest))} are neither good nor bad; name them in "
            "--good or --bad, or leave these rows out of the table"
        )
    goods, bads = goal.good or rest, goal.bad or rest
    if not goods or not bads:
        raise SchemaError(f"target {name!r}: every value is in one class; two are needed")
    return Target(name, goods[0], bads[0], also_good=goods[1:], also_bad=bads[1:])


def _split(values: tuple[str, ...], counts: Counter[str]) -> tuple[str, ...]:
    """Return ``values``, those that are none of the column's split at their commas."""
    found: list[str] = []
    for value in values:
        parts = [value] if value in counts else [part.strip() for part in value.split(",")]
        found += [part for part in parts if part]
    return tuple(found)


def _cut_target(name: str, counts: Counter[str], goal: Goal) -> Target:
    if goal.good or goal.bad or (goal.below is not None and goal.above is not None):
        raise SchemaError(
            f"target {name!r}: give one of --bad-below, --bad-above, and lists of values"
        )
    number = Field(name, "numeric", edges=(0.0, 1.0))
    for value in counts:
        if not math.isfinite(number.number_of(value)):
            raise SchemaError(
                f"target {name!r}: {shorten(value)} is no number; --bad-below and --bad-above need "
                "a number in every row"
            )
    target = Target(name, "good", "bad", bad_below=goal.below, bad_above=goal.above)
    values = [number.number_of(value) for value in counts]
    bads = [v for v in values if (v <= goal.below if goal.below is not None else v >= goal.above)]  # type: ignore[operator]
    if not bads or len(bads) == len(values):
        raise SchemaError(
            f"target {name!r}: its numbers go from {min(values):g} to {max(values):g}; the bound "
            "leaves one class empty"
        )
    return target


def _shown(counts: Counter[str]) -> str:
    common = counts.most_common(SHOWN_CLASSES if len(counts) <= SHOWN_CLASSES else 5)
    shown = ", ".join(f"{shorten(value)} ({count})" for value, count in common)
    cut = len(counts) > len(common) or len(shown) > SHOWN_TEXT
    return f"Its values (rows): {shown[:SHOWN_TEXT]}" + (", …" if cut else "")


def _list(values: Sequence[str] | Counter[str] | dict[str, None]) -> str:
    shown = ", ".join(shorten(value) for value in list(values)[:SHOWN_CLASSES])
    cut = len(values) > SHOWN_CLASSES or len(shown) > SHOWN_TEXT
    return shown[:SHOWN_TEXT] + (", …" if cut else "")
