"""Scripts of people's own on several ranks: the same pixels, the same errors, leaving unequally."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parallel.ranks import PROGRAMS, ROOT, mpirun, program, warm


@pytest.mark.mpi
def test_own_augmentations_and_evaluation_are_the_same_on_any_number_of_ranks():
    first, *others = (program("own_script.py", ranks, "same", run=warm) for ranks in (1, 2, 4))
    found = re.findall(r"(\w+) [0-9a-f]{64} (\d+)\.000000000 203\.0\n", first)
    assert found[:2] == [("arrays", "29"), ("objects", "29")] and found[2][0] == "named"
    assert others == [first, first]


@pytest.mark.mpi
def test_wrong_arguments_are_refused_on_all_ranks():
    told = re.findall(r"rank (\d) ([\w ]+): (.*)", program("own_script.py", 2, "wrong", run=warm))
    here, there = ({name: text for r, name, text in told if r == rank} for rank in "01")
    assert here == there
    for name, words in {
        "one rank has floats": "rank 1: images are float64; expected uint8",
        "shards": "[102, 9, 8, 3] on rank 0 are [101, 9, 8, 3] on rank 1; give all images to every",
        "another seed": "seed differs between ranks: 0 on rank 0, 1 on rank 1",
        "other steps": "steps differs between ranks: 3 on rank 0, 4 on rank 1",
        "negative steps": "steps is -3; it must be at least 1",
        "evaluation": "labels hold 7; expected 0 … 6",
        "few": "images are 1, fewer than the 2 ranks",
    }.items():
        assert words in here.pop(name)
    assert not here


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("words", "message"),
    [
        # One group: the batches of both ranks depend on each other.
        (
            ("leave", 2),
            r"rank 0 on \S+ left its batches after step 3, but rank 1 on \S+ (took|wait)",
        ),
        # Two groups: rank 1 waits for rank 0 in a collective of its own.
        (("leave", 1), r"rank 0 on \S+ left its batches after step 3, but rank 1 on \S+ took the"),
        (("held", 2), r"rank 1 on \S+ has waited \d s .* rank 0 on \S+ took the batch of step 3 "),
    ],
)
def test_ranks_that_leave_after_different_steps_are_named(words, message):
    done = warm(2, "python", PROGRAMS / "own_script.py", *words, check=False)
    assert done.returncode == 1 and "went on" not in done.stdout
    assert re.search(message, done.stderr), done.stderr
    assert "stall_timeout is 2 s" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.mpi
def test_horovodrun_starts_ranks_with_the_flags_of_the_documentation(tmp_path):
    """It takes the mpirun of the environment that is activated."""
    if not Path(sys.prefix, "bin", "mpirun").exists():
        pytest.skip("another MPI than the packaged one, which the page is about")
    page = (ROOT / "docs" / "install.md").read_text()
    lines = page.split("\n## horovodrun\n")[1].split("```\n")[1].replace("ENV", sys.prefix)
    script = "from mpi4py.MPI import COMM_WORLD as w\nprint(f'rank {w.rank} of {w.size}')\n"
    (tmp_path / "my_script.py").write_text(script)
    command = ["bash", "-ec", lines]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert sorted(re.findall(r"rank \d of \d", done.stdout)) == ["rank 0 of 2", "rank 1 of 2"]


@pytest.mark.mpi
def test_a_mistake_that_nobody_catches_is_one_message_without_a_trace():
    done = mpirun(2, "python", PROGRAMS / "own_script.py", "uncaught", check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.count("ba-dist: cutout is -1; it must be at least 0\n") == 1
