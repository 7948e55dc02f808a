"""What a rank loads."""

import os
import subprocess
import sys

import pytest

from ba_dist import runtime
from ba_dist.runtime import QUIET

PROGRAM = """
import gc, sys
from ba_dist import runtime
runtime.prepare(0, 1, 1)
kept = gc.get_freeze_count()
runtime.prepare(0, 1, 1)  # of a second run in this process, whose garbage is not kept
assert gc.isenabled() and gc.get_freeze_count() <= kept > 100_000
from ba_dist.data import augment
print(sorted({"matplotlib", "scipy", "sklearn", "keras"} & set(sys.modules)))
import matplotlib.pyplot, scipy.special, sklearn.base
"""


def test_a_rank_loads_neither_plots_nor_statistics_but_may_later():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "['keras']\n"), done.stderr


@pytest.mark.parametrize(
    ("given", "seen"), [({}, "^ofi,openib\n"), ({"OMPI_MCA_btl": "self,sm"}, "self,sm\n")]
)
def test_open_mpi_leaves_components_out_unless_told(given, seen):
    program = (
        "import os; from ba_dist.comm import start; start(); print(os.environ['OMPI_MCA_btl'])"
    )
    clean = {name: value for name, value in os.environ.items() if name != "OMPI_MCA_btl"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=clean | given, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, seen), done.stderr


CHATTER = """
import ba_dist
ba_dist.start()
import tensorflow as tf
sum(1 for _ in tf.data.Dataset.range(3).filter(lambda i: i > 0).batch(1))  # tells its end
looked = tf.function(lambda i: i + 1)
for i in range(8):
    looked(i)  # traced again
print(tf.get_logger().level)
"""


@pytest.mark.parametrize(("given", "quiet"), [({}, True), ({"TF_CPP_MIN_LOG_LEVEL": "0"}, False)])
def test_a_script_that_has_started_hears_nothing_of_tensorflow_unless_it_asks(given, quiet):
    clean = {name: value for name, value in os.environ.items() if name not in QUIET}
    done = subprocess.run(
        [sys.executable, "-c", CHATTER], env=clean | given, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "40\n"), done.stderr
    assert (done.stderr == "") == quiet, done.stderr


def test_what_is_left_out_of_standard_error_and_what_comes_at_the_end(capfd):
    with pytest.raises(ImportError), runtime._without(rb"WARNING: All|I0000 "):
        os.write(2, b"WARNING: All log messages\nE0000 no driver\nI0000 oneDNN is on\n")
        os.write(2, b"a library is missing\n")
        raise ImportError
    os.write(2, b"I0000 later\n")
    assert capfd.readouterr().err == "E0000 no driver\na library is missing\nI0000 later\n"


def test_a_log_level_of_a_persons_own_is_respected():
    program = (
        "import sys; from ba_dist import runtime; runtime.quiet(); runtime.quiet();"
        " print(sum(isinstance(finder, runtime._Silently) for finder in sys.meta_path))"
    )
    for level, waiting in ((None, "1"), ("0", "0")):
        clean = {name: value for name, value in os.environ.items() if name not in QUIET}
        given = {} if level is None else {"TF_CPP_MIN_LOG_LEVEL": level}
        done = subprocess.run(
            [sys.executable, "-c", program], env=clean | given, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout.strip()) == (0, waiting), done.stderr


@pytest.mark.parametrize(
    ("mine", "others", "share"),
    [
        ("0-7", ["8-15"], 8),  # each is bound, as by a bare srun --cpu-bind=cores
        ("0-15", ["0-15"], 8),
        ("0-15", ["0-15", "0-15"], 5),
        ("0", ["0", "1", "1"], 1),
        ("0-3", ["0-3", "4-7", "4-7"], 2),  # two ranks to a socket
    ],
)
def test_cores_are_divided_among_the_ranks_that_may_use_the_same(mine, others, share):
    def numbers(text):
        first, _, last = text.partition("-")
        return frozenset(range(int(first), int(last or first) + 1))

    assert runtime.share_of(numbers(mine), [numbers(text) for text in (mine, *others)]) == share
