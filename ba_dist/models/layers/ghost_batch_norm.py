"""Ghost BatchNorm: instances are normalised in ghost batches of 32, whatever the batch.

Source: Hoffer, Hubara, Soudry, "Train longer, generalize better" (NIPS 2017), algorithm 1;
"Augment Your Batch", section 4.5, for why the instances of a ghost batch are different samples.
"""

from typing import Any

import keras
import tensorflow as tf

from ba_dist.models.layers.microbatch import current


@keras.saving.register_keras_serializable("ba_dist")
class GhostBatchNormalization(keras.layers.Layer):
    """BatchNorm over ghost batches: consecutive instances are normalised together.

        y = γ·(x - μ_g) / sqrt(σ²_g + ε) + β           in training, for the ghost batch g of x
        y = γ·(x - μ) / sqrt(σ² + ε) + β               in inference, with moving statistics
        μ ← m·μ + (1 - m)·mean over g of μ_g           once a step, σ² alike (unbiased)

    Args:
        ghost_batch_size: instances that are normalised together. A batch of at most that many is
            one ghost batch; a larger one must be a multiple.
        momentum: m, the share of the old moving statistics kept by a step.
        epsilon: ε.
        gamma_initializer: of γ, as in keras.layers.BatchNormalization.
        repeatable: on CPUs, in float32, sum statistics in an order that does not depend on the
            number of threads (`_repeatable_batch_norm`); in float64 they always are.

    Call: x float [n, H, W, C] or [n, C]; returns the same shape and dtype. Statistics are float32
    (float64 for float64).

    Raises:
        ValueError: when a batch of known size is not made of whole ghost batches.
    """

    def __init__(
        self,
        ghost_batch_size: int = 32,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        gamma_initializer: str = "ones",
        repeatable: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.ghost_batch_size = ghost_batch_size
        self.momentum = momentum
        self.epsilon = epsilon
        self.gamma_initializer = gamma_initializer
        self.repeatable = repeatable

    def build(self, input_shape: Any) -> None:
        shape = (input_shape[-1],)
        dtype = self.variable_dtype

        def weight(name: str, initializer: str, trainable: bool) -> Any:
            return self.add_weight(
                name=name,
                shape=shape,
                initializer=initializer,
                trainable=trainable,
                dtype=dtype,
                autocast=False,
            )

        self.gamma = weight("gamma", self.gamma_initializer, True)
        self.beta = weight("beta", "zeros", True)
        self.moving_mean = weight("moving_mean", "zeros", False)
        self.moving_variance = weight("moving_variance", "ones", False)
        self.built = True

    def call(self, inputs: Any, training: bool = False, mask: None = None) -> Any:
        # Keras gives its own BatchNormalization a mask, also where it is put in the place of one.
        if mask is not None:
            raise ValueError("a ghost batch is normalised whole, without a mask")
        images = inputs if len(inputs.shape) == 4 else inputs[:, None, None, :]
        if training:
            outputs, means, variances = self._normalise_ghosts(images)
            self._move(self.moving_mean, means)
            self._move(self.moving_variance, variances)
        else:
            outputs = self._infer(images)
        return outputs if len(inputs.shape) == 4 else outputs[:, 0, 0, :]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "ghost_batch_size": self.ghost_batch_size,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "gamma_initializer": self.gamma_initializer,
            "repeatable": self.repeatable,
        }

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def _normalise_ghosts(self, images: Any) -> tuple[Any, list[Any], list[Any]]:
        # In a network on CPU, ghost batches one by one are faster than reshape and moments, and
        # than Keras' BatchNorm of the whole batch: a ghost batch stays in the cache.
        count = images.shape[0]
        if count is None:
            return self._normalise_unknown(images)
        if count <= self.ghost_batch_size:
            ghosts = [images]
        elif count % self.ghost_batch_size == 0:
            ghosts = tf.split(images, count // self.ghost_batch_size)
        else:
            raise ValueError(
                f"a batch of {count} does not divide into ghost batches of {self.ghost_batch_size}"
            )
        parts = [self._normalise(ghost) for ghost in ghosts]
        outputs = parts[0][0] if len(parts) == 1 else tf.concat([p[0] for p in parts], axis=0)
        return outputs, [p[1] for p in parts], [p[2] for p in parts]

    def _normalise_unknown(self, images: Any) -> tuple[Any, list[Any], list[Any]]:
        # The batch size is known only when it runs (Keras' fit): one map over the ghost batches.
        count = tf.shape(images)[0]
        size = tf.minimum(count, self.ghost_batch_size)
        check = tf.debugging.assert_equal(
            count % size,
            0,
            f"the batch does not divide into ghost batches of {self.ghost_batch_size}",
        )
        with tf.control_dependencies([check] if check is not None else []):
            ghosts = tf.reshape(images, tf.concat([[count // size, size], tf.shape(images)[1:]], 0))
        ghosts = tf.ensure_shape(ghosts, [None, None, *images.shape[1:]])
        dtype = self.gamma.dtype
        outputs, means, variances = tf.map_fn(
            self._normalise, ghosts, fn_output_signature=(images.dtype, dtype, dtype)
        )
        outputs = tf.reshape(outputs, tf.shape(images))
        return outputs, [tf.reduce_mean(means, 0)], [tf.reduce_mean(variances, 0)]

    def _normalise(self, images: Any) -> tuple[Any, Any, Any]:
        """(normalised, mean, unbiased variance) of one ghost batch, by its own statistics."""
        gamma, beta = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        if self._sums_in_order(images.dtype):
            outputs, mean, variance = _repeatable_batch_norm(images, gamma, beta, self.epsilon)
            count = tf.cast(tf.size(images) / tf.size(mean), variance.dtype)
            return outputs, mean, variance * count / tf.maximum(count - 1, 1)
        outputs, mean, variance, *_ = _kernel(
            images, gamma, beta, mean=[], variance=[], epsilon=self.epsilon, training=True
        )
        return outputs, mean, variance

    def _sums_in_order(self, dtype: Any) -> bool:
        wanted = dtype == tf.float64 or (self.repeatable and dtype == tf.float32)
        return wanted and not tf.config.list_logical_devices("GPU")

    def _infer(self, images: Any) -> Any:
        """Normalised by the moving statistics."""
        gamma, beta, mean, variance = (
            tf.convert_to_tensor(v)
            for v in (self.gamma, self.beta, self.moving_mean, self.moving_variance)
        )
        return _scale(images, gamma, beta, mean=mean, variance=variance, epsilon=self.epsilon)

    def _move(self, moving: Any, statistics: list[Any]) -> None:
        now = current()
        if now and now.again:
            return
        fresh = (1 - self.momentum) * tf.add_n(statistics) / len(statistics)
        kept: Any = self.momentum
        if now:
            # m applies once a step, at its first pass; each pass adds its share.
            fresh /= now.passes
            kept = tf.where(now.first, tf.constant(kept, fresh.dtype), tf.ones((), fresh.dtype))
        moving.assign(moving * kept + fresh)


def _repeatable_batch_norm(x: Any, gamma: Any, beta: Any, epsilon: float) -> tuple[Any, Any, Any]:
    """BatchNorm on CPU whose result does not depend on the number of threads.

    oneDNN's fused kernel sums its statistics in as many parts as there are threads. The last bits
    then decide on which side of a ReLU's kink a few of a million pixels fall, and gradients on one
    and on two cores differ by 1e-3. Means over the pixels of each image, then over the images, are
    summed in the same order everywhere. With one number of threads the fused kernel gives the same
    bits every time, and it passes over the activations fewer times: docs/benchmarks.md has the
    price.

    Returns:
        (normalised, mean, biased variance).
    """

    @tf.custom_gradient  # type: ignore[untyped-decorator, unused-ignore]
    def normalise(x: Any, gamma: Any, beta: Any) -> Any:
        mean = _mean(x)
        variance = _mean(tf.math.squared_difference(x, mean))

        def gradient(upstream: Any, *_: Any) -> tuple[Any, ...]:
            return _gradient(upstream, x, gamma, mean=mean, variance=variance, epsilon=epsilon)

        scaled = _scale(x, gamma, beta, mean=mean, variance=variance, epsilon=epsilon)
        return (scaled, mean, variance), gradient

    result: tuple[Any, Any, Any] = normalise(x, gamma, beta)
    return result


def _mean(x: Any) -> Any:
    if x.dtype == tf.float64 or None in x.shape[1:3]:
        return tf.reduce_mean(x, [0, 1, 2])
    return tf.reduce_mean(tf.nn.avg_pool2d(x, x.shape[1:3], 1, "VALID"), [0, 1, 2])


def _scale(x: Any, gamma: Any, beta: Any, *, mean: Any, variance: Any, epsilon: float) -> Any:
    """γ·(x - μ) / sqrt(σ² + ε) + β; there is no fused kernel in float64."""
    if x.dtype == tf.float64:
        return tf.nn.batch_normalization(x, mean, variance, beta, gamma, epsilon)
    return _kernel(x, gamma, beta, mean=mean, variance=variance, epsilon=epsilon, training=False)[0]


def _gradient(dy: Any, x: Any, gamma: Any, *, mean: Any, variance: Any, epsilon: float) -> Any:
    """Gradients with respect to x, γ and β (Ioffe and Szegedy 2015, section 3)."""
    if x.dtype != tf.float64:
        return tf.raw_ops.FusedBatchNormGradV3(
            y_backprop=dy,
            x=x,
            scale=gamma,
            reserve_space_1=mean,
            reserve_space_2=variance,
            reserve_space_3=tf.zeros([0]),
            epsilon=epsilon,
            is_training=True,
        )[:3]
    inverse = tf.math.rsqrt(variance + epsilon)
    normal = (x - mean) * inverse
    d_beta = tf.reduce_sum(dy, [0, 1, 2])
    d_gamma = tf.reduce_sum(dy * normal, [0, 1, 2])
    count = tf.cast(tf.size(x) / tf.size(mean), x.dtype)
    return gamma * inverse * (dy - (d_beta + normal * d_gamma) / count), d_gamma, d_beta


def _kernel(
    x: Any, gamma: Any, beta: Any, *, mean: Any, variance: Any, epsilon: float, training: bool
) -> Any:
    return tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=gamma,
        offset=beta,
        mean=mean,
        variance=variance,
        epsilon=epsilon,
        is_training=training,
    )
