"""A second task: the next character of a text, with dropout and a state for each instance.

It is all that another kind of learning needs: an info, a source, a task and a network, each entered
in its table. Copies differ by their dropout masks alone; texts are of different lengths, so ranks
hold different weights of the loss; and a layer carries a state from step to step.

OUT and a JSON list of [name, changes]: trains each as OUT/NAME, evaluates and audits it.
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from ba_dist import models, runtime, tasks
from ba_dist.comm import start
from ba_dist.config import Config, override
from ba_dist.data.catalog import found, made
from ba_dist.data.sources import Counters, DatasetInfo, new_memory
from ba_dist.models.tags import INSTANCE
from ba_dist.tasks import Field, Loss

runtime.quiet()

TEXT = "augment your batch: improving generalization through instance repetition. "


# --- the data -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TextInfo(DatasetInfo):
    dtype: ClassVar[str] = "int32"

    length: int
    characters: str


INFO = TextInfo("sentences", 12, "".join(sorted(set(TEXT))))


@dataclass
class Sentences:
    """Pieces of one text, of 6 to 13 characters; behind them -1. A record is the sample id."""

    info: TextInfo
    count: int
    counters: Counters = field(default_factory=Counters)
    stored = False

    def __post_init__(self):
        self.contents = [f"sentences {self.count}"]

    def __len__(self):
        return self.count

    def read(self, sample_id):
        self.counters.add(records_read=1)
        return np.int64(sample_id).tobytes()

    def decode(self, record, allocate=new_memory):
        self.counters.add(records_decoded=1)
        sample_id = int(np.frombuffer(record, np.int64)[0])
        length = self.info.length + 1
        memory = allocate(4 * length).view(np.int32)
        numbers = [
            self.info.characters.index(TEXT[(7 * sample_id + i) % 74]) for i in range(length)
        ]
        memory[:] = numbers
        memory[6 + sample_id % (length - 5) :] = -1
        return memory, 0

    def where(self, sample_id):
        return f"sentence {sample_id}"


def open_sentences(info, split):
    return Sentences(info, split.count)


def sentences(data):
    counts = {"train": data.train_samples or 64, "validation": data.val_samples or 10}
    splits = {name: found.Split(count, open_sentences) for name, count in counts.items()}
    return found.Found(INFO, "made here", splits)


# --- the task -------------------------------------------------------------------------------------


class NextCharacter:
    unit = "tokens"
    augmented = "tokens"
    metrics = {"token_accuracy": ".1%"}
    validation = {"val_loss": ".3f", "val_token_accuracy": ".1%"}
    judged_by = "val_token_accuracy"
    less_is_better = False
    headline = "characters that are right"
    schema = {"tokens": Field("int32", 2), "targets": Field("int32", 2)}

    def __init__(self, info):
        self.sample_shape = (info.length + 1,)
        self.row_size = info.length
        self.facts = {"length": info.length, "characters": len(info.characters)}

    def draw(self, keys, shapes, ghost_batch):
        return {}

    def allocate(self, count):
        return np.empty((count, *self.sample_shape), np.int32)

    def render(self, sample, drawn, i, out):
        out[:] = sample

    def pack(self, rows, labels, drawn):
        return {"rows": rows}

    def finish(self, packed):
        return self.finish_plain(packed["rows"], None)

    def plain(self, sample, out):
        out[:] = sample

    def finish_plain(self, rows, labels):
        import tensorflow as tf

        rows = tf.convert_to_tensor(rows)
        return {"tokens": tf.maximum(rows[:, :-1], 0), "targets": rows[:, 1:]}

    def loss(self, model, batch):
        import tensorflow as tf

        losses, hits, there = self._compare(model(batch["tokens"], training=True), batch)
        weight = tf.reduce_sum(there)
        pair = (tf.reduce_sum(hits), weight)
        return Loss(tf.reduce_sum(losses), weight, {"token_accuracy": pair})

    def predict(self, model, batch):
        return model(batch["tokens"], training=False)

    def scores(self, answers, batch):
        import tensorflow as tf

        losses, hits, there = (tf.reduce_sum(x, 1) for x in self._compare(answers, batch))
        return {"val_loss": (losses, there), "val_token_accuracy": (hits, there)}

    def results(self, ratios):
        return dict(ratios)

    def _compare(self, logits, batch):
        import tensorflow as tf

        targets = batch["targets"]
        there = tf.cast(targets >= 0, logits.dtype)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(targets, 0), logits)
        right = tf.argmax(logits, -1, tf.int32) == targets
        return losses * there, tf.cast(right, logits.dtype), there


# --- the network ----------------------------------------------------------------------------------


def network(length, characters, instances, norm):
    import keras

    from ba_dist.models.layers.dropout import InstanceDropout
    from ba_dist.models.layers.microbatch import current

    class Memory(keras.layers.Layer):
        """Adds what the same place of the batch held in the step before."""

        tags = {"state": (INSTANCE,)}

        def build(self, shape):
            self.state = self.add_weight(
                shape=(instances, shape[-1]), initializer="zeros", trainable=False, name="state"
            )

        def call(self, x, training=False):
            if not training:
                return x
            rows = x.shape[0]
            first = current().start
            mine = self.state.value[first : first + rows]
            y = x + 0.5 * mine[:, None, :]
            new = keras.ops.mean(keras.ops.stop_gradient(y), 1)
            self.state.value[first : first + rows].assign(new)
            return y

    # Every layer has a name of its own: Keras would number them on, model after model, and a
    # checkpoint of one would not fit the next.
    tokens = keras.Input((length,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(characters, 8, name="embedding")(tokens)
    x = InstanceDropout(0.3, "embedding")(x)
    x = keras.layers.Conv1D(12, 3, padding="causal", activation="tanh", name="convolution")(x)
    x = Memory(name="memory")(x)
    x = InstanceDropout(0.5, "hidden")(x)
    return keras.Model(tokens, keras.layers.Dense(characters, name="logits")(x))


made.MADE["sentences"] = sentences
tasks.TASKS["next-character"] = tasks.Entry(lambda config, info: NextCharacter(info), TextInfo)
models.NETWORKS["characters"] = models.Network(
    network, None, "this test", task="next-character", keeps_state=True
)


# --- the runs -------------------------------------------------------------------------------------

SMALL = {
    "dataset": "sentences", "model": "characters", "batch_size": 16, "ghost_batch_size": 4,
    "multiplicity": 4, "train_samples": 64, "val_samples": 10, "precision": "fp64",
    "trace": True, "log_every": 1,
}  # fmt: skip


def main(out, plans):
    from ba_dist.analysis.audit import audit
    from ba_dist.evaluate_run import evaluate_run
    from ba_dist.training import train

    for name, changes in plans:
        config = override(Config("characters"), {**SMALL, **changes, "run_dir": str(out / name)})
        outcome = train(config)
        result = evaluate_run(outcome.run_dir)
        if start().rank == 0:
            found = {
                "audit": audit(outcome.run_dir),
                "evaluated": [result.step, result.metrics],
            }
            (outcome.run_dir / "found.json").write_text(json.dumps(found))


main(Path(sys.argv[1]), json.loads(sys.argv[2]))
