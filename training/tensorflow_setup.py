"""TensorFlow and Keras as the generator needs them; import both from here.

Keras must run on TensorFlow whatever the user's ``keras.json`` says, and TensorFlow's start-up
notes belong in no terminal.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _native_notes_dropped() -> Iterator[None]:
    """Drop what native code writes to the terminal; TensorFlow's log level does not stop it."""
    try:
        kept = os.dup(2)
    except OSError:  # standard error is closed
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a descriptor is wanted
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # its kernels round differently by machine

with _native_notes_dropped():
    import keras
    import tensorflow as tf

from cipherscore.errors import TrainingError  # noqa: E402 - the settings come first

if keras.backend.backend() != "tensorflow":
    raise TrainingError(
        f"Keras was loaded on {keras.backend.backend()} before; the generator needs TensorFlow"
    )

__all__ = ["configure", "keras", "tf"]


def configure(threads: int) -> None:
    """Make TensorFlow deterministic, on the CPU, with ``threads`` threads.

    The networks are too small for a GPU to pay, and a GPU would give other weights.  TensorFlow
    fixes devices and threads when it first runs: a process that has used it before keeps those.
    """
    tf.config.experimental.enable_op_determinism()
    try:
        with _native_notes_dropped():
            tf.config.list_physical_devices()
        tf.config.set_visible_devices([], "GPU")
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        return
