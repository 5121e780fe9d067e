"""The default generator's training: a conditional GAN that makes valid rows of categories.

The generator (`training.conditional`) is trained by two teachers:

* a Wasserstein critic with gradient penalty (Gulrajani et al. 2017) on one-hot rows, reached
  through straight-through Gumbel-softmax samples (Jang et al. 2017);
* the two-way tables of the training rows, per class.  Tables of a thousand rows are facts about the
  population more than about any one person, so this teacher gives fidelity without copying rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from training.class_tables import class_tables
from training.conditional import TableTrainer, dense
from training.fidelity import multi_hot
from training.generator_presets import GeneratorPreset
from training.heads import Tensor
from training.tensorflow_setup import keras, tf


def build_critic(preset: GeneratorPreset, width: int, seed: int = 0) -> keras.Model:
    """Return one-hot rows with their class as -1 or 1, [batch, width + 1] -> score [batch, 1]."""
    inputs = keras.Input((width + 1,))
    hidden = inputs
    for position, units in enumerate(preset.critic_hidden):
        hidden = keras.layers.LeakyReLU(0.2)(dense(units, seed + position)(hidden))
    outputs = dense(1, seed + len(preset.critic_hidden))(hidden)
    return keras.Model(inputs, outputs, name="critic")


class ConditionalTrainer(TableTrainer):
    """Trains the default generator.

    Args:
        preset: Networks and recipe.
        sizes: Columns of each field.
        indices: int [rows, fields] training rows, -1 nowhere.
        label: int [rows], both classes present.
        seed: Seed of the initial weights and of every draw.
    """

    def __init__(
        self, preset: GeneratorPreset, sizes: Sequence[int], indices: np.ndarray,
        label: np.ndarray, seed: int,
    ) -> None:  # fmt: skip
        super().__init__(preset, sizes, class_tables(indices, label, sizes), seed)
        order = np.argsort(label, kind="stable")
        self.good = int((label == 0).sum())
        self.total = len(label)
        self.rows = tf.constant(multi_hot(indices[order], sizes).astype(np.uint8))
        self.critic = build_critic(preset, self.heads.width, 100 * self.seed + 50)
        self.critic_adam = keras.optimizers.Adam(preset.critic_rate, beta_1=0.5, beta_2=0.9)
        self.critic_adam.build(self.critic.trainable_variables)

    def advance(self, start: int, steps: int) -> dict[str, float]:
        """Run generator updates ``start`` to ``start + steps`` and return the last losses."""
        gap, tables = self._advance(tf.constant(start), tf.constant(start + steps))
        return {"critic": float(gap), "tables": float(tables)}

    def _owners(self) -> tuple[Any, ...]:
        return (self.generator, self.average, self.critic, self.generator_adam, self.critic_adam)

    def _loop(self, start: Tensor, stop: Tensor) -> tuple[Tensor, Tensor]:
        base = tf.constant([self.seed, 0], tf.int32)
        gap, distance = tf.constant(0.0), tf.constant(0.0)
        for step in tf.range(start, stop):
            seeds = tf.random.experimental.stateless_split(
                tf.random.experimental.stateless_fold_in(base, step), self.preset.critic_updates + 1
            )
            for update in tf.range(self.preset.critic_updates):
                gap = self._update_critic(seeds[update])
            distance = self._update_generator(seeds[self.preset.critic_updates], step)
        return gap, distance

    def _update_critic(self, seed: Tensor) -> Tensor:
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 4))
        real = self._labelled(self._real_rows(seeds[0]))
        fake = self._labelled(self._one_hot(self._logits(seeds[1]), seeds[2]))
        blend = tf.random.stateless_uniform((2 * self.half, 1), seeds[3])
        mixed = blend * real + (1 - blend) * fake
        with tf.GradientTape() as tape:
            with tf.GradientTape() as inner:
                inner.watch(mixed)
                score = self.critic(mixed, training=True)
            slope = tf.norm(inner.gradient(score, mixed) + 1e-12, axis=1)
            gap = tf.reduce_mean(self.critic(real, training=True))
            gap -= tf.reduce_mean(self.critic(fake, training=True))
            loss = self.preset.penalty * tf.reduce_mean((slope - 1) ** 2) - gap
        variables = self.critic.trainable_variables
        self.critic_adam.apply(tape.gradient(loss, variables), variables)
        return gap

    def _update_generator(self, seed: Tensor, step: Tensor) -> Tensor:
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        with tf.GradientTape() as tape:
            logits = self._logits(seeds[0])
            fake = self._labelled(self._one_hot(logits, seeds[1]))
            distance = self._table_distance(self.heads.probabilities(logits))
            loss = self.preset.pair_weight * distance
            loss -= self.preset.adversarial_weight * tf.reduce_mean(
                self.critic(fake, training=True)
            )
        self._apply(tape, loss, step)
        return distance

    def _one_hot(self, logits: Tensor, seed: Tensor) -> Tensor:
        uniform = tf.random.stateless_uniform((2 * self.half, self.heads.width), seed)
        return self.heads.straight_through(logits, uniform, self.preset.temperature)

    def _real_rows(self, seed: Tensor) -> Tensor:
        """Draw half a batch of each class, with replacement (training by sampling)."""
        share = tf.random.stateless_uniform((2, self.half), seed)
        low = tf.constant([[0.0], [float(self.good)]])
        count = tf.constant([[float(self.good)], [float(self.total - self.good)]])
        chosen = tf.cast(low + tf.floor(share * count), tf.int32)
        return tf.cast(tf.gather(self.rows, tf.reshape(chosen, (-1,))), tf.float32)

    def _labelled(self, rows: Tensor) -> Tensor:
        return tf.concat([rows, self.classes], 1)
