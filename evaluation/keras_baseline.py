"""The capstone's classifier on plain values: a chain of Keras dense layers.

Given by the capstone: layers 128-64-32-16-8-1, Adam, 100 epochs, 13,697 weights.  That count means
20 inputs, one number a field, so categories go in as the position of their code.  Not given, and
chosen here: inputs scaled to mean 0 and variance 1 on training rows, ReLU, binary cross-entropy,
batches of 32, Keras' default learning rate of 0.001.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

LAYERS = (128, 64, 32, 16, 8)
EPOCHS = 100
BATCH = 32
RECIPE = {"layers": [*LAYERS, 1], "optimizer": "adam", "epochs": EPOCHS, "batch": BATCH}


def weight_count(inputs: int) -> int:
    """Return the number of weights and biases of the network."""
    sizes = (inputs, *LAYERS, 1)
    return sum((before + 1) * after for before, after in pairwise(sizes))


def train_and_score(
    learn: NDArray[np.float32], labels: np.ndarray, score: NDArray[np.float32], seed: int
) -> NDArray[np.float64]:
    """Train on ``learn`` [rows, inputs] and return probabilities of bad, float64 [len(score)]."""
    from training.tensorflow_setup import configure, keras  # noqa: PLC0415 - seconds to import

    configure(1)
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    dense = [keras.layers.Dense(units, activation="relu") for units in LAYERS]
    network = keras.Sequential(
        [
            keras.layers.Input((learn.shape[1],)),
            *dense,
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    assert network.count_params() == weight_count(learn.shape[1])
    network.compile(optimizer="adam", loss="binary_crossentropy")
    network.fit(learn, labels.astype(np.float32), epochs=EPOCHS, batch_size=BATCH, verbose=0)
    chances = network.predict(score, batch_size=8192, verbose=0)
    return np.asarray(chances, np.float64)[:, 0]
