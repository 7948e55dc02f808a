"""Trains a tiny Transformer on sentence pairs: numbers in English and in German.

OUT, and a JSON list of [name, changes]: trains each as OUT/NAME; evaluates those that are whole
with BLEU, and audits them. The texts are in OUT/../texts; those in OUT/../others have another
vocabulary.
"""

import json
import sys
from pathlib import Path

from ba_dist import models, runtime
from ba_dist.comm import start
from ba_dist.config import Config, override
from ba_dist.errors import UserError
from ba_dist.models.transformer import Size, Transformer

runtime.quiet()


def network(vocabulary, row_tokens, norm, dropout=0.3):
    made = Transformer(Size(16, 2, 1, 24, dropout), vocabulary)
    made.build()
    return made


def plain(**facts):
    return network(**facts, dropout=0.0)


for name, build in (("tiny", network), ("tiny-plain", plain)):
    models.NETWORKS[name] = models.Network(build, None, "this test", task="translation")

SMALL = {
    "dataset": "pairs", "model": "tiny", "batch_size": 8, "ghost_batch_size": 1, "multiplicity": 2,
    "row_tokens": 24, "subwords": 320, "precision": "fp64", "trace": True, "log_every": 1,
    "optimizer": "adam", "lr": ((0.0, 0.01),), "weight_decay": 0.0, "label_smoothing": 0.1,
}  # fmt: skip


def main(out, plans):
    from ba_dist.analysis.audit import audit
    from ba_dist.evaluate_run import evaluate_run
    from ba_dist.training import train

    for name, changes in plans:
        texts = out.parent / "texts"
        changes = {**SMALL, "data_dir": str(texts), **changes, "run_dir": str(out / name)}
        outcome = train(override(Config("tiny"), changes))
        if name not in ("whole", "learned"):
            continue
        result = evaluate_run(outcome.run_dir)
        try:
            refused = str(evaluate_run(outcome.run_dir, data_dir=str(out.parent / "others")))
        except UserError as error:
            refused = str(error)
        if start().rank == 0:
            found = {
                "audit": audit(outcome.run_dir),
                "evaluated": result.as_dict(),
                "some": result.bleu_line(),
                "refused": refused,
            }
            (outcome.run_dir / "found.json").write_text(json.dumps(found))


main(Path(sys.argv[1]), json.loads(sys.argv[2]))
