"""What a run says of itself before its first step."""

from ba_dist.config import layout_of, plan_steps
from ba_dist.data.augment import Augmentation
from ba_dist.data.catalog import Dataset, open_source
from ba_dist.data.group.choice import Exchange
from ba_dist.run import record
from ba_dist.run.run_dir import read_json, write_json
from ba_dist.sweep.runs import finished
from ba_dist.tasks.classification import Classification

from .traces import small


def test_a_run_that_goes_on_is_not_finished_any_more(tmp_path, comm, capsys):
    """A run made longer had the summary of its shorter self until its new end."""
    write_json(tmp_path / "summary.json", {"steps": 5})
    config = small(epochs=2)
    data = open_source(config.data, "train")
    assert finished(tmp_path)
    record.describe(
        *(tmp_path, config, layout_of(config, 1)),
        dataset=Dataset(data, data, data.info, "here"),
        task=Classification(Augmentation(config.augment, data.info)),
        plan=plan_steps(config, len(data), 1),
        done=5,
        comm=comm,
        exchange=Exchange("auto"),
    )
    assert "going on at step 5 of 10" in capsys.readouterr().out
    assert not finished(tmp_path) and read_json(tmp_path / "config.json")["steps_per_epoch"] == 5
