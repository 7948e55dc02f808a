"""Batch augmentation from its formula, in float64 and in one process, without the package's step.

    w ← w - η·v,  v ← μ·v + ∇ + λ·w,  ∇ = 1/(B·M) · Σ_m Σ_n ∇ℓ(w, T_m(x_n), y_n)

The network is written out with plain TensorFlow operations, ghost batches by reshape and moments,
and the images are augmented one by one with numpy.
"""

import numpy as np
import tensorflow as tf

from ba_dist.data.augment import Augmentation

EPSILON = 1e-5


def augmented(image, drawn, config, info):
    """One instance: pad, crop, flip, normalise, cutout, by the drawn parameters."""
    height, width, _ = image.shape
    pad = config.pad_crop
    padded = np.pad(image, [(pad, pad), (pad, pad), (0, 0)])
    top, left = drawn["crop_y"], drawn["crop_x"]
    image = padded[top : top + height, left : left + width]
    if drawn["flip"]:
        image = image[:, ::-1]
    mean = np.float32(255 * np.array(info.mean))
    scale = np.float32(1 / (255 * np.array(info.std)))
    image = (image.astype(np.float32) - mean) * scale
    top = drawn["cutout_y"] - config.cutout // 2
    left = drawn["cutout_x"] - config.cutout // 2
    image[
        max(top, 0) : max(top + config.cutout, 0), max(left, 0) : max(left + config.cutout, 0)
    ] = 0
    return image


def instances(entry, source, augmentation: Augmentation):
    """The augmented images and labels of a step of a one-rank trace, in its order."""
    keys = np.array([int(key, 16) for key in entry["augment_keys"]], np.uint64)
    sizes = np.array([source.info.image_shape[:2]] * len(keys))
    drawn = augmentation.draw(keys, sizes, len(keys))
    images = [
        augmented(
            source.images[sample],
            {name: int(values[i]) for name, values in drawn.items()},
            augmentation.config,
            augmentation.info,
        )
        for i, sample in enumerate(entry["sample_ids"])
    ]
    return np.stack(images).astype(np.float64), source.labels[entry["sample_ids"]]


class ResNet8:
    """Forward pass of ResNet-8 on a dictionary of float64 weights."""

    def __init__(self, weights, ghost):
        self.weights = {name: tf.Variable(value) for name, value in weights.items()}
        self.ghost = ghost
        self.statistics = {}

    def __call__(self, x):
        x = tf.nn.relu(self.norm(self.conv(x, "stem", 1), "stem_norm"))
        for stage, width in enumerate((16, 32, 64)):
            name, stride = f"stage{stage}_block0", 1 if stage == 0 else 2
            y = tf.nn.relu(self.norm(self.conv(x, f"{name}_conv0", stride), f"{name}_norm0"))
            y = self.norm(self.conv(y, f"{name}_conv1", 1), f"{name}_norm1")
            if stride == 2:
                x = x[:, ::2, ::2]
                new = width - x.shape[-1]
                x = tf.pad(x, [[0, 0], [0, 0], [0, 0], [new // 2, new - new // 2]])
            x = tf.nn.relu(x + y)
        x = tf.reduce_mean(x, [1, 2])
        return x @ self.weights["logits/kernel"] + self.weights["logits/bias"]

    def conv(self, x, name, stride):
        # By 1 on both sides, so that a stride of 2 is centred on the pixels of the shortcut.
        padding = [[0, 0], [1, 1], [1, 1], [0, 0]]
        return tf.nn.conv2d(x, self.weights[f"{name}/kernel"], stride, padding)

    def norm(self, x, name):
        shape = x.shape
        ghosts = tf.reshape(x, (-1, self.ghost, *shape[1:]))
        mean, variance = tf.nn.moments(ghosts, [1, 2, 3], keepdims=True)
        count = self.ghost * shape[1] * shape[2]
        self.statistics[f"{name}/moving_mean"] = tf.reduce_mean(mean, 0)
        self.statistics[f"{name}/moving_variance"] = (
            tf.reduce_mean(variance, 0) * count / (count - 1)
        )
        normal = tf.reshape((ghosts - mean) / tf.sqrt(variance + EPSILON), shape)
        return normal * self.weights[f"{name}/gamma"] + self.weights[f"{name}/beta"]


def train(weights, moving, steps, ghost, rule, rate):
    """Weights and moving statistics after training on `steps`, a list of (images, labels)."""
    net = ResNet8(weights, ghost)
    velocity = {name: np.zeros_like(value) for name, value in weights.items()}
    moving = dict(moving)
    for step, (images, labels) in enumerate(steps):
        with tf.GradientTape() as tape:
            logits = net(tf.constant(images))
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_sum(losses) / len(labels)
        gradients = tape.gradient(loss, net.weights)
        for name, gradient in gradients.items():
            gradient = gradient.numpy()
            if name.endswith("kernel"):
                gradient = gradient + rule.weight_decay * net.weights[name].numpy()
            velocity[name] = rule.momentum * velocity[name] + gradient
            net.weights[name].assign(net.weights[name] - rate(step) * velocity[name])
        for name, value in net.statistics.items():
            moving[name] = 0.9 * moving[name] + 0.1 * np.reshape(value, -1)
    return {name: value.numpy() for name, value in net.weights.items()} | moving
