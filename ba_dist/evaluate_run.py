"""Evaluates a finished or stopped run, on any number of ranks."""

from pathlib import Path

from ba_dist import runtime
from ba_dist.comm import start
from ba_dist.config import check_computation
from ba_dist.data.catalog import open_dataset
from ba_dist.health import devices
from ba_dist.models import variables
from ba_dist.run import checkpoint
from ba_dist.run.record import load_config


def evaluate_run(folder: Path) -> tuple[int, dict[str, float]]:
    """The step and the metrics of the newest good checkpoint; collective over the world."""
    comm = start()
    config, facts = comm.together(lambda: load_config(folder))
    comm.together(lambda: check_computation(facts.get("computation", 1)))
    comm.together(lambda: runtime.prepare(comm.node.rank, comm.node.size))
    devices.check(comm)
    from ba_dist import experiment

    dataset = open_dataset(config.data, comm)
    home = facts.get("folder") and Path(facts["folder"])
    ghost_batch = facts["layout"]["ghost_batch_size"]
    made = comm.together(lambda: experiment.assemble(config, dataset.info, ghost_batch, home=home))
    place = checkpoint.folder_of(folder)
    mine = comm.together(lambda: checkpoint.newest_good(place) if comm.rank == 0 else None)
    found = checkpoint.share(mine, comm)
    assert found is not None  # rank 0 had one, or all ranks have raised
    weights = variables.fitting(found.arrays, made.model)
    comm.together(lambda: checkpoint.restore(weights, variables.alike(made.model)))
    with experiment.evaluator(made, dataset.validation, comm) as evaluate:
        result = evaluate()
        assert result is not None  # nobody asks it to stop
        return found.step, result
