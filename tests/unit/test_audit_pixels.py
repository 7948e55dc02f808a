"""The audit against traces of the real input: right ones pass, broken ones are named."""

import json
import re

import numpy as np
import pytest

from ba_dist import load_run
from ba_dist.analysis import rendering
from ba_dist.analysis.audit import audit
from ba_dist.data.sources import ArraySource
from ba_dist.errors import UserError
from ba_dist.rules.order import Permutation
from ba_dist.run import trace

from . import traces
from .traces import RANKS, STEPS, Corrupt, produce, small

BROKEN = "a broken trace: the audit names what is wrong, step and rank"


def everywhere(kind):
    return {"augmentation": lambda rank, config, info: traces.as_it_should_be(config, info, kind)}


def on_rank_1(kind):
    def make(rank, config, info):
        wanted = [kind] if rank == 1 else []
        return traces.as_it_should_be(config, info, *wanted)

    return {"augmentation": make}


# --- right traces -------------------------------------------------------------------------------

RIGHT = {
    "M1": {"multiplicity": 1},
    "M2": {"multiplicity": 2},
    "M8": {"multiplicity": 8},
    "flip only": {"multiplicity": 8, "pad_crop": 0, "cutout": 0, "flip": True},
    "cutout only": {"pad_crop": 0},
    "mixed": {"mixup": 0.3, "cutmix": 1.0},
    "colours": {
        **{"dataset": "synthetic", "image_size": 16, "auto_augment": "cifar10"},
        **{"jitter": 0.4, "lighting": 0.1},
    },
    "policy only": {"dataset": "synthetic", "pad_crop": 0, "cutout": 0, "auto_augment": "cifar10"},
    "random operations": {
        **{"dataset": "synthetic", "image_size": 16, "rand_augment": 2, "rand_magnitude": 12},
        **{"pad_crop": 0, "cutout": 0},
    },
    "pictures": {
        **{"dataset": "synthetic-jpeg", "image_size": 24, "resize": 32, "crop": "random-resized"},
        **{"pad_crop": 0, "cutout": 0},
    },
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_traces_are_clean_and_rendered_alike(tmp_path, name):
    notes = []
    assert audit(produce(tmp_path / "run", small(**RIGHT[name])), say=notes.append) == (STEPS, [])
    copies = RIGHT[name].get("multiplicity", 4)
    instances = min(64 * 8, STEPS * 32 * copies)
    assert notes == [f"{instances} instances were rendered anew from data and key"]


def test_several_groups_are_clean(tmp_path):
    run = produce(tmp_path / "run", small(multiplicity=2), ranks=4)
    assert audit(run) == (STEPS, [])


def test_pixels_of_another_version_are_refused_by_name(tmp_path):
    """Everything else of such a run can still be checked."""
    file = produce(tmp_path / "run", small()) / "config.json"
    facts = json.loads(file.read_text())
    file.write_text(json.dumps({**facts, "computation": facts["computation"] - 1}))
    with pytest.raises(UserError, match=r"pixels may differ \(computation \d+, .*--no-render"):
        audit(tmp_path / "run")
    assert audit(tmp_path / "run", render=0) == (STEPS, [])


def test_copies_that_nothing_makes_differ_are_no_problem_but_said(tmp_path):
    notes = []
    run = produce(tmp_path / "run", small(pad_crop=0, cutout=0))
    assert audit(run, say=notes.append) == (STEPS, [])
    assert notes[0] == "no augmentation is on: the copies of a sample are all the same"


def test_corrupt_samples_that_were_replaced_are_clean(tmp_path):
    """At the end of an epoch too, and where the first one in their place is corrupt as well."""
    order = Permutation(170, 0, 0)
    corrupt = set(order([3, 32 + 3, 4 * 32 + 7, 9, 4 * 32 + 9]).tolist())
    run = produce(tmp_path / "run", small(), source=lambda source: Corrupt(source, corrupt))
    entries = [json.loads(line) for line in trace.path_of(run, 1).read_text().splitlines()]
    replaced = {int(sample) for entry in entries for sample in entry.get("replaced", {})}
    assert corrupt <= replaced
    assert audit(run) == (STEPS, [])


@pytest.mark.parametrize(("total", "wanted"), [(1, 1), (7, 64), (64, 64), (10**9, 64), (0, 3)])
def test_what_is_rendered_is_spread_over_the_run(total, wanted):
    chosen = rendering.spread(total, wanted, seed=3)
    assert chosen == sorted(set(chosen)) == rendering.spread(total, wanted, seed=3)
    assert len(chosen) == min(total, wanted)
    edges = np.linspace(0, total, min(total, wanted) + 1)
    assert all(low <= at < high for low, at, high in zip(edges, chosen, edges[1:], strict=False))


# --- every way to be wrong ------------------------------------------------------------------------

PIXELS = r"step \d+, rank {}: \d+ of 8 instances rendered anew have other pixels, first instance"
BATCH = r"step \d+, rank [01]: the labels or the decoded images of its batch are not those"
COPIES = r"step \d+, group 0: copies 0 and 1 of 16 samples in a row are the same image"
MIXED = {"mixup": 1.0}

# What is broken → what the audit says of it.
PRODUCERS = {
    "no augmentation at all": (everywhere(traces.Off), {}, COPIES),
    "all copies the same": (everywhere(traces.SameCopies), {}, COPIES),
    "pixels of another key": (everywhere(traces.OtherKeys), {}, PIXELS.format("[01]")),
    "one rank's copies in another order": (on_rank_1(traces.CopiesTurned), {}, PIXELS.format(1)),
    "no augmentation on one rank": (on_rank_1(traces.Off), {}, PIXELS.format(1)),
    "an augmentation forgotten": (everywhere(traces.NoFlip), {"flip": True}, PIXELS.format("[01]")),
    "augmented from the third step on": (everywhere(traces.LateStart), {"cutout": 0}, COPIES),
    "pixels of another sample": (on_rank_1(traces.Neighbours), {}, PIXELS.format(1)),
    "other colours": (everywhere(traces.OtherColours), {}, PIXELS.format("[01]")),
    "a partner of another ghost batch": (
        everywhere(traces.PartnersFromAnywhere),
        MIXED,
        PIXELS.format("[01]"),
    ),
    "ids of other samples": ({"source": traces.OtherSamples}, {}, BATCH),
    "labels shuffled": ({"source": traces.OtherLabels}, {}, BATCH),
    "one pixel of each image": ({"source": traces.OnePixel}, {}, BATCH),
    "a stale batch": ({"reader": traces.Stale}, {}, BATCH),
}


@pytest.mark.parametrize("name", PRODUCERS)
def test_a_broken_input_is_named(tmp_path, promise, name):
    broken, changes, expected = PRODUCERS[name]
    _, problems = audit(produce(tmp_path / "run", small(**changes), **broken))
    named = any(re.match(expected, problem) for problem in problems)
    promise(0, BROKEN, int(named), 1)


def test_a_run_in_a_script_is_audited_as_by_the_command(tmp_path):
    assert load_run(produce(tmp_path / "right", small(), steps=2)).audit() == []
    run = load_run(produce(tmp_path / "wrong", small(), steps=2, **on_rank_1(traces.OtherKeys)))
    problems = run.audit()
    assert problems and all(re.match(PIXELS.format(1), problem) for problem in problems)
    assert run.audit(render=0) == []


def test_labels_alone_are_told_from_pixels(tmp_path):
    _, problems = audit(produce(tmp_path / "run", small(), source=traces.OtherLabels))
    assert problems and all(re.match(BATCH, problem) for problem in problems)


@pytest.mark.parametrize("kind", [traces.Off, traces.SameCopies])
def test_copies_that_do_not_differ_are_found_without_the_data(tmp_path, kind):
    run = produce(tmp_path / "run", small(), **everywhere(kind))
    _, problems = audit(run, render=0)
    pairs = {re.search(r"copies (\d and \d)", problem)[1] for problem in problems}
    assert pairs == {"0 and 1", "0 and 2", "0 and 3", "1 and 2", "2 and 3"}


# --- files that were changed ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    return produce(tmp_path_factory.mktemp("right") / "run", small())


@pytest.fixture
def run(right, tmp_path):
    """A right run that may be broken."""
    (tmp_path / "trace").mkdir()
    (tmp_path / "config.json").write_text((right / "config.json").read_text())
    for rank in range(RANKS):
        trace.path_of(tmp_path, rank).write_text(trace.path_of(right, rank).read_text())
    return tmp_path


def change(run, rank, work):
    """Does `work` on the list of the lines of a rank."""
    path = trace.path_of(run, rank)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    work(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def digests(lines):
    return [i for i, line in enumerate(lines) if "weights_after" in line]


def other_weights(lines):
    lines[digests(lines)[1]] = traces.weights(5, rank=1)


def weights_lost(lines):
    del lines[digests(lines)[1]]


def weights_early(lines):
    lines.insert(1, lines.pop(digests(lines)[1]))


def weights_twice(lines):
    lines.insert(digests(lines)[1], traces.weights(5, rank=1))


def one_bit(lines):
    entry = lines[3]["instance_sha256"]
    entry[17] = f"{int(entry[17], 16) ^ 1:016x}"


def out_of_order(lines):
    lines[2], lines[3] = lines[3], lines[2]


CHANGES = {
    other_weights: "weights after 5 steps: rank 1 of 2 differ from most ranks",
    weights_lost: "weights after 5 steps: rank 1 of 2 wrote no digest",
    weights_early: "step 0, rank 1: the digest of the weights after 5 steps stands before it",
    weights_twice: "weights after 5 steps: rank 1 wrote two digests that differ",
    one_bit: "step 2, rank 1: 1 of 8 instances rendered anew have other pixels, first instance 17,",
    out_of_order: "step 1, rank 1: more than once in the trace, or out of order, before step 3",
}


@pytest.mark.parametrize("broken", CHANGES, ids=lambda f: f.__name__)
def test_a_changed_trace_is_named(run, promise, broken):
    change(run, 1, broken)
    problems = audit(run)[1]
    named = any(problem.startswith(CHANGES[broken]) for problem in problems)
    promise(0, BROKEN, int(named), 1)


def test_no_digest_of_the_weights_at_all(run, promise):
    for rank in range(RANKS):
        change(run, rank, lambda lines: [lines.pop(i) for i in reversed(digests(lines))])
    problems = audit(run, render=0)[1]
    said = "no digest of the weights in the trace: nothing tells whether all ranks agreed"
    promise(0, BROKEN, int(problems == [said]), 1)


def test_no_digest_of_the_weights_for_an_epoch(run):
    for rank in range(RANKS):
        change(run, rank, lambda lines: [lines.pop(i) for i in reversed(digests(lines)[1:])])
    said = "weights after 0 steps: the last digest, of a trace of 6 steps"
    assert audit(run, render=0)[1] == [said]
    for rank in range(RANKS):
        change(run, rank, lambda lines: lines.pop(0))
        change(run, rank, lambda lines: lines.append(traces.weights(6)))
    said = "weights after 6 steps: the first digest; that of the start is missing"
    assert audit(run, render=0)[1] == [said]


def test_weights_agreed_again_when_a_run_goes_on(run):
    for rank in range(RANKS):
        change(run, rank, lambda lines: lines.insert(digests(lines)[1], traces.weights(5)))
    assert audit(run, render=0) == (STEPS, [])


def edit_facts(run, work):
    facts = json.loads((run / "config.json").read_text())
    work(facts)
    (run / "config.json").write_text(json.dumps(facts))


def test_another_seed(run, promise):
    edit_facts(run, lambda facts: facts["config"]["run"].update(seed=1))
    problems = audit(run)[1]
    named = all(
        any(p.startswith(f"step {step}, rank {rank}: sample_ids are not those") for p in problems)
        for step in range(STEPS)
        for rank in range(RANKS)
    )
    promise(0, BROKEN, int(named), 1)


def test_other_data_than_the_runs(tmp_path, promise, monkeypatch):
    """The run had other digits; where it is audited lie those of the wheel."""

    def others(config, split):
        source = real(config, split)
        return ArraySource(source.info, 255 - source.images, source.labels, "others")

    real = traces.open_source
    monkeypatch.setattr(traces, "open_source", others)
    problems = audit(produce(tmp_path / "run", small()))[1]
    named = len(problems) == 1 and problems[0].startswith("the data opened here is not that of the")
    promise(0, BROKEN, int(named), 1)
    assert audit(tmp_path / "run", render=0) == (STEPS, [])


def test_a_sample_that_cannot_be_read_where_the_run_is_audited(run, monkeypatch):
    def corrupt(config, split):
        return Corrupt(real(config, split), set(Permutation(170, 0, 0)([32]).tolist()))

    real = rendering.open_source
    monkeypatch.setattr(rendering, "open_source", corrupt)
    said = "its batch cannot be read here: corrupt"
    found = set(audit(run)[1])
    assert found >= {f"step 1, rank {rank}: {said}" for rank in range(RANKS)}
    # The second epoch, of which there is one step, may use it again.
    assert all(re.fullmatch(f"step [15], rank [01]: {said}", problem) for problem in found)


def test_problems_end_somewhere(tmp_path):
    config = small(batch_size=2, multiplicity=1, ghost_batch_size=1, pad_crop=0, cutout=0)
    run = produce(tmp_path / "run", config, ranks=1, steps=600)
    edit_facts(run, lambda facts: facts["config"]["run"].update(seed=1))
    steps, problems = audit(run, render=0)
    assert len(problems) == 1001 and steps < 600
    assert problems[-1] == "the audit ended after 1000 problems"
