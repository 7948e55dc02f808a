"""Layers by their definitions, in numpy, with the weights of a Keras model by their names.

What networks are checked against: nothing here knows Keras' layers or TensorFlow's kernels.
"""

import numpy as np

EPSILON = 1e-5


def shake(model, seed=0):
    """Random numbers for all variables, so that none is idle and signals keep their size."""
    noise = np.random.default_rng(seed)
    for variable in model.variables:
        shape = variable.shape
        if variable.path.endswith("kernel"):
            inputs = np.prod(shape[:2] if shape[-1] == 1 else shape[:-1])
            variable.assign(noise.normal(size=shape) * (2 / inputs) ** 0.5)
        elif variable.path.endswith("moving_mean"):
            variable.assign(noise.normal(size=shape) * 0.2)
        else:
            variable.assign(0.5 + noise.random(shape))


class Plain:
    """The layers of a model that has been shaken."""

    def __init__(self, model):
        self.values = {v.path: np.asarray(v.value, np.float64) for v in model.variables}
        self.used = set()

    def __getitem__(self, path):
        self.used.add(path)
        return self.values[path]

    def unused(self):
        """Variables that nothing here has asked for: the other network has layers more."""
        return set(self.values) - self.used

    def conv(self, x, name, stride=1, padding=None):
        kernel = self[f"{name}/kernel"]
        height, width, _, made = kernel.shape
        seen = _windows(x, (height, width), stride, padding)
        count, rows, columns = seen.shape[:3]
        flat = seen.reshape(count * rows * columns, -1)
        return (flat @ kernel.transpose(2, 0, 1, 3).reshape(-1, made)).reshape(
            count, rows, columns, made
        )

    def depthwise(self, x, name, stride=1, dilation=1):
        kernel = self[f"{name}/kernel"][..., 0]
        size = kernel.shape[0]
        reach = (size - 1) * dilation + 1
        seen = _windows(x, (reach, reach), stride, reach // 2)[..., ::dilation, ::dilation]
        return np.einsum("nhwcij,ijc->nhwc", seen, kernel)

    def norm(self, x, name):
        mean, variance = self[f"{name}/moving_mean"], self[f"{name}/moving_variance"]
        scaled = (x - mean) / np.sqrt(variance + EPSILON)
        return scaled * self[f"{name}/gamma"] + self[f"{name}/beta"]

    def linear(self, x, name, bias=True):
        y = x.reshape(len(x), -1) @ self[f"{name}/kernel"]
        return y + self[f"{name}/bias"] if bias else y

    def norm_relu(self, x, name):
        return relu(self.norm(x, name))


def relu(x):
    return np.maximum(x, 0)


def pool(x, size, stride, padding=0, *, by):
    """`by` is np.nanmax or np.nanmean: what lies outside of the image does not count."""
    return by(_windows(x, (size, size), stride, padding, fill=np.nan), (-2, -1))


def _windows(x, size, stride, padding, fill=0.0):
    """[n, H, W, C] → [n, rows, columns, C, *size]."""
    rows, columns = (side // 2 if padding is None else padding for side in size)
    down, across = stride if isinstance(stride, tuple) else (stride, stride)
    margins = [(0, 0), (rows, rows), (columns, columns), (0, 0)]
    wide = np.pad(x, margins, constant_values=fill)
    return np.lib.stride_tricks.sliding_window_view(wide, size, (1, 2))[:, ::down, ::across]
