"""What a host learns that knows the population: frequency matching against deterministic tokens.

    python -m benchmarks.frequency_attack --data FOLDER

The raw table is cut in two halves.  The attacker sees the tokens of one and the plain levels of the
other, and matches each field's tokens to levels in order of frequency (Naveed, Kamara and Wright,
CCS 2015, section 4.1).  Shown is the share of cells whose level it names correctly, beside
the share it gets without looking at tokens, by always naming each field's most frequent level.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from cipherscore.client.encryption import FieldCipher
from cipherscore.client.keys import Keyset
from cipherscore.client.records import RecordCodec
from cipherscore.client.sources import find_table
from cipherscore.client.tables import encode_batch
from cipherscore.schema_file import load_schema
from evaluation.folds import RawData


def recovery(raw: RawData, seed: int) -> tuple[float, float]:
    """Return the share of cells recovered by matching, and by guessing the mode, for one cut."""
    rows = raw.rows
    fitted = raw.fitted(np.arange(rows))
    codec = RecordCodec(FieldCipher(Keyset.create(), fitted))
    columns = encode_batch(raw.table, codec)
    known = np.random.Generator(np.random.PCG64(seed)).permutation(rows) < rows // 2
    matched, guessed = [], []
    for field in codec.schema.fields:
        column = columns[field.name]
        level_of = {token: level for level, token in codec.tokens[field.name].items()}
        truth = np.array([level_of[token] for token in column.dictionary])[column.indices]
        levels = by_frequency(truth[known])
        tokens = by_frequency(column.indices[~known])
        named = dict(zip(tokens, levels, strict=False))
        guess = np.array([named.get(token, levels[0]) for token in column.indices[~known]])
        matched.append(np.mean(guess == truth[~known]))
        guessed.append(np.mean(truth[~known] == levels[0]))
    return float(np.mean(matched)), float(np.mean(guessed))


def by_frequency(values: np.ndarray) -> list[Any]:
    """Return the distinct values, the most frequent first."""
    distinct, counts = np.unique(values, return_counts=True)
    return list(distinct[np.argsort(-counts, kind="stable")])


def main(
    data: Annotated[Path | None, typer.Option(help="Raw table, file or folder.")] = None,
    schema: Annotated[str, typer.Option(help="Schema name or file.")] = "german-credit",
    cuts: Annotated[int, typer.Option(help="Random cuts to average over.")] = 20,
) -> None:
    """Print the attack's cell recovery and its baseline as JSON."""
    planned = load_schema(schema)
    source = find_table(planned, data)
    raw = RawData.read(planned, source)
    found = np.array([recovery(raw, seed) for seed in range(cuts)])
    mean, deviation = found.mean(axis=0), found.std(axis=0)
    names = ("frequency_matching", "mode_guess")
    report = {
        name: {"cells_recovered": round(float(m), 4), "sd": round(float(d), 4)}
        for name, m, d in zip(names, mean, deviation, strict=True)
    }
    print(json.dumps({"schema": schema, "synthetic_data": source.synthetic, "cuts": cuts} | report))


if __name__ == "__main__":
    typer.run(main)
