"""What happens when a gradient holds NaN or infinity: all ranks act at the same step."""

import json
from pathlib import Path

import numpy as np

from ba_dist.comm import Comm
from ba_dist.config import Run
from ba_dist.data.batch import Instances
from ba_dist.errors import UserError, agreed

# In the run directory: one file a rank, a line for each such step, with what it trained on.
FOLDER = "nonfinite"


def stop_or_skip(
    comm: Comm,
    run_dir: Path,
    run: Run,
    *,
    step: int,
    count: int,
    finite: bool,
    instances: Instances,
) -> str:
    """Writes down what this rank has trained on, and decides; collective over the world.

    Args:
        comm: the world.
        run_dir: gets the files.
        run: says whether to stop.
        step: number of the step whose gradient is not finite, from 1.
        count: updates left out for this reason, with this one.
        finite: whether this rank's own gradient is finite.
        instances: of this rank's batch.

    Returns:
        A warning.

    Raises:
        UserError: on all ranks, when the run is to stop.
    """
    # Each rank its own: all instances of a large world are more than one rank should hold.
    folder = run_dir / FOLDER
    folder.mkdir(exist_ok=True)
    with (folder / f"rank-{comm.rank:05d}.jsonl").open("a") as file:
        line = {"step": step, "host": comm.host, "finite": finite, **instances.as_dict()}
        print(json.dumps(line), file=file)
    culprits = np.flatnonzero(~comm.world.gather_all(np.array(finite)))
    text = describe(step, culprits.tolist(), comm.hosts, folder)
    if run.on_nonfinite == "stop":
        raise agreed(
            UserError(
                f"{text} The last checkpoint is from before it. Lower --lr-scale or use another"
                " --precision; --on-nonfinite skip leaves such updates out"
            )
        )
    if count > run.nonfinite_budget:
        raise agreed(
            UserError(
                f"{text} That makes {count} updates left out, --nonfinite-budget is"
                f" {run.nonfinite_budget}"
            )
        )
    return f"warning: {text} Update left out, {count} of at most {run.nonfinite_budget}"


def describe(step: int, culprits: list[int], hosts: list[str], folder: Path) -> str:
    """Which ranks' gradients are not finite, and where their samples are written down."""
    names = [f"rank {rank} on {hosts[rank]}" for rank in culprits]
    who = ", ".join(names[:8]) + (" …" if len(names) > 8 else "")
    return (
        f"the loss or gradient of step {step} is not finite, by {who or 'their sum'}."
        f" Samples, copies and keys are in {folder}."
    )
