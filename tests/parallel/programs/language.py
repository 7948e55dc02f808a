"""A language model on a small text, in float64: OUT and a JSON list of [name, changes].

Trains each as OUT/NAME, evaluates and audits it, and notes how often its step was traced.
"""

import json
import sys
from pathlib import Path

from ba_dist import models, runtime
from ba_dist.comm import start
from ba_dist.config import Config, override
from ba_dist.errors import ConfigError
from ba_dist.models import lstm

runtime.quiet()

# All kinds of dropout, and quick.
lstm.SIZES["tiny"] = lstm.Size(2, 12, 8, 0.1, 0.2, 0.2, 0.2, 0.3)
models.NETWORKS["lstm-tiny"] = models.Network(
    models._made_by("lstm", "language_model", "tiny"),
    None,
    "this test",
    task="language-model",
    keeps_state=True,
    normalised=False,
)
SMALL = {
    "dataset": "text", "model": "lstm-tiny", "batch_size": 8, "ghost_batch_size": 8,
    "multiplicity": 2, "bptt": 8, "context": 5, "precision": "fp64", "trace": True, "log_every": 1,
    "lr": ((0.0, 5.0),), "momentum": 0.0, "clip_norm": 0.25, "weight_decay": 1e-4,
    "activation_penalty": 2.0, "slowness_penalty": 1.0, "average_after": 1,
}  # fmt: skip


def main(out, plans):
    from ba_dist import training
    from ba_dist.analysis.audit import audit
    from ba_dist.evaluate_run import evaluate_run
    from ba_dist.step import TrainStep

    made = []
    build = TrainStep.__init__
    TrainStep.__init__ = lambda self, *a, **k: (build(self, *a, **k), made.append(self))[0]
    for name, changes in plans:
        config = override(Config("language"), {**SMALL, **changes, "run_dir": str(out / name)})
        outcome = training.train(config)
        result = evaluate_run(outcome.run_dir)
        try:
            refused = str(evaluate_run(outcome.run_dir, tta=2))
        except ConfigError as error:
            refused = str(error)
        if start().rank == 0:
            found = {
                "audit": audit(outcome.run_dir),
                "evaluated": [result.step, result.metrics],
                "line": result.line(),
                "refused": refused,
                "traced": made[-1]._step.experimental_get_tracing_count(),
            }
            (outcome.run_dir / "found.json").write_text(json.dumps(found))


main(Path(sys.argv[1]), json.loads(sys.argv[2]))
