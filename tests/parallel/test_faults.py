"""What breaks in a training on several ranks, and what its user gets: counted, by the rows of
docs/reliability.md. What needs several nodes is in tests/cluster/.
"""

import json
import re
import time
from contextlib import ExitStack

import numpy as np
import pytest

from ba_dist.analysis.audit import audit
from ba_dist.run import checkpoint
from tests import pictures
from tests.parallel.jobs import Job, host, metrics, shallow, small
from tests.parallel.ranks import PROGRAMS, mpirun, program, warm

KILLS, EVERY = 20, 5

pytestmark = [pytest.mark.mpi, pytest.mark.faults]


def newest(run):
    return checkpoint.newest_good(checkpoint.folder_of(run))


def same_state(one, other):
    return set(one.arrays) == set(other.arrays) and all(
        value.tobytes() == other.arrays[name].tobytes() for name, value in one.arrays.items()
    )


def test_a_run_survives_sigkill_again_and_again(tmp_path, promise):
    """One run is killed 20 times, at any step, and ends like one that never was."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    draw = np.random.default_rng(0)
    gone = named = kept = last = 0
    seconds = []
    for attempt in range(KILLS):
        victim = attempt % 2
        with Job(
            2, shallow(run, "--steps", 2000, "--checkpoint-every", EVERY, "--trace"), run
        ) as job:
            # Beyond what the job before has left in the metrics.
            job.until_step(last + int(draw.integers(1, 10)))
            job.process(victim).kill()
            status, output, took = job.wait()
            last = job.last_step()
        seconds.append(took)
        gone += status != 0 and took < 60
        named += f"process rank {victim} " in output and host() in output and "Killed" in output
        # One interval, and the checkpoint that was being written.
        kept += last - newest(run).step < 2 * EVERY
    promise(1, "SIGKILL of a rank: all gone in 60 s, status not 0", gone, KILLS, seconds)
    promise(1, "SIGKILL of a rank: the message names rank and host", named, KILLS)
    promise(1, "SIGKILL of a rank: one checkpoint interval lost at most", kept, KILLS)
    steps = last + 10
    for folder in (run, whole):
        warm(2, *shallow(folder, "--steps", steps, "--checkpoint-every", EVERY, "--trace"))
    assert audit(run) == (steps, [])
    ends = [[e["step"] for e in metrics(r) if e["event"] == "epoch"] for r in (run, whole)]
    assert ends[0] == ends[1]  # each epoch is evaluated and told once
    equal = same_state(newest(run), newest(whole)) * KILLS
    promise(4, "resumed in the middle of an epoch: bit for bit the undisturbed run", equal, KILLS)


def test_resumed_on_other_numbers_of_ranks(tmp_path, promise):
    """The samples, copies and keys of every step stay; sizes that cannot work are refused."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    flags = ["--trace", "--precision", "fp64", "--batch-size", "64"]
    worlds = {2: 3, 4: 6, 1: 9}
    for ranks, steps in worlds.items():
        warm(ranks, *shallow(run, *flags, "--steps", steps))
    warm(2, *shallow(whole, *flags, "--steps", 9))
    steps, problems = audit(run)
    instances = [sorted(traced(folder)) for folder in (run, whole)]
    expected, found = newest(whole).arrays, newest(run).arrays
    close = all(
        np.abs(found[name] - value).max() <= 1e-9 * max(np.abs(value).max(), 1e-30)
        for name, value in expected.items()
    )
    same = (steps, problems) == (9, []) and instances[0] == instances[1] and close
    promise(5, "resumed on 4 and on 1 instead of 2 ranks: the same instances", 2 * same, 2)
    refused = warm(3, *shallow(run, *flags, "--steps", 12), check=False)
    told = refused.returncode == 2 and "--batch-size values that work" in refused.stderr
    promise(5, "resumed on 3 ranks, which cannot work: refused, sizes listed", int(told), 1)


def steps_of(run, rank):
    """The steps in a rank's trace."""
    lines = (run / "trace" / f"rank-{rank:05d}.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if "sample_ids" in entry]


def traced(run):
    """(step, sample, copy, key) of every instance."""
    for rank in range(len(list((run / "trace").iterdir()))):
        for entry in steps_of(run, rank):
            for triple in zip(
                entry["sample_ids"], entry["copies"], entry["augment_keys"], strict=True
            ):
                yield (entry["step"], *triple)


@pytest.mark.parametrize("io", ["cooperative", "broadcast"])
def test_the_reading_lane_dies_in_the_middle_of_an_exchange(io, tmp_path, promise):
    good, seconds, tries = 0, [], 2
    for attempt in range(tries):
        run = tmp_path / f"run-{attempt}"
        # A lane reads 16 or 32 records a step: the fatal one is in the middle of a batch.
        words = shallow(
            run, "--steps", 2000, "--io", io, "--inject", f"die-reading@{200 + attempt}:0"
        )
        with Job(2, words, run) as job:
            job.until_step(1)
            status, output, took = job.wait()
            done = job.last_step()
        seconds.append(took)
        # Whole batches only: those that were exchanged before the fatal one.
        good += status != 0 and "Killed" in output and done <= 200 // 16
    promise(9, f"the reading lane dies ({io}): all gone, no partial batch", good, tries, seconds)


def test_a_gradient_that_is_not_finite_on_one_rank(tmp_path, promise):
    good = 0
    for rank in range(2):
        run = tmp_path / f"stop-{rank}"
        words = shallow(run, "--steps", 40, "--checkpoint-every", EVERY, "--trace")
        done = warm(2, *words, "--inject", f"nan@13:{rank}", check=False)
        text = f"step 13 is not finite, by rank {rank} on {host()}."
        wrote = True
        for number in range(2):
            (line,) = (run / "nonfinite" / f"rank-{number:05d}.jsonl").read_text().splitlines()
            entry, last = json.loads(line), steps_of(run, number)[12]
            wrote &= entry["step"] == 13 and entry["finite"] == (number != rank)
            wrote &= all(entry[k] == last[k] for k in ("sample_ids", "copies", "augment_keys"))
        good += done.returncode == 1 and text in done.stderr and wrote and newest(run).step == 10
    promise(12, "NaN on one rank: all stop at that step, samples and keys written", good, 2)
    run = tmp_path / "skip"
    words = shallow(run, "--steps", 20, "--on-nonfinite", "skip", "--nonfinite-budget")
    skipped = warm(2, *words, 2, "--inject", "nan@5:0,nan@7:1")
    summary = json.loads((run / "summary.json").read_text())
    fine = "2 of at most 2" in skipped.stdout and summary["skipped_updates"] == 2
    fine &= all(np.isfinite(a).all() for a in newest(run).arrays.values())
    beyond = warm(2, *words, 1, "--no-resume", "--inject", "nan@5:0,nan@7:1", check=False)
    fine &= beyond.returncode == 1 and "--nonfinite-budget is 1" in beyond.stderr
    promise(12, "NaN on one rank with --on-nonfinite skip: left out, up to a budget", int(fine), 1)


def test_a_straggler_is_named(tmp_path, promise):
    """Slow reading is injected; slow computing comes from outside: the rank is stopped mostly."""
    run = tmp_path / "input"
    named = warm(2, *small(run, "--steps", 50, "--inject", "slow-input@1:1:0.02"))
    good = f"rank 1 on {host()} is " in named.stdout and " in input " in named.stdout
    promise(13, "a rank that reads slowly: named within 50 steps", int(good), 1)
    run = tmp_path / "compute"
    with Job(2, small(run, "--steps", 2000), run) as job:
        job.until_step(5)
        # Another job in the same folder is refused meanwhile, and disturbs nothing.
        second = warm(2, *small(run, "--steps", 2000), check=False)
        begun = job.last_step()
        victim = job.process(1)
        while not (found := [e for e in metrics(run) if e["event"] == "straggler"]):
            assert job.last_step() < begun + 100
            for _ in range(10):
                victim.suspend()
                time.sleep(0.03)
                victim.resume()
                time.sleep(0.003)
        job.process(0).terminate()
        status, output, _ = job.wait()
    good = found[0]["rank"] == 1 and found[0]["phase"] == "compute" and status == 75
    good &= found[0]["step"] - begun <= 50 and f"rank 1 on {host()} is " in output
    promise(13, "a rank that computes 10 times slower: named within 50 steps", int(good), 1)
    refused = second.returncode == 1 and "another job is using" in second.stderr
    promise(14, "a second job in one run directory is refused", int(refused), 1)


def test_fp16_searches_its_scale_at_no_cost_to_the_budget(tmp_path):
    """The scale begins at 2^15: fifteen overflows lower it to 1, and only the next is an error."""
    run = tmp_path / "run"
    faults = ",".join(f"nan@{step}:0" for step in range(2, 18))
    words = shallow(run, "--steps", 20, "--precision", "fp16", "--on-nonfinite", "skip")
    done = warm(
        1,
        *words,
        "--multiplicity",
        1,
        "--image-size",
        8,
        "--nonfinite-budget",
        1,
        "--inject",
        faults,
    )
    assert done.stdout.count("Update left out, 1 of at most 1") == 1
    assert json.loads((run / "summary.json").read_text())["skipped_updates"] == 16


def test_other_data_than_the_run_began_with(tmp_path, promise):
    """Data that grew between two starts, and data of another origin: refused, both told."""
    folder, run = tmp_path / "data", tmp_path / "run"
    pictures.make_folder(folder, classes=2, per_class=16, low=16, high=24)
    words = ["train", "resnet50-imagenet", "--dataset", "pictures", "--model", "resnet8"]
    words += ["--image-size", 16, "--resize", 16, "--batch-size", 8, "--multiplicity", 2]
    words += ["--run-dir", run, "--data-dir"]
    warm(2, *words, folder, "--steps", 2)
    picture = next((folder / "train" / "class-000").iterdir())
    (picture.parent / f"zz{picture.suffix}").write_bytes(picture.read_bytes())
    grown = warm(2, *words, folder, "--steps", 4, check=False)
    good = grown.returncode == 1 and "samples was 32, now 33" in grown.stderr
    good &= "digest was " in grown.stderr
    (picture.parent / f"zz{picture.suffix}").unlink()
    picture.rename(picture.with_name("other.jpeg"))
    changed = warm(2, *words, folder, "--steps", 4, check=False)
    good &= changed.returncode == 1 and "with other data: digest was " in changed.stderr
    promise(19, "the data changed between two starts: refused, digests and numbers told", good, 1)


def test_a_run_that_is_made_longer(tmp_path):
    """One that ended in the middle of an epoch goes on like one that was never so short."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    words = ["--train-samples", 64, "--steps"]
    warm(1, *shallow(run, *words, 3))
    short = (run / "summary.json").read_text()
    warm(1, *shallow(run, *words, 4))
    # As if the job before, of a version that kept it, had been killed in its last evaluation.
    (run / "summary.json").write_text(short)
    warm(1, *shallow(run, *words, 4))
    assert json.loads((run / "summary.json").read_text())["steps"] == 4
    longer = warm(1, *shallow(run, *words, 6))
    warm(1, *shallow(whole, *words, 6))
    assert "going on at step 4 of 6" in longer.stdout
    assert same_state(newest(run), newest(whole))
    summaries = [json.loads((r / "summary.json").read_text()) for r in (run, whole)]
    assert summaries[0]["steps"] == 6 and summaries[0]["val_loss"] == summaries[1]["val_loss"]
    told = [
        {e["step"]: e["val_loss"] for e in metrics(r) if e["event"] == "epoch"}
        for r in (run, whole)
    ]
    assert {step: told[0][step] for step in (2, 4, 6)} == told[1]


def test_a_run_is_stopped_in_its_evaluation(tmp_path, promise):
    tries = 20
    output = program("evaluating.py", 2, tmp_path, tries, run=warm)
    good = [int(n) for n in re.findall(rf"rank \d: (\d+) of {tries}", output)]
    what = "asked to stop in an evaluation: saved before, over after one more batch at most"
    assert len(good) == 2
    promise(20, what, min(good), tries)
    run, whole = tmp_path / "run", tmp_path / "whole"
    assert same_state(newest(run), newest(whole))
    told = [
        [(e["step"], e["loss"], e["val_loss"]) for e in metrics(r) if e["event"] == "epoch"]
        for r in (run, whole)
    ]
    assert told[0] == told[1] and len(told[0]) == 12


@pytest.fixture(scope="module")
def hung(tmp_path_factory):
    """Rank that hangs → exit status, output, seconds. Nearly all of it is waiting: both at once."""
    begun, jobs, ended = {}, {}, {}
    with ExitStack() as stack:
        for victim in (0, 1):
            run = tmp_path_factory.mktemp("hung") / "run"
            words = shallow(run, "--steps", 2000, "--stall-warning", 3, "--stall-timeout", 12)
            job = jobs[victim] = stack.enter_context(Job(3, [*words, "--multiplicity", "3"], run))
            job.until_step(3)
            job.process(victim).suspend()
            begun[victim] = time.monotonic()
        for victim, job in jobs.items():
            status, output, _ = job.wait()
            ended[victim] = status, output, time.monotonic() - begun[victim]
    return ended


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_hangs_is_named_and_the_job_ended(victim, hung, promise):
    status, output, took = hung[victim]
    text = f"Missing: rank {victim} on {host()}: no answer"
    good = status != 0 and output.count(text) == 2 and took < 60
    promise(15, "a rank hangs: named after --stall-warning, job over", int(good), 1, took)


def test_a_rank_that_waits_for_others_who_work_ends_nothing(promise):
    done = mpirun(2, "python", PROGRAMS / "watching.py", check=False)
    good = done.returncode == 0 and done.stdout.count("has waited") == 2
    good &= "rank 1 on " in done.stderr and "is evaluating, its last sign 0 s ago" in done.stderr
    promise(15, "a rank waits long for one that makes progress: warned of, not ended", int(good), 1)


def test_the_newest_checkpoint_is_corrupt(tmp_path, promise):
    run = tmp_path / "run"
    warm(2, *shallow(run, "--steps", 10, "--checkpoint-every", EVERY))
    path = sorted(checkpoint.folder_of(run).iterdir())[-1]
    content = bytearray(path.read_bytes())
    content[-100] ^= 1  # of the values: a header that is corrupt cannot be read at all
    path.write_bytes(content)
    done = warm(2, *shallow(run, "--steps", 12, "--checkpoint-every", EVERY))
    good = int(f"warning: {path} is corrupt" in done.stdout and "going on at step 5" in done.stdout)
    for path in checkpoint.folder_of(run).iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    none = warm(2, *shallow(run, "--steps", 14), check=False)
    never = none.returncode == 1 and "no checkpoint in" in none.stderr
    promise(11, "the newest checkpoint is corrupt: the one before is used, with a warning", good, 1)
    promise(11, "all checkpoints are corrupt: never a silent start from zero", int(never), 1)
