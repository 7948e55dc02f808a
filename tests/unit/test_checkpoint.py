"""Checkpoints survive what happens to files: cuts, flipped bits, full disks, stray neighbours."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ba_dist.errors import CheckpointError
from ba_dist.run import checkpoint
from ba_dist.run.checkpoint import Checkpoint

FACTS = {"position": {"step": 7, "epoch_loss": 0.1 + 0.2}, "name": "Größe", "none": None}


def arrays() -> checkpoint.Arrays:
    """Every shape and type that a run saves, and values that text would spoil."""
    noise = np.random.default_rng(0)
    return {
        "model/conv/kernel": noise.standard_normal((3, 3, 4, 8)).astype(np.float32),
        "model/conv/transposed": noise.standard_normal((5, 7)).T,
        "model/seed_state": np.array([1, 2], np.uint32),
        "loss_scale": np.float32(2.0**-149),
        "good_steps": np.array(2**53 + 1, np.int64),
        "special": np.array([np.nan, np.inf, -0.0], np.float64),
        "empty": np.zeros((0, 4), np.float32),
    }


def save(folder: Path, step: int, keep: int = 2) -> Path:
    return checkpoint.save(folder, Checkpoint(step, arrays(), FACTS), keep)


def steps(folder: Path) -> list[int]:
    return sorted(int(path.stem[5:]) for path in folder.iterdir())


def test_round_trip_bit_for_bit(tmp_path):
    save(tmp_path, 7)
    found, complaints = checkpoint.newest(tmp_path)
    assert found is not None and complaints == []
    assert (found.step, found.facts) == (7, FACTS)
    assert found.arrays.keys() == arrays().keys()
    for name, array in arrays().items():
        read = found.arrays[name]
        assert (read.shape, read.dtype) == (array.shape, array.dtype), name
        assert read.tobytes() == array.tobytes(), name


def test_saving_the_same_state_gives_the_same_file(tmp_path):
    turned = dict(reversed(arrays().items()))
    other = checkpoint.save(tmp_path / "b", Checkpoint(7, turned, FACTS), 1)
    assert save(tmp_path / "a", 7).read_bytes() == other.read_bytes()


def test_empty_or_missing_folder(tmp_path):
    assert checkpoint.newest(tmp_path / "none") == (None, [])
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        checkpoint.newest_good(tmp_path)


def test_every_cut_is_refused(tmp_path):
    whole = save(tmp_path, 7).read_bytes()
    for length in [*range(0, len(whole), 41), len(whole) - 1]:
        path = tmp_path / "step-00000008.safetensors"
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="step-00000008"):
            checkpoint.load(path)
    found, complaints = checkpoint.newest(tmp_path)
    assert found is not None and found.step == 7
    assert len(complaints) == 1 and "step-00000008" in complaints[0]


def test_every_flipped_bit_is_refused(tmp_path):
    """Of the header with its facts as well as of the values."""
    small = Checkpoint(7, {"b": np.float32(3.5), "a": np.arange(4, dtype=np.int64)}, {"step": 7})
    whole = checkpoint.save(tmp_path, small, 1).read_bytes()
    path = tmp_path / "step-00000008.safetensors"
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << (position * 5 % 8)
        path.write_bytes(flipped)
        try:
            found = checkpoint.load(path)
        except CheckpointError:
            continue
        # The only flips that may pass say the same in other characters, as a header's padding does.
        assert (found.step, found.facts) == (7, {"step": 7}), position
        assert found.arrays.keys() == small.arrays.keys(), position
        assert all(np.array_equal(found.arrays[k], small.arrays[k]) for k in small.arrays), position


def test_other_safetensors_files_are_refused(tmp_path):
    import safetensors.numpy

    path = tmp_path / "step-00000001.safetensors"
    safetensors.numpy.save_file({"a": np.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="not a checkpoint of ba_dist"):
        checkpoint.load(path)


def test_keeps_the_newest(tmp_path):
    for step in (1, 2, 9, 10, 100):
        save(tmp_path, step, keep=3)
    assert steps(tmp_path) == [9, 10, 100]
    save(tmp_path, 100, keep=3)
    assert steps(tmp_path) == [9, 10, 100]


def test_a_step_of_nine_digits_is_newer(tmp_path):
    save(tmp_path, 99_999_999)
    save(tmp_path, 100_000_000)
    found, _ = checkpoint.newest(tmp_path)
    assert found is not None and found.step == 100_000_000


def test_a_damaged_newer_file_does_not_push_out_good_ones(tmp_path):
    """A run that went back from a damaged step 20 to 10 must not lose what it saves at 12."""
    save(tmp_path, 10, keep=1)
    (tmp_path / "step-00000020.safetensors").write_bytes(b"torn")
    save(tmp_path, 12, keep=1)
    assert steps(tmp_path) == [12, 20]
    found, complaints = checkpoint.newest(tmp_path)
    assert found is not None and found.step == 12 and len(complaints) == 1


def test_other_peoples_files_stay_and_dead_ones_go(tmp_path):
    mine = tmp_path / "step-best.safetensors"
    mine.write_bytes(b"mine")
    (tmp_path / ".step-00000003.safetensors.tmp").write_bytes(b"a job was killed here")
    save(tmp_path, 4, keep=1)
    assert {path.name for path in tmp_path.iterdir()} == {mine.name, "step-00000004.safetensors"}


WRITE_BEYOND = """
import numpy as np, resource, signal, sys
from pathlib import Path
from ba_dist.run.checkpoint import Checkpoint, save
folder, handler, limit = Path(sys.argv[1]), signal.Handlers[sys.argv[2]], int(sys.argv[3])
save(folder, Checkpoint(1, {"a": np.zeros(1000)}, {}), 1)
signal.signal(signal.SIGXFSZ, handler)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
save(folder, Checkpoint(2, {"a": np.zeros(100_000)}, {}), 1)
"""


@pytest.mark.parametrize("handler", ["SIG_IGN", "SIG_DFL"], ids=["full disk", "killed"])
def test_a_write_that_fails_anywhere_leaves_the_previous_checkpoint(tmp_path, handler, promise):
    """A limit on file size stands in for the disk, and for the moment of the kill."""
    limits = np.linspace(0, 800_000, 10, dtype=int)
    for limit in limits:
        folder = tmp_path / f"{limit}"
        folder.mkdir()
        command = [sys.executable, "-c", WRITE_BEYOND, str(folder), handler, str(limit)]
        done = subprocess.run(command, capture_output=True, text=True)
        if handler == "SIG_IGN":
            assert done.returncode == 1 and "OSError" in done.stderr
            assert [path.name for path in folder.iterdir()] == ["step-00000001.safetensors"]
        else:
            assert done.returncode == -signal.SIGXFSZ
        found, complaints = checkpoint.newest(folder)
        assert found is not None and found.step == 1 and complaints == []
        save(folder, 2, keep=1)
        assert [path.name for path in folder.iterdir()] == ["step-00000002.safetensors"]
    what = "no room" if handler == "SIG_IGN" else "a kill"
    text = f"{what} at a write of a checkpoint: the one before still loads"
    promise(10, text, len(limits), len(limits))


class Variable:
    """The two things that `restore` asks of a tf.Variable."""

    def __init__(self, value):
        self.value = np.asarray(value)
        self.shape = self.value.shape

    def assign(self, value):
        self.value = value


def test_restore_sets_every_variable(tmp_path):
    save(tmp_path, 1)
    state = {name: Variable(np.zeros_like(a)) for name, a in arrays().items()}
    checkpoint.restore(checkpoint.newest_good(tmp_path).arrays, state)
    for name, array in arrays().items():
        assert state[name].value.tobytes() == array.tobytes(), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("b"), "only the model has b"),
        (lambda a: a.update(c=np.zeros(2)), "only the checkpoint has c"),
        (lambda a: a.update(b=np.zeros((1, 2))), r"b has shape \(1, 2\), the model expects \(2,\)"),
    ],
)
def test_restore_refuses_what_does_not_fit_and_sets_nothing(change, message):
    given = {"a": np.ones(2), "b": np.ones(2)}
    change(given)
    state = {"a": Variable(np.zeros(2)), "b": Variable(np.zeros(2))}
    with pytest.raises(CheckpointError, match=message):
        checkpoint.restore(given, state)
    assert not any(variable.value.any() for variable in state.values())


def test_the_best_one_stays_beside_the_newest_and_is_chosen_by_name(tmp_path):
    save(tmp_path, 10)
    with pytest.raises(CheckpointError, match="no checkpoint best; there are: 10; train with --k"):
        checkpoint.choose(tmp_path, "best")
    checkpoint.save_best(tmp_path, Checkpoint(10, arrays(), FACTS))
    for step in (20, 30, 40):
        save(tmp_path, step)
    assert checkpoint.names(tmp_path) == ["best", "30", "40"]
    found = {which: checkpoint.choose(tmp_path, which).step for which in ("best", "newest", "30")}
    assert found == {"best": 10, "newest": 40, "30": 30}
    checkpoint.save_best(tmp_path, Checkpoint(40, arrays(), FACTS))
    assert checkpoint.choose(tmp_path, "best").step == 40
    for which in ("10", "last", "-1"):
        with pytest.raises(CheckpointError, match=which):
            checkpoint.choose(tmp_path, which)


def test_a_corrupt_best_one_is_told_and_does_not_stand_for_the_newest(tmp_path):
    save(tmp_path, 10)
    (tmp_path / "best.safetensors").write_bytes(b"torn")
    assert checkpoint.choose(tmp_path).step == 10
    with pytest.raises(CheckpointError, match="best.safetensors cannot be read"):
        checkpoint.choose(tmp_path, "best")


def test_an_older_one_is_not_taken_without_a_word(tmp_path, capsys):
    save(tmp_path, 10)
    assert checkpoint.choose(tmp_path).step == 10 and capsys.readouterr().err == ""
    (tmp_path / "step-00000020.safetensors").write_bytes(b"torn")
    assert checkpoint.choose(tmp_path).step == 10
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith(f"warning: {tmp_path / 'step-00000020.safetensors'} cannot be read")
    assert err.endswith("; trying the one before\n")
