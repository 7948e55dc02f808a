"""What `throughput.py` compares ba_dist's step with: the same network as others train it.

    horovod   Keras BatchNormalization, Horovod's allreduce of each gradient, plain SGD: the loop of
              Horovod's own synthetic benchmark
    plain     a Keras model in one tf.function, one process with all cores, no Horovod

The loop is Horovod's `tensorflow2_synthetic_benchmark.py`; its `DistributedGradientTape` fails on
the variables of Keras 3, so the gradients are averaged by the call that it makes.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ranks import Helper

RATE = 0.01
CLASSES = 1000
Step = Callable[[], Any]


def fixed_batch(size: int, image_size: int, rank: int = 0) -> tuple[Any, Any]:
    """Images float32 [size, image_size, image_size, 3] and labels int64 [size], always the same."""
    import tensorflow as tf

    numbers = np.random.default_rng(rank)
    images = numbers.standard_normal((size, image_size, image_size, 3), np.float32)
    return tf.constant(images), tf.constant(numbers.integers(0, CLASSES, size))


def keras_network(model: str, image_size: int) -> Any:
    """The network with Keras' own BatchNormalization."""
    import keras

    from ba_dist import models

    shape = (image_size, image_size, 3)
    norm = keras.layers.BatchNormalization
    return models.build(model, norm, image_shape=shape, classes=CLASSES)


def training_step(network: Any, average: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """(images, labels) → loss: one step of plain SGD in a tf.function.

    Args:
        network: images → logits.
        average: a gradient of this rank → the gradient to use.
    """
    import tensorflow as tf

    @tf.function
    def step(images: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = network(images, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses)
        weights = [variable.value for variable in network.trainable_variables]
        for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
            weight.assign_sub(RATE * tf.cast(average(gradient), weight.dtype))
        return loss

    return step


def horovod_step(network: Any, batch: tuple[Any, Any]) -> Step:
    """A step of plain Horovod on all ranks; it waits for the loss."""
    import horovod.tensorflow as hvd

    step = training_step(network, lambda gradient: hvd.allreduce(gradient, op=hvd.Average))
    return lambda: step(*batch).numpy()


def timed(step: Step, trials: int, steps: int) -> list[float]:
    """Seconds of each trial, a trial being so many steps."""
    seconds = []
    for _ in range(trials):
        begun = time.perf_counter()
        for _ in range(steps):
            step()
        seconds.append(time.perf_counter() - begun)
    return seconds


class Plain:
    """The plain process, started by rank 0; it works only when asked.

    Args:
        settings: model, image_size, precision.
    """

    def __init__(self, settings: dict[str, Any]):
        self._helper = Helper([sys.executable, str(Path(__file__).resolve())], {}, all_cores=True)
        self._helper.ask(settings)

    def timed(self, size: int, trials: int, steps: int) -> list[float]:
        """Seconds of trials with batches of this size; the first of a size builds the graph."""
        seconds: list[float] = self._helper.ask([size, trials, steps])
        return seconds

    def close(self) -> None:
        """Ends it."""
        self._helper.close()


def plain() -> None:
    """The plain process: settings come in as a line of JSON, then [size, trials, steps]."""
    from ba_dist import runtime

    runtime.quiet()
    settings = json.loads(sys.stdin.readline())
    import tensorflow as tf

    from ba_dist.models.precision import set_precision

    tf.config.threading.set_intra_op_parallelism_threads(runtime.cores())
    set_precision(settings["precision"])
    network = keras_network(settings["model"], settings["image_size"])
    step = training_step(network, lambda gradient: gradient)
    batches: dict[int, Sequence[Any]] = {}
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        size, trials, steps = json.loads(line)
        if size not in batches:
            batches = {size: fixed_batch(size, settings["image_size"])}
        batch = batches[size]
        print(json.dumps(timed(lambda b=batch: step(*b).numpy(), trials, steps)), flush=True)


if __name__ == "__main__":
    plain()
