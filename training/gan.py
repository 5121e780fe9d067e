"""The default generator: a conditional GAN that makes valid rows of categories.

Generator: Gaussian noise and the class -> dense layers -> one categorical head per field.  It is
trained by two teachers:

* a Wasserstein critic with gradient penalty (Gulrajani et al. 2017) on packed one-hot rows (Lin et
  al. 2018), reached through straight-through Gumbel-softmax samples (Jang et al. 2017);
* the two-way tables of the training rows, per class: the squared distance between them and the
  generator's expected tables.  Given the noise the heads are independent, so a pair's expected
  table is the product of two heads' probabilities: no sampling noise enters.  Tables of a thousand
  rows are facts about the population more than about any one person, so this teacher gives
  fidelity without copying rows.

Random numbers are stateless and derived from (seed, step): a training resumed from its state is
the same, bit for bit, as one never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from training.fidelity import multi_hot
from training.generator_presets import GeneratorPreset
from training.heads import MAX_SEED, CategoricalHeads, Tensor, normal_cdf
from training.tensorflow_setup import keras, tf

CLASSES = 2
FINAL_RATE = 0.05
"""The generator's learning rate ends at this share of its start."""


def build_generator(preset: GeneratorPreset, width: int, seed: int = 0) -> keras.Model:
    """Return float32 [batch, latent + 1] (noise, class as -1 or 1) -> logits [batch, width]."""
    inputs = keras.Input((preset.latent + 1,))
    hidden = inputs
    for position, units in enumerate(preset.generator_hidden):
        hidden = _dense(units, seed + position)(hidden)
        hidden = keras.layers.LayerNormalization()(hidden)
        hidden = keras.layers.Activation("silu")(hidden)
    outputs = _dense(width, seed + len(preset.generator_hidden))(hidden)
    return keras.Model(inputs, outputs, name="generator")


def build_critic(preset: GeneratorPreset, width: int, seed: int = 0) -> keras.Model:
    """Return ``pack`` rows with their classes, [batch, pack * (width + 1)] -> score [batch, 1]."""
    inputs = keras.Input((preset.pack * (width + 1),))
    hidden = inputs
    for position, units in enumerate(preset.critic_hidden):
        hidden = keras.layers.LeakyReLU(0.2)(_dense(units, seed + position)(hidden))
    outputs = _dense(1, seed + len(preset.critic_hidden))(hidden)
    return keras.Model(inputs, outputs, name="critic")


def _dense(units: int, seed: int) -> keras.layers.Dense:
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


class ConditionalTrainer:
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
        self.preset, self.seed = preset, seed % MAX_SEED
        self.heads = CategoricalHeads(sizes)
        self.half = preset.batch // 2
        self._set_rows(multi_hot(indices, sizes), label)
        self.generator = build_generator(preset, self.heads.width, 100 * self.seed)
        self.average = build_generator(preset, self.heads.width)
        self.average.set_weights(self.generator.get_weights())
        self.critic = build_critic(preset, self.heads.width, 100 * self.seed + 50)
        self.generator_adam = keras.optimizers.Adam(preset.generator_rate, beta_1=0.5, beta_2=0.9)
        self.critic_adam = keras.optimizers.Adam(preset.critic_rate, beta_1=0.5, beta_2=0.9)
        self.generator_adam.build(self.generator.trainable_variables)
        self.critic_adam.build(self.critic.trainable_variables)
        self._advance = tf.function(self._loop)

    def _set_rows(self, rows: np.ndarray, label: np.ndarray) -> None:
        order = np.argsort(label, kind="stable")
        self.good = int((label == 0).sum())
        self.total = len(label)
        self.rows = tf.constant(rows[order].astype(np.uint8))
        parts = [rows[label == value] for value in range(CLASSES)]
        self.tables = tf.constant(np.stack([part.T @ part / len(part) for part in parts]))
        self.marginals = tf.constant(np.stack([part.mean(axis=0) for part in parts]))
        self.classes = tf.constant(np.repeat([[-1.0], [1.0]], self.half, axis=0), tf.float32)
        self.other_field = tf.constant(1 - self.heads.same_field)

    def advance(self, start: int, steps: int) -> dict[str, float]:
        """Run generator updates ``start`` to ``start + steps`` and return the last losses."""
        gap, tables = self._advance(tf.constant(start), tf.constant(start + steps))
        return {"critic": float(gap), "tables": float(tables)}

    def sampler(self) -> ConditionalSampler:
        """Return the served computation with the averaged weights."""
        return ConditionalSampler(self.average, self.heads.sizes, self.preset.latent)

    def state(self) -> dict[str, np.ndarray]:
        """Return all that a resumed training needs."""
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
        owners = (self.generator, self.average, self.critic, self.generator_adam, self.critic_adam)
        return [variable for owner in owners for variable in owner.variables]

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
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 5))
        real = self._pack(self._real_rows(seeds[0]), seeds[3])
        logits = self._logits(seeds[1])
        fake = self._pack(self._one_hot(logits, seeds[2]), seeds[3])
        blend = tf.random.stateless_uniform((real.shape[0], 1), seeds[4])
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
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
        preset = self.preset
        with tf.GradientTape() as tape:
            logits = self._logits(seeds[0])
            fake = self._pack(self._one_hot(logits, seeds[1]), seeds[2])
            distance = self._table_distance(self.heads.probabilities(logits))
            loss = preset.pair_weight * distance
            loss -= preset.adversarial_weight * tf.reduce_mean(self.critic(fake, training=True))
        variables = self.generator.trainable_variables
        self.generator_adam.learning_rate.assign(self._rate(step))
        self.generator_adam.apply(tape.gradient(loss, variables), variables)
        for mean, value in zip(self.average.trainable_variables, variables, strict=True):
            mean.assign(preset.averaging * mean + (1 - preset.averaging) * value)
        return distance

    def _rate(self, step: Tensor) -> Tensor:
        share = tf.cast(step, tf.float32) / self.preset.steps
        cosine = 0.5 * (1 + tf.cos(math.pi * share))
        return self.preset.generator_rate * (FINAL_RATE + (1 - FINAL_RATE) * cosine)

    def _logits(self, seed: Tensor) -> Tensor:
        noise = tf.random.stateless_normal((2 * self.half, self.preset.latent), seed)
        return self.generator(tf.concat([noise, self.classes], 1), training=True)

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

    def _pack(self, rows: Tensor, seed: Tensor) -> Tensor:
        """Shuffle rows with their classes and join ``pack`` of them to one critic input."""
        order = tf.argsort(tf.random.stateless_uniform((2 * self.half,), seed), stable=True)
        labelled = tf.gather(tf.concat([rows, self.classes], 1), order)
        return tf.reshape(labelled, (-1, self.preset.pack * (self.heads.width + 1)))

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
