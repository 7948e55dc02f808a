"""Run directories as training leaves them, without training."""

import json

import numpy as np

from ba_dist.config import layout_of, override, to_dict
from ba_dist.recipes import recipe

JUDGED = {
    "by": "val_top1",
    "less_is_better": False,
    "headline": "validation accuracy",
    "unit": "images",
}
PERPLEXITY = {
    "by": "val_perplexity",
    "less_is_better": True,
    "headline": "validation perplexity",
    "unit": "tokens",
}


def leave(folder, accuracies=(0.5, 0.6, 0.7), *, ranks=2, per_epoch=10, every=5, **changes):
    """A finished run of `quickstart` with these results after each epoch.

    Args:
        folder: the run directory to make.
        accuracies: of evaluations.
        ranks: W.
        per_epoch: steps of an epoch.
        every: steps between two lines of metrics.jsonl.
        changes: of settings.
    """
    folder.mkdir(parents=True)
    config = override(recipe("quickstart"), {"epochs": len(accuracies), **changes})
    layout = vars(layout_of(config, ranks))
    facts = {
        "config": to_dict(config),
        "layout": layout,
        "layouts": [[0, layout]],
        "steps_per_epoch": per_epoch,
        "versions": {"numpy": np.__version__},
        "hosts": ["node1"] * ranks,
        "judged": JUDGED,
    }
    samples = config.batch.batch_size
    events = []
    for step in range(1, per_epoch * len(accuracies) + 1):
        so_far = {"samples": step * samples, "seconds": 36.0 * step}
        so_far["instances"] = so_far["samples"] * config.batch.multiplicity
        if step % every == 0:
            values = {
                "loss": 2 / step,
                "accuracy": step / 1000,
                "lr": 0.1,
                "grad_norm": 1 + 1 / step,
            }
            events.append({"event": "step", "step": step, **values, **so_far})
        if step % per_epoch == 0:
            epoch = step // per_epoch - 1
            values = {"loss": 3 / step, "accuracy": accuracies[epoch] + 0.1}
            found = {"val_loss": 4 / step, "val_top1": accuracies[epoch]}
            events.append(
                {"event": "epoch", "step": step, "epoch": epoch, **values, **found, **so_far}
            )
    summary = {
        **{"steps": step, "samples": so_far["samples"], "instances": so_far["instances"]},
        **{"val_top1": accuracies[-1], "images_per_second": 100.0, "seconds": 36.0 * step},
        "input": {"mode": "cooperative", "records_read": step * samples, "wait_share": 0.0},
    }
    write(folder, facts=facts, summary=summary, events=events)
    return folder


def write(folder, *, facts=None, summary=None, events=None):
    """Writes what is given of config.json, summary.json and metrics.jsonl."""
    if facts is not None:
        (folder / "config.json").write_text(json.dumps(facts))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    if events is not None:
        lines = "".join(json.dumps(event) + "\n" for event in events)
        (folder / "metrics.jsonl").write_text(lines)


def change(folder, name, edit):
    """Edits a JSON file of a run."""
    path = folder / name
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def change_events(folder, edit):
    """Edits each event of a run; one that becomes None is left out."""
    path = folder / "metrics.jsonl"
    events = [edit(json.loads(line)) for line in path.read_text().splitlines()]
    write(folder, events=[event for event in events if event is not None])


def into_perplexity(folder):
    """Makes it the run of a language model, with perplexities 10 times what accuracies were."""

    def edit(event):
        event.pop("accuracy", None)
        event["token_loss"] = 1.5
        if (result := event.pop("val_top1", None)) is not None:
            event["val_perplexity"] = 10 * result
        return event

    change_events(folder, edit)
    change(folder, "config.json", lambda facts: facts.update(judged=PERPLEXITY))
    return folder
