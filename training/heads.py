"""Categorical heads: one softmax per field over one flat row of logits, as matrix products.

A generator's last layer gives float32 [batch, width] logits, the columns of all fields side by
side.  Every function here works on that flat row with constant 0/1 matrices instead of a loop over
the fields, which keeps both the training graph and the ONNX graph small.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from training.tensorflow_setup import tf

Tensor = Any
"""TensorFlow and Keras ship no types."""

MAX_SEED = 10_000_019
"""Seeds are taken modulo this prime, so that a hundred times a seed is still a 31-bit number."""

LOGIT_LIMIT = 12.0
"""Logits are squashed into +-12, so that their exponentials need no row maximum subtracted."""

_TINY = 1e-6
"""Uniform numbers are kept this far from 0 and 1 before a logarithm is taken."""


class CategoricalHeads:
    """Softmax heads over the fields of a vocabulary.

    Args:
        sizes: Columns of each field, in vocabulary order.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(sizes)
        self.fields = len(self.sizes)
        self.width = sum(self.sizes)
        field_of = np.repeat(np.arange(self.fields), self.sizes)
        column = np.arange(self.width)
        self.same_field = (field_of[:, None] == field_of[None, :]).astype(np.float32)
        """[width, width]: 1 where two columns belong to one field."""
        self._up_to = self.same_field * (column[:, None] <= column[None, :])
        self._spread = (np.arange(self.fields)[:, None] == field_of[None, :]).astype(np.float32)
        self._inner = self._spread.T.copy()
        self._inner[np.cumsum(self.sizes) - 1] = 0  # a field's last cumulative sum bounds nothing
        starts = np.cumsum((0, *self.sizes[:-1]))
        reach = np.minimum(np.arange(max(self.sizes))[None, :], np.array(self.sizes)[:, None] - 1)
        self._padded = (starts[:, None] + reach).astype(np.int32)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return float32 [batch, width], each field's columns summing to 1."""
        power = tf.exp(LOGIT_LIMIT * tf.tanh(logits / LOGIT_LIMIT))
        return power / tf.matmul(power, self.same_field)

    def straight_through(self, logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
        """Draw exact one-hot rows whose gradient is that of the Gumbel-softmax.

        Args:
            logits: float32 [batch, width].
            uniform: float32 [batch, width] in (0, 1).
            temperature: Of the relaxed distribution the gradient is taken from; Jang et al. 2017.
        """
        clipped = tf.clip_by_value(uniform, _TINY, 1 - _TINY)
        gumbel = -tf.math.log(-tf.math.log(clipped))
        capped = LOGIT_LIMIT * tf.tanh(logits / LOGIT_LIMIT)
        noisy = (capped + gumbel) / temperature
        top = tf.stop_gradient(self._field_maximum(noisy))
        power = tf.exp(noisy - top)
        soft = power / tf.matmul(power, self.same_field)
        hard = tf.cast(noisy >= top, tf.float32)
        return soft + tf.stop_gradient(hard - soft)

    def draw(self, probabilities: Tensor, uniform: Tensor) -> Tensor:
        """Draw a column of each field by inverting its cumulative distribution.

        Args:
            probabilities: float32 [batch, width].
            uniform: float32 [batch, fields] in [0, 1]; one number decides one field.

        Returns:
            int32 [batch, fields], each in ``[0, size of the field)`` whatever the numbers are.
        """
        bounds = tf.matmul(probabilities, self._up_to)
        beyond = tf.cast(tf.matmul(uniform, self._spread) > bounds, tf.float32)
        return tf.cast(tf.matmul(beyond, self._inner), tf.int32)

    def best(self, scores: Tensor) -> Tensor:
        """Return the column with the highest score of each field, int32 [batch, fields]."""
        return tf.argmax(tf.gather(scores, self._padded, axis=1), axis=2, output_type=tf.int32)

    def margins(self, probabilities: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Return how far each of `draw`'s decisions is from tipping, float [batch, fields]."""
        bounds = probabilities.astype(np.float64) @ self._up_to
        gaps = np.abs(uniform.astype(np.float64) @ self._spread - bounds)
        gaps[:, np.cumsum(self.sizes) - 1] = np.inf
        smallest: np.ndarray = gaps[:, self._padded].min(axis=2)
        return smallest

    def leads(self, scores: np.ndarray) -> np.ndarray:
        """Return the highest score of each field less its second, inf where there is but one."""
        padded = scores.astype(np.float64)[:, self._padded]
        repeated = np.arange(padded.shape[2])[None, :] >= np.array(self.sizes)[:, None]
        padded[:, repeated] = -np.inf
        ordered = np.sort(padded, axis=2)
        if ordered.shape[2] == 1:
            return np.full(ordered.shape[:2], np.inf)
        lead: np.ndarray = ordered[:, :, -1] - ordered[:, :, -2]
        return lead

    def _field_maximum(self, scores: Tensor) -> Tensor:
        highest = tf.reduce_max(tf.gather(scores, self._padded, axis=1), axis=2)
        return tf.repeat(highest, self.sizes, axis=1)


def normal_cdf(noise: Tensor) -> Tensor:
    """Return the standard normal's distribution function, which makes uniform numbers of noise."""
    return 0.5 * (1.0 + tf.math.erf(noise * np.float32(1 / np.sqrt(2))))
