"""Trains the smoke runs of recipes one after the other. OUT and a JSON list of [recipe, baseline]

OUT gets a folder a run: its title.
"""

import json
import sys
from pathlib import Path

from ba_dist import runtime
from ba_dist.comm import start
from ba_dist.config import override
from ba_dist.recipes import baseline_of, recipe, smoke_of

comm = start()
runtime.prepare(comm.node.rank, comm.node.size, comm.cores)  # faster than by itself

import keras  # noqa: E402

from ba_dist.training import train  # noqa: E402

out = Path(sys.argv[1])
for name, baseline in json.loads(sys.argv[2]):
    config = baseline_of(smoke_of(recipe(name)), baseline)
    train(override(config, {"run_dir": str(out / config.title), "trace": True}))
    keras.backend.clear_session()
