"""Networks of cells against plain numpy, their auxiliary head, and the paths that are dropped."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ba_dist import experiment, step
from ba_dist.config import Augment, Config, override
from ba_dist.data.augment import Augmentation
from ba_dist.data.sources import ImageInfo
from ba_dist.errors import ConfigError
from ba_dist.models import cells
from ba_dist.models.layers import dropout
from ba_dist.models.layers.dropout import InstanceDropPath
from ba_dist.models.layers.ghost_batch_norm import GhostBatchNormalization
from ba_dist.models.precision import PRECISIONS
from ba_dist.optim.sgd import SGD
from ba_dist.rules import schedules
from ba_dist.rules.layout import Layout
from ba_dist.tasks.classification import Classification

from .plain_network import Plain, pool, relu, shake
from .test_networks import differ
from .test_step import COPIES, GHOST, INFO, SAMPLES, batch_of, instances

# "operation input", two for each node; then the nodes that are put together.
TEXTS = {
    "darts": (
        ("sep3 0, sep3 1 | sep3 0, sep3 1 | sep3 1, skip 0 | skip 0, dil3 2", (2, 3, 4, 5)),
        ("max3 0, max3 1 | skip 2, max3 1 | max3 0, skip 2 | skip 2, max3 1", (2, 3, 4, 5)),
    ),
    "amoebanet": (
        ("avg3 0, max3 1 | sep3 0, sep5 2 | sep3 0, avg3 3 | sep3 1, skip 1 | skip 0, avg3 1",
         (4, 5, 6)),
        ("avg3 0, sep3 1 | max3 0, sep7 2 | sep7 0, avg3 1 | max3 0, max3 1 | conv7 0, sep3 5",
         (3, 4, 6)),
    ),
}  # fmt: skip


class PlainCells(Plain):
    def operation(self, x, kind, stride, name):
        if kind in ("max3", "avg3"):
            return pool(x, 3, stride, 1, by=np.nanmax if kind == "max3" else np.nanmean)
        if kind == "skip":
            return x if stride == 1 else self.halved(x, name)
        if kind == "conv7":
            x = self.conv(relu(x), f"{name}_row", (1, stride))
            return self.norm(self.conv(x, f"{name}_column", (stride, 1)), f"{name}_norm")
        dilation = 2 if kind == "dil3" else 1
        for i in range(2 if kind.startswith("sep") else 1):
            x = self.depthwise(relu(x), f"{name}_{i}_depth", 1 if i else stride, dilation)
            x = self.norm(self.conv(x, f"{name}_{i}_point"), f"{name}_{i}_norm")
        return x

    def halved(self, x, name):
        x = relu(x)
        halves = [
            self.conv(x[:, i:, i:], f"{name}_{part}", 2) for i, part in enumerate(["even", "odd"])
        ]
        return self.norm(np.concatenate(halves, -1), f"{name}_norm")

    def projected(self, x, name):
        return self.norm(self.conv(relu(x), name), f"{name}_norm")

    def cell(self, text, given, inputs, *, reduces, reduced, name):
        first = self.halved if reduced else self.projected
        known = [first(inputs[0], f"{name}_input0"), self.projected(inputs[1], f"{name}_input1")]
        for node in text.split(" | "):
            parts = []
            for i, edge in enumerate(node.split(", ")):
                kind, index = edge.split()
                stride = 2 if reduces and int(index) < 2 else 1
                at = f"{name}_node{len(known)}_{i}"
                parts.append(self.operation(known[int(index)], kind, stride, at))
            known.append(parts[0] + parts[1])
        return np.concatenate([known[i] for i in given], -1)

    def network(self, kind, images):
        """Five cells, of which the second and the fourth reduce."""
        before = now = self.norm(self.conv(images, "stem"), "stem_norm")
        for i in range(5):
            reduces, reduced = i in (1, 3), i in (2, 4)
            text, given = TEXTS[kind][reduces]
            new = self.cell(
                text, given, (before, now), reduces=reduces, reduced=reduced, name=f"cell{i}"
            )
            before, now = now, new
            if i == 3:
                x = pool(relu(now), 5, 3, by=np.nanmean)
                x = self.norm_relu(self.conv(x, "auxiliary_conv0"), "auxiliary_conv0_norm")
                x = self.conv(x, "auxiliary_conv1", padding=0)
                x = self.norm_relu(x, "auxiliary_conv1_norm")
                auxiliary = self.linear(x, "auxiliary_logits")
        return self.linear(now.mean((1, 2)), "logits"), auxiliary


@pytest.mark.parametrize("kind", TEXTS)
def test_networks_of_cells(fp64, kind):
    model = cells.cell_network(
        kind, 4, 5, image_shape=(32, 32, 3), classes=5, norm=GhostBatchNormalization
    )
    shake(model)
    images = np.random.default_rng(1).normal(size=(2, 32, 32, 3))
    plain = PlainCells(model)
    expected = plain.network(kind, images)
    for found, answer in zip(model(images, training=False), expected, strict=True):
        np.testing.assert_allclose(found, answer, rtol=1e-9)
        differ(answer)
    assert plain.unused() == set()
    # Each edge has masks of its own, but for the skips that change nothing.
    edges = [
        (reduces, *edge.split())
        for reduces in (0, 1, 0, 1, 0)
        for edge in TEXTS[kind][reduces][0].replace(" | ", ", ").split(", ")
    ]
    dropped = [op != "skip" or (reduces and int(index) < 2) for reduces, op, index in edges]
    streams = [layer.stream for layer in model.layers if isinstance(layer, InstanceDropPath)]
    assert len(set(streams)) == len(streams) == sum(dropped)


# --- the loss of an auxiliary head ----------------------------------------------------------------


class Answers:
    """A network whose answers are given."""

    def __init__(self, *answers):
        self.answers = [tf.constant(a) for a in answers]

    def __call__(self, images, training):
        return self.answers if len(self.answers) > 1 else self.answers[0]


def test_an_auxiliary_head_counts_in_the_loss_by_its_weight_and_nowhere_else():
    noise = np.random.default_rng(0)
    main, other = noise.normal(size=(2, 6, 3))
    labels = np.array([0, 1, 2, 0, 1, 2])
    augmentation = Augmentation(Augment(), ImageInfo("x", (4, 4, 3), 3, (0.5,) * 3, (0.5,) * 3))
    batch = {"images": None, "labels": tf.constant(labels)}

    def cross_entropy(x):
        return (np.log(np.exp(x).sum(1)) - x[np.arange(6), labels]).sum()

    task = Classification(augmentation, 0.0, 0.4)
    loss = task.loss(Answers(main, other), batch)
    expected = cross_entropy(main) + 0.4 * cross_entropy(other)
    np.testing.assert_allclose(loss.total, expected, rtol=1e-12)
    assert float(loss.metrics["accuracy"][0]) == (main.argmax(1) == labels).sum()
    np.testing.assert_array_equal(task.predict(Answers(main, other), batch), main)
    np.testing.assert_allclose(task.loss(Answers(main), batch).total, cross_entropy(main))


# --- how many paths are dropped -------------------------------------------------------------------


@pytest.mark.parametrize("microbatch", [8, 48])
def test_a_step_drop_path_by_its_share_in_any_microbatch(fp64, comm, microbatch):
    """Of a linear network with one path, whose masks follow from the keys."""
    pixels = keras.Input((8, 8, 1))
    dropped = InstanceDropPath("path")(keras.layers.Flatten()(pixels))
    dense = keras.layers.Dense(10, kernel_initializer="zeros", name="logits")
    model = keras.Model(pixels, dense(dropped))
    task = Classification(Augmentation(Augment(), INFO))
    layout = Layout(1, COPIES, SAMPLES, 1, GHOST, microbatch)
    trained = step.TrainStep(
        task,
        model,
        SGD(model.trainable_variables),
        layout=layout,
        comm=comm,
        precision=PRECISIONS["fp64"],
        told=["drop_path"],
    )
    images, labels = instances()
    batch = batch_of(images, labels)
    numbers = dropout.uniforms(tf.constant(batch.instances.keys), "path", (1,)).numpy()
    for share in (0.0, 0.25):
        dense.kernel.assign(np.zeros((64, 10)))
        dense.bias.assign(np.zeros(10))
        hyper = {"learning_rate": 1.0, "momentum": 0.0, "weight_decay": 0.0, "drop_path": share}
        trained(batch, hyper)
        seen = images.numpy().reshape(48, 64) * (numbers >= share) / (1 - share)
        expected = seen.T @ (np.eye(10)[labels] - 0.1) / 48
        np.testing.assert_allclose(dense.kernel, expected, rtol=1e-6, atol=1e-8)


def test_the_share_grows_and_then_stays():
    share = schedules.growing(0.2, 100)
    assert [share(step) for step in (0, 50, 100, 1000)] == pytest.approx([0, 0.1, 0.2, 0.2])
    assert schedules.growing(0.2, 0)(0) == 0.2


def test_a_step_gets_the_share_of_its_epoch():
    config = override(Config("r"), {"drop_path": 0.3, "drop_path_epochs": 10.0, "model": "darts"})
    hyper = experiment.hyperparameters(config, 7)
    assert hyper(35)["drop_path"] == pytest.approx(0.15)
    assert "drop_path" not in experiment.hyperparameters(Config("r"), 7)(35)


def test_a_network_without_paths_is_refused():
    config = override(Config("r"), {"drop_path": 0.2, "model": "resnet8"})
    with pytest.raises(
        ConfigError, match="--drop-path 0.2: resnet8 has no edges .* one of darts, amoebanet"
    ):
        experiment.check(config)
    experiment.check(override(config, {"model": "darts"}))
