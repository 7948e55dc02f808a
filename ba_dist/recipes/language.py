"""The paper's language model (table 2), and a small one on a text that Debian has.

    launch/mpirun.sh -n 10 -- train lstm-ptb --data-dir DIR    # ptb.train.txt and ptb.valid.txt
    launch/mpirun.sh -n 10 -- train lstm-ptb --data-dir DIR --multiplicity 1    # its baseline

    ba-dist data prepare bible-kjv                             # once
    launch/mpirun.sh -n 2 -- train lstm-bible

Copies differ by the masks of dropout alone: of words, inputs, activations and recurrent weights.
The regime of `lstm-ptb` is that of Merity et al. 2018 (arXiv:1708.02182) and its code, whose
network the paper trains. docs/recipes.md says what is reported, and what was measured here.
"""

from ba_dist.config import Batch, Config, Data, Model, Optimizer, Run


def lstm_ptb() -> Config:
    """LSTM of 3x1150 on the words of Penn Treebank, B = 20, M = 10, 500 epochs (table 2)."""
    return Config(
        recipe="lstm-ptb",
        batch=Batch(batch_size=20, multiplicity=10, ghost_batch_size=20),
        data=Data(dataset="ptb", bptt=70),
        model=Model(model="lstm", activation_penalty=2.0, slowness_penalty=1.0),
        optimizer=Optimizer(
            lr=((0, 30.0),), momentum=0.0, clip_norm=0.25, weight_decay=1.2e-6, average_after=5
        ),
        run=Run(epochs=500, keep_best=True),
    )


def lstm_bible() -> Config:
    """A small LSTM on the King James Bible, B = 20, M = 2, 5 epochs: a first language model."""
    return Config(
        recipe="lstm-bible",
        batch=Batch(batch_size=20, multiplicity=2, ghost_batch_size=20),
        data=Data(dataset="bible-kjv", bptt=35, context=70, least_count=3),
        model=Model(model="lstm-small"),
        optimizer=Optimizer(
            lr=((0, 20.0), (5, 0.0)),
            lr_shape="linear",
            momentum=0.0,
            clip_norm=0.25,
            weight_decay=1.2e-6,
        ),
        run=Run(epochs=5),
    )
