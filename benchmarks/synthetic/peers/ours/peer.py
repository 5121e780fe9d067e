"""CipherScore's generator, on levels: its trainer cannot tell them from tokens."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.synthetic.peers import common
from training import generator
from training.fidelity import Rows
from training.generator_figures import draw
from training.generator_presets import generator_preset
from training.tensorflow_setup import configure


def make(table: pd.DataFrame, task: common.Task) -> pd.DataFrame:
    """Train with the preset of the task, and draw the classes with the learned rows' shares."""
    configure(threads=1)
    label = (table[task["label"]] == task["bad"]).to_numpy(np.int8)
    levels, columns = {}, []
    for name in table.columns.drop(task["label"]):
        levels[name], indices = np.unique(table[name].to_numpy(str), return_inverse=True)
        columns.append(indices)
    sizes = [len(known) for known in levels.values()]
    learned = Rows(np.stack(columns, axis=1).astype(np.int32), label)
    preset = generator_preset(task["settings"]["preset"])
    fitted = generator.fit_generator(learned, sizes, preset, task["seed"])
    drawn = draw(fitted.sampler, task["rows"], float(label.mean()), task["seed"] + 1)
    made = {name: known[drawn.indices[:, i]] for i, (name, known) in enumerate(levels.items())}
    made[task["label"]] = np.where(drawn.label == 1, task["bad"], task["good"])
    return pd.DataFrame(made)


if __name__ == "__main__":
    common.run(make)
