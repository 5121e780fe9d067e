"""The capstone's generator: two chains of dense layers against each other.

At the capstone's width of 81 (80 one-hot columns and the target) both networks have 783,441
parameters, as published::

    generator      81 -> 128 -> 256 -> 512 -> 1024 -> 81
                   10,496 + 33,024 + 131,584 + 525,312 + 83,025     = 783,441
    discriminator  81 -> 1024 -> 512 -> 256 -> 128 -> 81
                   83,968 + 524,800 + 131,328 + 32,896 + 10,449     = 783,441

The discriminator therefore has 81 outputs, not one: each says whether the row is real, and their
mean cross-entropy is the loss.  All outputs are sigmoids, so a raw row may hold no category of a
field, or several; for serving, the highest output of each field is its category.

One thing is added, because a served row has a class: the last of the generator's 81 inputs is the
class, and a cross-entropy pulls its last output, the target, to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from training.fidelity import multi_hot
from training.generator_presets import GeneratorPreset
from training.heads import MAX_SEED, CategoricalHeads, Tensor
from training.tensorflow_setup import keras, tf


def build_dense(width: int, hidden: Sequence[int], seed: int, name: str) -> keras.Sequential:
    """Return float32 [batch, width] -> [batch, width] with sigmoid outputs."""
    layers = [keras.Input((width,))]
    for position, units in enumerate((*hidden, width)):
        last = position == len(hidden)
        layers.append(
            keras.layers.Dense(
                units,
                activation="sigmoid" if last else "leaky_relu",
                kernel_initializer=keras.initializers.GlorotUniform(seed=seed + position),
            )
        )
    return keras.Sequential(layers, name=name)


class CapstoneSampler(tf.Module):  # type: ignore[misc]  # TensorFlow ships no types
    """The served computation: noise and class -> the best column of each field.

    Args:
        network: The generator, with the weights to serve.
        sizes: Columns of each field.
    """

    def __init__(self, network: keras.Sequential, sizes: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.heads = CategoricalHeads(sizes)
        self.noise_width = self.heads.width

    def __call__(self, noise: Tensor, credit_class: Tensor) -> tuple[Tensor, Tensor]:
        """Return int32 [batch, fields] indices and float32 [batch, width] sigmoid outputs.

        Args:
            noise: float32 [batch, noise_width], standard normal.
            credit_class: int32 [batch], 0 good, 1 bad.
        """
        scores = self.network(_with_class(noise, credit_class), training=False)[:, :-1]
        return self.heads.best(scores), scores

    def margins(self, noise: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Return how far the best score of each field is above the second, [batch, fields]."""
        del noise
        return self.heads.leads(scores)


class CapstoneTrainer:
    """Trains the capstone's pair; the methods are those of `training.gan.ConditionalTrainer`."""

    def __init__(
        self, preset: GeneratorPreset, sizes: Sequence[int], indices: np.ndarray,
        label: np.ndarray, seed: int,
    ) -> None:  # fmt: skip
        self.preset, self.seed = preset, seed % MAX_SEED
        self.heads = CategoricalHeads(sizes)
        self.rows = tf.constant(multi_hot(indices, sizes).astype(np.uint8))
        self.label = tf.constant(label.astype(np.int32))
        width = self.heads.width + 1
        self.generator = build_dense(width, preset.generator_hidden, 100 * self.seed, "generator")
        self.discriminator = build_dense(
            width, preset.critic_hidden, 100 * self.seed + 50, "discriminator"
        )
        self.generator_adam = keras.optimizers.Adam(preset.generator_rate, beta_1=0.5)
        self.discriminator_adam = keras.optimizers.Adam(preset.critic_rate, beta_1=0.5)
        self.generator_adam.build(self.generator.trainable_variables)
        self.discriminator_adam.build(self.discriminator.trainable_variables)
        self._advance = tf.function(self._loop)

    def advance(self, start: int, steps: int) -> dict[str, float]:
        """Run steps ``start`` to ``start + steps`` and return the last losses."""
        losses = self._advance(tf.constant(start), tf.constant(start + steps))
        return dict(zip(("discriminator", "generator"), map(float, losses), strict=True))

    def sampler(self) -> CapstoneSampler:
        """Return the served computation with the current weights."""
        return CapstoneSampler(self.generator, self.heads.sizes)

    def state(self) -> dict[str, np.ndarray]:
        """Return all that a resumed training needs."""
        return {f"v{i:03}": v.numpy() for i, v in enumerate(self._variables())}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take up what `state` returned."""
        for position, variable in enumerate(self._variables()):
            variable.assign(state[f"v{position:03}"])

    def _variables(self) -> list[Tensor]:
        owners = (
            self.generator, self.discriminator, self.generator_adam, self.discriminator_adam,
        )  # fmt: skip
        return [variable for owner in owners for variable in owner.variables]

    def _loop(self, start: Tensor, stop: Tensor) -> tuple[Tensor, Tensor]:
        base = tf.constant([self.seed, 1], tf.int32)
        judged, fooled = tf.constant(0.0), tf.constant(0.0)
        for step in tf.range(start, stop):
            judged, fooled = self._update(tf.random.experimental.stateless_fold_in(base, step))
        return judged, fooled

    def _update(self, seed: Tensor) -> tuple[Tensor, Tensor]:
        """Train both networks on the same draw of real rows and noise."""
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        shape = (self.preset.batch,)
        chosen = tf.random.stateless_uniform(shape, seeds[0], 0, self.rows.shape[0], tf.int32)
        label = tf.gather(self.label, chosen)
        target = tf.cast(label, tf.float32)[:, None]
        rows = tf.cast(tf.gather(self.rows, chosen), tf.float32)
        real = tf.concat([rows, target], 1)
        noise = tf.random.stateless_normal((self.preset.batch, self.heads.width), seeds[1])
        with tf.GradientTape(persistent=True) as tape:
            fake = self.generator(_with_class(noise, label), training=True)
            on_fake = self.discriminator(fake, training=True)
            on_real = self.discriminator(real, training=True)
            judged = 0.5 * (_cross_entropy(on_real, 1.0) + _cross_entropy(on_fake, 0.0))
            fooled = _cross_entropy(on_fake, 1.0)
            loss = fooled + _cross_entropy(fake[:, -1:], target)
        for adam, network, value in (
            (self.discriminator_adam, self.discriminator, judged),
            (self.generator_adam, self.generator, loss),
        ):
            variables = network.trainable_variables
            adam.apply(tape.gradient(value, variables), variables)
        return judged, fooled


def _with_class(noise: Tensor, credit_class: Tensor) -> Tensor:
    return tf.concat([noise, tf.cast(credit_class, tf.float32)[:, None] * 2.0 - 1.0], 1)


def _cross_entropy(chance: Tensor, target: Tensor | float) -> Tensor:
    return tf.reduce_mean(keras.losses.binary_crossentropy(tf.ones_like(chance) * target, chance))
