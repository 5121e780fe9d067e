"""The default generator's network, and its training on tables alone.

Generator: Gaussian noise and the class -> dense layers -> one categorical head per field.  Given
the noise the heads are independent, so a pair's expected table is the product of two heads'
probabilities: the squared distance to given tables has no sampling noise.  `training.gan` adds a
critic; without one, a training on private tables sees no row.

Random numbers are stateless and derived from (seed, step): a training resumed from its state is
the same, bit for bit, as one never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from training.class_tables import CLASSES, ClassTables
from training.generator_presets import GeneratorPreset
from training.heads import MAX_SEED, CategoricalHeads, Tensor, normal_cdf
from training.tensorflow_setup import keras, tf

FINAL_RATE = 0.05
"""The generator's learning rate ends at this share of its start."""


def build_generator(preset: GeneratorPreset, width: int, seed: int = 0) -> keras.Model:
    """Return float32 [batch, latent + 1] (noise, class as -1 or 1) -> logits [batch, width]."""
    inputs = keras.Input((preset.latent + 1,))
    hidden = inputs
    for position, units in enumerate(preset.generator_hidden):
        hidden = dense(units, seed + position)(hidden)
        hidden = keras.layers.LayerNormalization()(hidden)
        hidden = keras.layers.Activation("silu")(hidden)
    outputs = dense(width, seed + len(preset.generator_hidden))(hidden)
    return keras.Model(inputs, outputs, name="generator")


def dense(units: int, seed: int) -> keras.layers.Dense:
    """Return a layer whose initial weights depend on ``seed`` alone."""
    return keras.layers.Dense(units, kernel_initializer=keras.initializers.GlorotUniform(seed=seed))


class ConditionalSampler(tf.Module):  # type: ignore[misc]  # TensorFlow ships no types
    """The served computation: noise and class -> one column per field.

    Args:
        network: What `build_generator` returned, with the weights to serve.
        sizes: Columns of each field.
        latent: Leading noise columns that feed the network; one more per field draws its head.
    """

    def __init__(self, network: keras.Model, sizes: Sequence[int], latent: int) -> None:
        super().__init__()
        self.network = network
        self.heads = CategoricalHeads(sizes)
        self.latent = latent
        self.noise_width = latent + len(sizes)

    def __call__(self, noise: Tensor, credit_class: Tensor) -> tuple[Tensor, Tensor]:
        """Return int32 [batch, fields] indices and float32 [batch, width] head probabilities.

        Args:
            noise: float32 [batch, noise_width], standard normal.
            credit_class: int32 [batch], 0 good, 1 bad.
        """
        label = tf.cast(credit_class, tf.float32)[:, None] * 2.0 - 1.0
        logits = self.network(tf.concat([noise[:, : self.latent], label], 1), training=False)
        probabilities = self.heads.probabilities(logits)
        uniform = normal_cdf(noise[:, self.latent :])
        return self.heads.draw(probabilities, uniform), probabilities

    def margins(self, noise: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Return how near each drawn index is to its neighbour, float [batch, fields]."""
        uniform = normal_cdf(tf.constant(noise[:, self.latent :])).numpy()
        return self.heads.margins(probabilities, uniform)


class TableTrainer:
    """Trains the generator towards tables.

    Args:
        preset: Network and recipe.
        sizes: Columns of each field.
        tables: What its rows shall have; all that is learned from.
        seed: Seed of the initial weights and of every draw.
    """

    def __init__(
        self, preset: GeneratorPreset, sizes: Sequence[int], tables: ClassTables, seed: int
    ) -> None:
        self.preset, self.seed = preset, seed % MAX_SEED
        self.heads = CategoricalHeads(sizes)
        self.half = preset.batch // 2
        self.tables = tf.constant(tables.pairs)
        self.marginals = tf.constant(tables.marginals)
        self.classes = tf.constant(np.repeat([[-1.0], [1.0]], self.half, axis=0), tf.float32)
        self.other_field = tf.constant(1 - self.heads.same_field)
        self.generator = build_generator(preset, self.heads.width, 100 * self.seed)
        self.average = build_generator(preset, self.heads.width)
        self.average.set_weights(self.generator.get_weights())
        self.generator_adam = keras.optimizers.Adam(preset.generator_rate, beta_1=0.5, beta_2=0.9)
        self.generator_adam.build(self.generator.trainable_variables)
        self._advance = tf.function(self._loop)

    def advance(self, start: int, steps: int) -> dict[str, float]:
        """Run generator updates ``start`` to ``start + steps`` and return the last loss."""
        return {"tables": float(self._advance(tf.constant(start), tf.constant(start + steps)))}

    def sampler(self) -> ConditionalSampler:
        """Return the served computation with the averaged weights."""
        return ConditionalSampler(self.average, self.heads.sizes, self.preset.latent)

    def state(self) -> dict[str, np.ndarray]:
        """Return all that a resumed training needs, but for the tables."""
        return {f"v{i:03}": v.numpy() for i, v in enumerate(self._variables())}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take up what `state` returned.

        Raises:
            ValueError: It came from other networks.
            KeyError: It is incomplete.
        """
        for position, variable in enumerate(self._variables()):
            variable.assign(state[f"v{position:03}"])

    def _variables(self) -> list[Tensor]:
        return [variable for owner in self._owners() for variable in owner.variables]

    def _owners(self) -> tuple[Any, ...]:
        return (self.generator, self.average, self.generator_adam)

    def _loop(self, start: Tensor, stop: Tensor) -> Tensor:
        base = tf.constant([self.seed, 0], tf.int32)
        distance = tf.constant(0.0)
        for step in tf.range(start, stop):
            distance = self._update(tf.random.experimental.stateless_fold_in(base, step), step)
        return distance

    def _update(self, seed: Tensor, step: Tensor) -> Tensor:
        with tf.GradientTape() as tape:
            distance = self._table_distance(self.heads.probabilities(self._logits(seed)))
            loss = self.preset.pair_weight * distance
        self._apply(tape, loss, step)
        return distance

    def _apply(self, tape: Tensor, loss: Tensor, step: Tensor) -> None:
        variables = self.generator.trainable_variables
        self.generator_adam.learning_rate.assign(self._rate(step))
        self.generator_adam.apply(tape.gradient(loss, variables), variables)
        for mean, value in zip(self.average.trainable_variables, variables, strict=True):
            mean.assign(self.preset.averaging * mean + (1 - self.preset.averaging) * value)

    def _rate(self, step: Tensor) -> Tensor:
        share = tf.cast(step, tf.float32) / self.preset.steps
        cosine = 0.5 * (1 + tf.cos(math.pi * share))
        return self.preset.generator_rate * (FINAL_RATE + (1 - FINAL_RATE) * cosine)

    def _logits(self, seed: Tensor) -> Tensor:
        noise = tf.random.stateless_normal((2 * self.half, self.preset.latent), seed)
        return self.generator(tf.concat([noise, self.classes], 1), training=True)

    def _table_distance(self, probabilities: Tensor) -> Tensor:
        """Return the squared distance to the real tables, unbiased.

        The square of an estimate would charge the batch's own noise; the product of two estimates
        from two halves of the rows does not, so it may fall slightly below zero.
        """
        quarters = tf.reshape(probabilities, (CLASSES, 2, self.half // 2, self.heads.width))
        tables = tf.matmul(quarters, quarters, transpose_a=True) / (self.half // 2)
        off = (tables - self.tables[:, None]) * self.other_field
        single = tf.reduce_mean(quarters, 2) - self.marginals[:, None]
        pairs = tf.reduce_sum(off[:, 0] * off[:, 1]) / self.heads.fields
        return pairs + tf.reduce_sum(single[:, 0] * single[:, 1])
