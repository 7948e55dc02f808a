"""Every source in every mode: the same batches, at a different price; and what is damaged."""

import hashlib
import json
import shutil

import numpy as np
import pytest

from ba_dist.data.sources.tfrecord import frame
from ba_dist.rules.order import Permutation
from tests import pictures
from tests.parallel.ranks import WIDE, WORLDS, mpirun, program, warm

CLASSES, EACH = 3, 50
STEPS, B = 5, 8  # of programs/reading.py: steps, and samples a step and group
ROTTEN = tuple(range(5, 150, 10))
IOS = ("replicate", "broadcast", "cooperative")
MODES = [f"{io} {exchange}" for io in IOS for exchange in ("encoded", "decoded")]


def damage(path, numbers):
    """Changes one byte in the middle of these records of a TFRecord file."""
    data = bytearray(path.read_bytes())
    start = 0
    for number in range(max(numbers) + 1):
        length = int.from_bytes(data[start : start + 8], "little")
        if number in numbers:
            data[start + 12 + length // 2] ^= 1
        start += len(frame(b"")) + length
    path.write_bytes(data)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The same 150 training pictures in every form; and what they hold."""
    folder = tmp_path_factory.mktemp("pictures")
    makers = {
        "folder": pictures.make_folder,
        "tfrecord": pictures.make_tfrecords,
        "array_record": pictures.make_array_record,
    }
    for form, make in makers.items():
        made = make(folder / form, CLASSES, EACH, low=40, high=80)
    shutil.copytree(folder / "tfrecord", folder / "rotten")
    halves = [n for n in ROTTEN if n < 75], [n - 75 for n in ROTTEN if n >= 75]
    for shard, numbers in enumerate(halves):
        damage(folder / "rotten" / f"train-{shard:05d}-of-00002", numbers)
    return folder, made["train"]


def expected_digest(samples, ids):
    """The digest of a batch, from the pictures themselves."""
    digest = hashlib.sha256(np.array([samples[i].label for i in ids], np.int64).tobytes())
    for i in ids:
        digest.update(repr(samples[i].pixels.shape).encode())
        digest.update(samples[i].pixels.tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module", params=WORLDS)
def results(request, data, tmp_path_factory):
    """What the ranks of one world have read."""
    out = tmp_path_factory.mktemp("out")
    program("reading.py", request.param, data[0], out)
    return [json.loads((out / f"rank-{r}.json").read_text()) for r in range(request.param)]


@pytest.mark.mpi
@pytest.mark.parametrize(
    "name", ["folder", "tfrecord", "array_record", "synthetic-jpeg", "arrays", "rotten"]
)
def test_modes_give_the_same_batches(results, name, data):
    _, samples = data
    by_group = {}
    for result in results:
        modes = result["sources"][name]
        assert list(modes) == MODES
        for mode in modes.values():
            assert mode["batches"] == modes[MODES[0]]["batches"]
        by_group.setdefault(result["group"], modes[MODES[0]]["batches"])
        assert by_group[result["group"]] == modes[MODES[0]]["batches"]
    if name in ("folder", "tfrecord", "array_record", "rotten"):
        for _, ids, labels, digest, _ in by_group[0]:
            assert labels == [samples[i].label for i in ids]
            assert digest == expected_digest(samples, ids)


@pytest.mark.mpi
@pytest.mark.parametrize("name", ["folder", "tfrecord", "array_record", "synthetic-jpeg", "arrays"])
def test_a_group_shares_reads_and_decodes(results, name):
    size = results[0]["group_size"]
    samples = STEPS * B * len(results) // size
    prices = {
        "replicate encoded": (size, size),
        "replicate decoded": (size, size),
        "broadcast encoded": (1, size),
        "broadcast decoded": (1, 1),
        "cooperative encoded": (1, 1),
        "cooperative decoded": (1, 1),
    }
    total = {}
    for mode, (reads, decodes) in prices.items():
        costs = [result["sources"][name][mode] for result in results]
        sums = {key: sum(c[key] for c in costs) for key in costs[0] if key != "batches"}
        assert sums["records_read"] == reads * samples
        assert sums["records_decoded"] == decodes * samples
        assert (sums["bytes_sent"] > 0) == (size > 1 and not mode.startswith("replicate"))
        total[mode] = sums
    if name in ("folder", "tfrecord"):
        whole = total["replicate encoded"]["bytes_read"]
        for mode, (reads, _) in prices.items():
            assert total[mode]["bytes_read"] * size == whole * reads
            # The kernel also counts what MPI itself reads: under a few kB a rank.
            seen = total[mode]["kernel_bytes"] - total[mode]["bytes_read"]
            assert 0 <= seen < 20_000 * len(results), mode


@pytest.mark.mpi
def test_a_corrupt_sample_is_replaced_on_every_lane(results):
    """By the sample in the same place of a later step, in every mode alike."""
    replaced = {}
    for result in results:
        for _, ids, _, _, pairs in result["sources"]["rotten"][MODES[0]]["batches"]:
            replaced |= dict(pairs)
            assert not set(ids) & set(ROTTEN)
            assert len(set(ids)) == B
    assert set(replaced) <= set(ROTTEN) and replaced
    for mode in MODES:
        counted = sum(r["sources"]["rotten"][mode]["records_skipped"] for r in results)
        groups = len(results) // results[0]["group_size"]
        lanes = {r["group"]: r["sources"]["rotten"][mode]["batches"] for r in results}
        met = sum(len(batch[4]) for batches in lanes.values() for batch in batches)
        assert counted == met and len(lanes) == groups


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("ranks", "on_a_node"),
    [(6, 2), (3, 2), (2, 1), pytest.param(6, 3, marks=WIDE)],
)
def test_records_go_between_nodes_and_samples_inside_of_them(ranks, on_a_node, data, tmp_path):
    """The same batches; each record is read once by a group, and decoded once by each node."""
    program("reading.py", ranks, data[0], tmp_path, on_a_node)
    results = [json.loads((tmp_path / f"rank-{r}.json").read_text()) for r in range(ranks)]
    size = results[0]["group_size"]
    nodes = size // on_a_node if size % on_a_node == 0 else size  # uneven: on every lane
    for name in ("folder", "tfrecord", "arrays", "rotten"):
        found = [result["sources"][name] for result in results]
        for modes in found:
            encoded = modes["cooperative encoded"]["batches"]
            assert (
                encoded
                == modes["cooperative decoded"]["batches"]
                == found[0]["cooperative encoded"]["batches"]
            )
            assert modes["chosen"] == found[0]["chosen"]
            assert sorted(modes["chosen"]["milliseconds"]) == ["decoded", "encoded"]
            if name in ("folder", "tfrecord", "rotten"):
                for _, ids, labels, digest, _ in encoded:
                    assert labels == [data[1][i].label for i in ids]
                    assert digest == expected_digest(data[1], ids)
        if name != "rotten":
            costs = [modes["cooperative encoded"] for modes in found]
            sums = {key: sum(c[key] for c in costs) for key in costs[0] if key != "batches"}
            assert sums["records_read"] == STEPS * B
            assert sums["records_decoded"] == nodes * STEPS * B
            assert sums["bytes_sent"] > 0


TRAIN = ["train", "resnet50-imagenet", "--model", "resnet8", "--image-size", 32, "--steps", 12]
SMALL = ["--batch-size", 12, "--multiplicity", 2, "--lr-scale", 0.1, "--val-samples", 20]


@pytest.mark.mpi
@pytest.mark.parametrize("io", IOS)
def test_training_stops_at_a_corrupt_record(io, data, tmp_path):
    words = [*TRAIN, *SMALL, "--data-dir", data[0] / "rotten", "--io", io]
    done = mpirun(2, *words, "--run-dir", tmp_path / "run", check=False, timeout=120)
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if "ba-dist: rank" in line]
    assert len(said) == 1, done.stderr
    assert "-of-00002 at byte " in said[0] and "--on-corrupt skip" in said[0]
    assert "Traceback" not in done.stderr


@pytest.mark.mpi
def test_training_skips_within_its_budget(data, tmp_path):
    words = [*TRAIN, *SMALL, "--data-dir", data[0] / "rotten", "--on-corrupt", "skip", "--trace"]
    done = warm(4, *words, "--run-dir", tmp_path / "run")
    assert "corrupt records" in done.stdout
    skipped = json.loads((tmp_path / "run" / "summary.json").read_text())["input"]
    met = len(set(ROTTEN) & set(Permutation(CLASSES * EACH, 0, 0)(np.arange(12 * 12)).tolist()))
    assert skipped["records_skipped"] == met
    audit = warm(1, "audit", tmp_path / "run")
    assert "clean" in audit.stdout
    over = warm(
        2, *words, "--run-dir", tmp_path / "over", "--corrupt-budget", 0, check=False, timeout=120
    )
    assert over.returncode == 1
    assert "in this epoch, --corrupt-budget is 0" in over.stderr


@pytest.mark.mpi
@pytest.mark.smoke
@pytest.mark.parametrize("form", ["folder", "tfrecord"])
def test_the_imagenet_recipe_on_four_ranks(form, data, tmp_path):
    """ResNet-50 with M = 4 on pictures of varying size; only sizes are smaller than the paper's."""
    words = ["train", "resnet50-imagenet", "--data-dir", data[0] / form, "--multiplicity", 4]
    sizes = ["--steps", 3, "--batch-size", 8, "--image-size", 64, "--resize", 72, "--trace"]
    # The network is the recipe's once; the forms differ in what is read.
    network = ["--model", "resnet8"] if form == "tfrecord" else []
    done = warm(4, *words, *sizes, *network, "--run-dir", tmp_path / "run", "--val-samples", 8)
    assert {"folder": "folders", "tfrecord": "TFRecord shards"}[form] in done.stdout
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["steps"], summary["samples"], summary["instances"]) == (3, 24, 96)
    assert summary["input"]["records_decoded"] == 24 <= summary["input"]["records_read"] + 1
    assert "clean" in warm(1, "audit", tmp_path / "run").stdout


@pytest.mark.mpi
def test_threads_draw_samples_in_memory_as_the_flag_says_and_one_reads_them():
    digests = set()
    for flag in (3, 1, 0):
        read, drawn, digest = program("threads.py", 1, flag, run=warm).split()
        assert (read, drawn) == ("False", str(flag > 1)), flag
        digests.add(digest)
    assert len(digests) == 1
