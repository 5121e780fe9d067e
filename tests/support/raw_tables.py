"""A small raw table with a pattern to learn, and a preset that trains in milliseconds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa

from cipherscore.client.sources import from_arrow
from cipherscore.schema import Binning, Field, Schema, Target
from evaluation.folds import RawData
from training.presets import DEFAULT

TINY = replace(DEFAULT, name="tiny", members=2, steps=10, patience=0, check_every=5)


def tiny_table(rows=120, seed=0, **settings):
    """A table whose color and size both say something about the label."""
    generator = np.random.default_rng(seed)
    label = (generator.random(rows) < 0.4).astype(int)
    size = generator.normal(50 + 12 * label, 10).clip(0, 100)
    color = np.where(generator.random(rows) < 0.3 + 0.4 * label, "r", "b")
    schema = Schema(
        "tiny",
        (
            Field("color", "categorical", categories={"r": "red", "b": "blue"}, protected=True),
            Field("size", "numeric", binning=Binning("quantile", 3), missing="level"),
        ),
        Target("y", good="ok", bad="bad", cost_false_good=5.0),
        **settings,
    )
    columns = {"color": color, "size": size, "y": np.where(label, "bad", "ok")}
    if schema.group:
        columns[schema.group] = np.arange(rows) // 3
    return RawData.read(schema, from_arrow(pa.table(columns)))
