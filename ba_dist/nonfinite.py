"""What happens when a gradient holds NaN or infinity: all ranks act at the same step."""

import json
from pathlib import Path
from typing import Any

from ba_dist.comm import Comm
from ba_dist.config import Run
from ba_dist.errors import UserError, agreed

# In the run directory: one line for each such step, with what every rank trained on.
FILE = "nonfinite.jsonl"


def act(
    comm: Comm, run_dir: Path, run: Run, step: int, skipped: int, finite: bool, held: dict[str, Any]
) -> str:
    """Writes down what the ranks had trained on, and decides; collective over the world.

    Args:
        comm: the world.
        run_dir: gets the file.
        run: says whether to stop.
        step: that is not finite.
        skipped: updates left out, with this one.
        finite: whether this rank's own gradient is finite.
        held: `sample_ids`, `copies` and `augment_keys` of this rank's instances.

    Returns:
        A warning.

    Raises:
        UserError: on all ranks, when the run is to stop.
    """
    mine = {"rank": comm.rank, "host": comm.host, "finite": finite, **held}
    ranks = comm.world.gather_objects(mine)
    path = run_dir / FILE
    if comm.rank == 0:
        with path.open("a") as file:
            print(json.dumps({"step": step, "ranks": ranks}), file=file)
    text = describe(step, ranks, path)
    if run.on_nonfinite == "stop":
        raise agreed(
            UserError(
                f"{text} The last checkpoint is from before it. Lower --lr-scale or use another"
                " --precision; --on-nonfinite skip leaves such updates out"
            )
        )
    if skipped > run.nonfinite_budget:
        raise agreed(
            UserError(
                f"{text} That makes {skipped} updates left out, --nonfinite-budget is"
                f" {run.nonfinite_budget}"
            )
        )
    return f"warning: {text} Update left out, {skipped} of at most {run.nonfinite_budget}"


def describe(step: int, ranks: list[dict[str, Any]], path: Path) -> str:
    """Which ranks' gradients are not finite, and where their samples are written down."""
    names = [f"rank {rank['rank']} on {rank['host']}" for rank in ranks if not rank["finite"]]
    who = ", ".join(names[:8]) + (" …" if len(names) > 8 else "")
    return (
        f"the loss or gradient of step {step} is not finite, by {who or 'their sum'}."
        f" Samples, copies and keys are in {path}."
    )
