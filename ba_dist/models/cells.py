"""Networks that are stacks of two kinds of cells, which a search has found: DARTS and AmoebaNet-A.

A cell gets the outputs of the two cells before it (0 and 1). Each node (2, 3, …) is the sum of two
operations, each on an earlier output or node; some of the nodes together are what the cell gives.

Sources: Liu et al. 2019, "DARTS" (arXiv:1806.09055), figures 4 and 5 and the code (quark0/darts);
Real et al. 2019 (arXiv:1802.01548), figure 5; "Augment Your Batch" trains both with DARTS' code.
"""

from dataclasses import dataclass
from typing import Any

import keras

from ba_dist.models.layers.blocks import (
    Norm,
    conv,
    depthwise,
    logits,
    norm_relu,
    torch_default,
    torch_default_depthwise,
)
from ba_dist.models.layers.dropout import InstanceDropPath

Edge = tuple[str, int]  # an operation, and what it is applied to


@dataclass(frozen=True)
class Cell:
    """One kind of cell.

    Args:
        nodes: the two edges that each node adds up.
        given: nodes that are put together, channels after channels.
    """

    nodes: tuple[tuple[Edge, Edge], ...]
    given: tuple[int, ...]


@dataclass(frozen=True)
class Cells:
    """The cells of a network: the reduction halves height and width."""

    normal: Cell
    reduction: Cell


CELLS = {
    "darts": Cells(
        normal=Cell(
            (
                (("sep3", 0), ("sep3", 1)),
                (("sep3", 0), ("sep3", 1)),
                (("sep3", 1), ("skip", 0)),
                (("skip", 0), ("dil3", 2)),
            ),
            given=(2, 3, 4, 5),
        ),
        reduction=Cell(
            (
                (("max3", 0), ("max3", 1)),
                (("skip", 2), ("max3", 1)),
                (("max3", 0), ("skip", 2)),
                (("skip", 2), ("max3", 1)),
            ),
            given=(2, 3, 4, 5),
        ),
    ),
    "amoebanet": Cells(
        normal=Cell(
            (
                (("avg3", 0), ("max3", 1)),
                (("sep3", 0), ("sep5", 2)),
                (("sep3", 0), ("avg3", 3)),
                (("sep3", 1), ("skip", 1)),
                (("skip", 0), ("avg3", 1)),
            ),
            given=(4, 5, 6),
        ),
        reduction=Cell(
            (
                (("avg3", 0), ("sep3", 1)),
                (("max3", 0), ("sep7", 2)),
                (("sep7", 0), ("avg3", 1)),
                (("max3", 0), ("max3", 1)),
                (("conv7", 0), ("sep3", 5)),
            ),
            given=(3, 4, 6),
        ),
    ),
}


def cell_network(
    cells: str,
    width: int,
    depth: int = 20,
    *,
    image_shape: tuple[int, int, int],
    classes: int,
    norm: Norm,
) -> Any:
    """A stack of cells for CIFAR; those after a third and two thirds of them reduce.

    Args:
        cells: a name in `CELLS`.
        width: channels of each node in the first cells; each reduction doubles them.
        depth: how many cells.
        image_shape: (H, W, C), at least 32 pixels on a side.
        classes: how many logits.
        norm: makes a normalisation layer, called with its name.

    Returns:
        A Keras model: images [n, H, W, C] → [logits, auxiliary logits], both [n, classes]. The
        auxiliary ones, of the cell that reduces last, count only in training.
    """
    images = keras.Input(image_shape, name="images")
    x = conv(3 * width, 3, 1, "stem", initializer=torch_default())(images)
    before = now = norm(name="stem_norm")(x)
    reduced = False
    for i in range(depth):
        reduces = i in (depth // 3, 2 * depth // 3)
        width *= 2 if reduces else 1
        kind = CELLS[cells].reduction if reduces else CELLS[cells].normal
        builder = _Builder(width, 2 if reduces else 1, norm, f"cell{i}")
        before, now = now, builder.cell(kind, before, now, reduced)
        reduced = reduces
        if i == 2 * depth // 3:
            auxiliary = _auxiliary_head(now, classes, norm)
    x = keras.layers.GlobalAveragePooling2D()(now)
    answers = logits(x, classes, torch_default())
    return keras.Model(images, [answers, auxiliary], name=cells)


def _auxiliary_head(x: Any, classes: int, norm: Norm) -> Any:
    x = keras.layers.AveragePooling2D(5, 3)(keras.layers.ReLU()(x))
    for i, (width, size) in enumerate(((128, 1), (768, 2))):
        name = f"auxiliary_conv{i}"
        x = conv(width, size, 1, name, initializer=torch_default(), padding=0)(x)
        x = norm_relu(x, norm=norm, name=f"{name}_norm")
    x = keras.layers.Flatten()(x)
    return logits(x, classes, torch_default(), "auxiliary_logits")


@dataclass(frozen=True)
class _Builder:
    """Makes one cell.

    Args:
        width: channels of each node.
        stride: of the operations on the cell's inputs.
        norm: makes a normalisation layer.
        name: of the cell.
    """

    width: int
    stride: int
    norm: Norm
    name: str

    def cell(self, kind: Cell, before: Any, now: Any, reduced: bool) -> Any:
        """The output of a cell; `reduced` where `now` is half as high and wide as `before`."""
        first = f"{self.name}_input0"
        known = [
            self._halved(before, first) if reduced else self._projected(before, first),
            self._projected(now, f"{self.name}_input1"),
        ]
        for edges in kind.nodes:
            node = f"{self.name}_node{len(known)}"
            parts = [
                self._edge(known[index], operation, self.stride if index < 2 else 1, f"{node}_{i}")
                for i, (operation, index) in enumerate(edges)
            ]
            known.append(keras.layers.Add()(parts))
        return keras.layers.Concatenate()([known[node] for node in kind.given])

    def _edge(self, x: Any, operation: str, stride: int, name: str) -> Any:
        """An operation, and the chance that it is zeroed: not that of an identity."""
        if operation == "skip" and stride == 1:
            return x
        y = self._operation(x, operation, stride, name)
        return InstanceDropPath(name, name=f"{name}_drop")(y)

    def _operation(self, x: Any, operation: str, stride: int, name: str) -> Any:
        match operation:
            case "skip":
                return self._halved(x, name)
            case "max3" | "avg3":
                return _pooled(x, operation, stride)
            case "conv7":
                x = keras.layers.ReLU()(x)
                x = self._conv((1, 7), (1, stride), f"{name}_row")(x)
                x = self._conv((7, 1), (stride, 1), f"{name}_column")(x)
                return self.norm(name=f"{name}_norm")(x)
            case "dil3":
                return self._separable(x, 3, 1, f"{name}_0", dilation=2)
        kernel = int(operation.removeprefix("sep"))
        x = self._separable(x, kernel, stride, f"{name}_0")
        return self._separable(x, kernel, 1, f"{name}_1")

    def _separable(self, x: Any, size: int, stride: int, name: str, dilation: int = 1) -> Any:
        start = torch_default_depthwise(size)
        x = keras.layers.ReLU()(x)
        x = depthwise(size, stride, f"{name}_depth", initializer=start, dilation=dilation)(x)
        return self.norm(name=f"{name}_norm")(self._conv(1, 1, f"{name}_point")(x))

    def _projected(self, x: Any, name: str) -> Any:
        return self.norm(name=f"{name}_norm")(self._conv(1, 1, name)(keras.layers.ReLU()(x)))

    def _halved(self, x: Any, name: str) -> Any:
        """Half of the channels from the pixels 0, 2, 4, …, half from the pixels 1, 3, 5, …"""
        x = keras.layers.ReLU()(x)
        odd = keras.layers.Cropping2D(((1, 0), (1, 0)))(x)
        halves = [
            self._conv(1, 2, f"{name}_{part}", self.width // 2)(pixels)
            for part, pixels in (("even", x), ("odd", odd))
        ]
        return self.norm(name=f"{name}_norm")(keras.layers.Concatenate()(halves))

    def _conv(self, size: Any, stride: Any, name: str, width: int | None = None) -> Any:
        return conv(width or self.width, size, stride, name, initializer=torch_default())


def _pooled(x: Any, operation: str, stride: int) -> Any:
    """Of 3x3 pixels; those outside of the image do not count, and strides are centred on 0, 2, …"""
    pool = keras.layers.MaxPooling2D if operation == "max3" else keras.layers.AveragePooling2D
    x = pool(3, 1, "same")(x)
    return x if stride == 1 else keras.layers.MaxPooling2D(1, stride)(x)
