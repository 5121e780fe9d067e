"""Write a first schema for a table nobody has described yet.  The owner reads and corrects it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cipherscore.client.binning import default_binning
from cipherscore.client.headers import field_names, words
from cipherscore.client.leakage import (
    SUSPICIOUS_AUC,
    named_like_a_protected_group,
    named_like_an_outcome,
    single_column_auc,
)
from cipherscore.client.profiles import ID_WORDS, Profile, Settings, profile
from cipherscore.client.sampling import Sample, read_sample
from cipherscore.client.splits import GroupNumbers, grouped_split, stratified_split
from cipherscore.client.tables import labels
from cipherscore.client.targets import Goal, infer_target
from cipherscore.dataset import TRAIN
from cipherscore.errors import DataError, SchemaError, shorten
from cipherscore.schema import MAX_NAME_LENGTH, Field, Schema, Target
from cipherscore.scorecards import DEFAULT_LEVELS, DEFAULT_VIEWS, Scorecards, planned_fields

LEAST_CATEGORY_ROWS = (5, 50)
CATEGORY_SHARE = 2000
"""A kept category needs one in `CATEGORY_SHARE` training rows, within these limits."""
_GROUPS = "company customer client firm account person borrower user member household card"
GROUP_WORDS = ID_WORDS | frozenset(_GROUPS.split())

Progress = Callable[[int, int], None]
SHOWN_NAMES = 5
"""Renamed columns that a remark lists; the schema says all."""
LEAST_GROUPS = 20
"""A column of blocks of rows is pointed out from this many different values on."""


@dataclass(frozen=True)
class Options:
    """What the owner says of the table; see `cipherscore schema infer --help`."""

    goal: Goal = field(default_factory=Goal)
    name: str = ""
    bins: int = 0
    header: bool = True
    group: str = ""
    categorical: tuple[str, ...] = ()
    protected: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    drop_suspicious: bool = False
    seed: int = 0
    scorecards: int = 0


@dataclass(frozen=True)
class Inferred:
    """A schema, remarks on what was decided, and the comments for its file (see `schema_file`)."""

    schema: Schema
    remarks: list[str]
    comments: dict[str, list[str]]


def infer_schema(
    path: Path, target: str, *, bad: str = "", name: str = "", bins: int = 0
) -> tuple[Schema, list[str]]:
    """Infer a schema as `infer` does; return it and the remarks."""
    goal = Goal(bad=(bad,) if bad else ())
    found = infer(path, target, Options(goal=goal, name=name, bins=bins))
    return found.schema, found.remarks


def infer(
    path: Path,
    target: str,
    options: Options,
    progress: Progress = lambda _done, _total: None,
) -> Inferred:
    """Infer a schema from a table's first rows.

    Args:
        path: CSV (comma, semicolon, tab or bar; gz, bz2 or xz), or Parquet.
        target: The good/bad column.
        options: What else the owner says.
        progress: Told the rows that were read (of 0: unknown), then the columns looked at of all.

    Raises:
        DataError: The table cannot be read.
        SchemaError: A column that is named is missing, the target is not binary, or no field is
            left.
    """
    sample = read_sample(path, header=options.header, progress=lambda rows: progress(rows, 0))
    for column in (target, *filter(None, [options.group]), *options.categorical,
                   *options.protected, *options.drop):  # fmt: skip
        if column not in sample.columns:
            shown = ", ".join(sample.columns)[:300]
            raise SchemaError(f"{path}: no column {column!r}; columns: {shown}")
    if options.group == target:
        raise SchemaError(f"{path}: --group cannot be the target {target!r}")
    remarks = list(sample.remarks)
    goal, label = _target(sample, target, options.goal, remarks)
    train = _training_rows(sample, label, options)
    profiles = _profiles(sample, goal, options, train, progress)
    return _assemble(
        path, sample, goal, options, remarks, _suspect(profiles, label, train, goal, options)
    )


def _target(sample: Sample, name: str, goal: Goal, remarks: list[str]) -> tuple[Target, np.ndarray]:
    """Return the target and its labels, int8 [rows]."""
    column = sample.columns[name]
    if sample.source.decimal != "." and (goal.below is not None or goal.above is not None):
        column = pc.replace_substring(column, sample.source.decimal, ".")
    target = infer_target(name, column, goal, remarks)
    label = labels(pa.table({name: column}), target)
    remarks.append(f"target {name!r}: {int(label.sum())} bad of {len(label)} rows looked at")
    return target, label


def _training_rows(sample: Sample, label: np.ndarray, options: Options) -> np.ndarray:
    """Return bool [rows]: those that `cipherscore encrypt` with this seed will train on.

    So it is where all rows of the table were read; of a longer table it is a split of the first
    rows, which need not be the same.
    """
    try:
        if options.group:
            group = GroupNumbers().of(sample.columns[options.group])
            return np.asarray(grouped_split(label, group, options.seed) == TRAIN)
        return np.asarray(stratified_split(label, options.seed) == TRAIN)
    except DataError:  # too few rows to split; encryption will say so
        return np.ones(len(label), bool)


def _profiles(
    sample: Sample,
    target: Target,
    options: Options,
    train: np.ndarray,
    progress: Progress,
) -> list[Profile]:
    columns = [c for c in sample.columns if c not in (target.name, options.group, *options.drop)]
    names = field_names(columns, taken=(target.name, options.group))
    used = {*names.values(), *sample.columns}
    low, high = LEAST_CATEGORY_ROWS
    settings = Settings(
        bins=options.bins or default_binning(len(train)).bins,
        decimal=sample.source.decimal,
        least=min(high, max(low, int(train.sum()) // CATEGORY_SHARE)),
        categorical=frozenset(options.categorical),
        protected=frozenset(options.protected),
    )
    found = []
    for done, column in enumerate(columns):
        progress(done, len(columns))
        found.append(profile(column, sample.columns[column], names[column], used, settings))
    progress(len(columns), len(columns))
    return found


def _suspect(
    profiles: list[Profile], label: np.ndarray, train: np.ndarray, target: Target, options: Options
) -> list[Profile]:
    """Remark on columns that may know the outcome or name a protected group."""
    for found in profiles:
        if not found.fields or found.codes is None:
            continue
        auc = single_column_auc(found.codes[train], label[train], options.seed)
        reasons = []
        if auc >= SUSPICIOUS_AUC:
            reasons.append(f"alone it tells good from bad with an AUC of {auc:.3f}")
        if named_like_an_outcome(found.column, target.name):
            reasons.append("it is named like an outcome")
        if reasons:
            text = f"column {found.column!r} is SUSPICIOUS: {' and '.join(reasons)}; "
            if options.drop_suspicious:
                found.fields = ()
                found.remarks = [f"{text}dropped"]
            else:
                found.remarks.append(
                    f"{text}if it is known only after the decision, leave it out (--drop, or "
                    "--drop-suspicious for all such)"
                )
        elif named_like_a_protected_group(found.column) and not found.fields[0].protected:
            found.remarks.append(
                f"column {found.column!r} may name a protected group; --protected compares groups"
            )
    return profiles


def _assemble(
    path: Path,
    sample: Sample,
    target: Target,
    options: Options,
    remarks: list[str],
    profiles: list[Profile],
) -> Inferred:
    fields = tuple(f for found in profiles for f in found.fields)
    decided = [text for found in profiles for text in found.remarks]
    if not fields:
        shown = "; ".join(remarks + decided)[:400]
        raise SchemaError(f"{path}: no usable field; {shown or 'it has no column'}")
    remarks = remarks + _renamed(fields)
    stem = re.sub(r"[^a-z0-9]+", "-", path.name.split(".")[0].lower())
    cards = Scorecards(fields) if options.scorecards else None
    schema = Schema(
        options.name or stem[:MAX_NAME_LENGTH].strip("-") or "table",
        planned_fields(options.scorecards, DEFAULT_LEVELS, DEFAULT_VIEWS) if cards else fields,
        target,
        title=f"inferred from {path.name}",
        source=sample.source,
        group=options.group,
        dropped=(*options.drop, *(found.column for found in profiles if not found.fields)),
        scorecards=cards,
    )
    head = "Made by `cipherscore schema infer`.  Read it, correct it.  What was decided:"
    gone = [text for found in profiles if not found.fields for text in found.remarks]
    comments = {"": [head, *remarks, *gone]}
    for found in profiles:
        if found.fields and found.remarks:
            comments[found.fields[0].name] = found.remarks
    hints = [] if options.group else _group_hint(profiles, sample)
    return Inferred(schema, remarks + decided + hints, comments)


def _renamed(fields: tuple[Field, ...]) -> list[str]:
    """Return a remark on the fields that have not the name of their column, if there are some."""
    names = [f"{f.column!r}: {f.name}" for f in fields if f.column and not f.part]
    shown = ", ".join(names[:SHOWN_NAMES]) + (", …" if len(names) > SHOWN_NAMES else "")
    return [f"{len(names)} column(s) gave a field of another name: {shown}"] if names else []


def _group_hint(profiles: list[Profile], sample: Sample) -> list[str]:
    """Return a remark on a column of sorted, repeated numbers that is called like a person."""
    hints = []
    for found in profiles:
        if not found.fields or not GROUP_WORDS.intersection(words(found.column)):
            continue
        texts = sample.columns[found.column]
        distinct = pc.count_distinct(texts).as_py()
        changes = int(pc.sum(pc.not_equal(texts[1:], texts[:-1]).cast(pa.int64())).as_py() or 0)
        if LEAST_GROUPS <= distinct <= sample.rows // 2 and changes < 2 * distinct:
            hints.append(
                f"column {shorten(found.column)}: its rows come in blocks; if those of one value "
                "belong together, --group keeps them in one part of the split"
            )
    return hints
