"""A short training, and what is done with its run: the names of `ba_dist` for runs.

launch/mpirun.sh -n 2 -- python docs/examples/run.py runs/example
"""

import sys

from sklearn.datasets import load_digits

import ba_dist

changes = {"dataset": "digits", "train_samples": None, "steps": 60, "seed": 1, "keep_best": True}
config = ba_dist.override(ba_dist.recipe("quickstart"), {**changes, "run_dir": sys.argv[1]})
outcome = ba_dist.train(config)  # on all ranks that were started

run = ba_dist.load_run(outcome.run_dir, checkpoint="best")
result = run.evaluate(tta=3)  # on all ranks; also of 3 augmented copies of each sample
digits = (load_digits().images[:5] * 15.9).astype("uint8")[..., None]
shares = run.predict(digits)  # on this one; also of image files
if ba_dist.start().rank == 0:
    print(f"{run.checkpoints} step {run.step}  val_top1 {result['val_top1']:.1%}")
    print(f"of 3 copies  val_top1 {result['tta']['val_top1']:.1%}")
    print(f"{run.model.name}: classes {shares.argmax(1)}, probability {shares.max(1).round(2)}")
