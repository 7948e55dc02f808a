"""Trains several configurations one after the other: OUT and a JSON list of [name, changes]."""

import json
import sys
from pathlib import Path

from ba_dist import runtime
from ba_dist.config import override
from ba_dist.recipes import recipe

runtime.quiet()

from ba_dist.train import train  # noqa: E402  TensorFlow must be hushed before it loads

folder, runs = Path(sys.argv[1]), json.loads(sys.argv[2])
for name, changes in runs:
    train(override(recipe("quickstart"), {**changes, "run_dir": str(folder / name)}))
