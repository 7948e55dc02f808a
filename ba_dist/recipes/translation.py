"""The paper's translation experiment (table 2), and one that a laptop trains.

ba-dist data prepare gettext-en-de                # once
launch/mpirun.sh -n 2 -- train transformer-gettext --run-dir runs/gettext
ba-dist eval runs/gettext                         # with BLEU
ba-dist translate runs/gettext FILE.txt
"""

from ba_dist.config import Batch, Config, Data, Model, Optimizer, Run

# The published rate, 512^-0.5 · min(step^-0.5, step · 4000^-1.5), by its peak at step 4000.
_PEAK = (512 * 4000) ** -0.5


def transformer_wmt16() -> Config:
    """Transformer (base) on WMT16 English-German, 4096 tokens, M = 4, 100,000 steps (table 2)."""
    return Config(
        recipe="transformer-wmt16",
        # There is no BatchNorm: ghost batches of one let a microbatch have any size.
        batch=Batch(batch_size=16, multiplicity=4, ghost_batch_size=1),
        data=Data(dataset="wmt16-en-de", row_tokens=256),
        model=Model(model="transformer-base"),
        optimizer=Optimizer(
            optimizer="adam",
            lr=((0.0, _PEAK),),
            lr_shape="inverse-sqrt",
            warmup_steps=4000,
            beta2=0.98,
            epsilon=1e-9,
            label_smoothing=0.1,
            weight_decay=0.0,
        ),
        run=Run(steps=100_000),
    )


def transformer_gettext() -> Config:
    """A small Transformer on the messages of this machine's programs, M = 2: some minutes."""
    return Config(
        recipe="transformer-gettext",
        batch=Batch(batch_size=16, multiplicity=2, ghost_batch_size=1),
        data=Data(dataset="gettext-en-de", row_tokens=64, subwords=4000),
        model=Model(model="transformer-small"),
        optimizer=Optimizer(
            optimizer="adam",
            lr=((0, 0.002), (5, 0.0)),
            lr_shape="linear",
            warmup_epochs=0.5,
            beta2=0.98,
            epsilon=1e-9,
            label_smoothing=0.1,
            weight_decay=0.0,
        ),
        run=Run(epochs=5),
    )
