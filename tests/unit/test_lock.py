"""One holder at a time, also where the filesystem has no flock; a dead holder is no holder."""

import dataclasses
import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from ba_dist.errors import UserError
from ba_dist.run import run_dir
from ba_dist.storage import lock

MISSING = [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK]

HOLD = """
import sys, pathlib
from ba_dist.run.run_dir import claim
lock = claim(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""

# Each turn: wait for a word, try to take the lock of that folder, say how it went. What it has
# taken it keeps until the next turn is over for all, and then leaves it as a killed process does.
RACE = """
import dataclasses, os, sys, pathlib
from ba_dist.storage import lock
mine = []
for line in sys.stdin:
    try:
        mine.append(lock.hold(pathlib.Path(line.strip())))
        print("held", flush=True)
    except lock.LockHeld:
        print("refused", flush=True)
"""

# Takes the lock from its dead holder, and dies while holding it, again and again.
DIE = """
import os, sys, pathlib
from ba_dist.storage import lock
folder, wins = pathlib.Path(sys.argv[1]), 0
while wins < int(sys.argv[2]):
    child = os.fork()
    if child == 0:
        try:
            lock.hold(folder / "lock")
        except lock.LockHeld:
            os._exit(1)
        inside = folder / "inside"
        os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails if another one is inside
        os.sched_yield()
        inside.unlink()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 1), "two were inside"
    wins += status == 0
print("done")
"""


@pytest.fixture(scope="session")
def without_flock(tmp_path_factory):
    """Errno → an environment in which every flock of a process fails with it."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler is here")
    folder = tmp_path_factory.mktemp("flock")
    (folder / "none.c").write_text(
        "#include <errno.h>\n#include <stdlib.h>\n"
        'int flock(int fd, int what) { errno = atoi(getenv("FLOCK_ERRNO")); return -1; }\n'
    )
    library = folder / "none.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "none.c"], check=True)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    return lambda number: {**clean, "LD_PRELOAD": str(library), "FLOCK_ERRNO": str(number)}


@pytest.fixture
def refused(monkeypatch):
    """In this process flock fails."""

    def fail(number, operation):
        raise OSError(errno.ENOSYS, "no flock")

    monkeypatch.setattr(fcntl, "flock", fail)
    for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_CLUSTER_NAME"):
        monkeypatch.delenv(name, raising=False)


def program(text, environment, *words):
    command = [sys.executable, "-c", text, *map(str, words)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, text=True)


def try_to_claim(folder, environment):
    """What another process that claims this folder says."""
    done = subprocess.run(
        [sys.executable, "-c", HOLD, folder],
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout + done.stderr


def leave(path, **changes):
    """An owner's file as this process would make it, with some changes."""
    owner = dataclasses.asdict(dataclasses.replace(lock.this_process(), **changes))
    path.with_name(f"{path.name}.owner-1").write_text(json.dumps(owner))


@pytest.fixture
def dead():
    """The number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


# --- processes that live and are killed ---------------------------------------------------------


@pytest.mark.parametrize("number", MISSING)
def test_a_killed_holder_does_not_lock_its_own_requeue_out(tmp_path, without_flock, number):
    environment = without_flock(number)
    with program(HOLD, environment, tmp_path / "run") as holder:
        assert holder.stdout.readline() == "held\n"
        said = try_to_claim(tmp_path / "run", environment)
        assert f"another job is using {tmp_path / 'run'} (process {holder.pid} on " in said
        assert f"if that is gone, delete {tmp_path / 'run' / '.lock.owner-1'}" in said
        holder.kill()
        # Dead, and not yet collected by its parent.
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
        assert try_to_claim(tmp_path / "run", environment) == "held\n"
    assert try_to_claim(tmp_path / "run", environment) == "held\n"
    owners = [path.name for path in (tmp_path / "run").iterdir() if "owner" in path.name]
    assert owners == [".lock.owner-3"]


def test_of_several_that_find_a_dead_holder_one_gets_it(tmp_path, without_flock, dead):
    racers = [program(RACE, without_flock(errno.ENOSYS)) for _ in range(3)]
    winners = set()
    for turn in range(200):
        folder = tmp_path / f"{turn}"
        folder.mkdir()
        leave(folder / "lock", process=dead)
        for racer in racers:
            racer.stdin.write(f"{folder / 'lock'}\n")
            racer.stdin.flush()
        said = [racer.stdout.readline() for racer in racers]
        assert sorted(said) == ["held\n", "refused\n", "refused\n"]
        winners.add(said.index("held\n"))
    for racer in racers:
        racer.communicate()
    assert len(winners) > 1  # it was a race


def test_holders_that_die_one_after_another(tmp_path, without_flock):
    """Each takes the lock from a dead one, while others try the same, and is alone with it."""
    racers = [program(DIE, without_flock(errno.ENOLCK), tmp_path, 50) for _ in range(4)]
    assert [racer.communicate(timeout=120)[0] for racer in racers] == ["done\n"] * 4
    owners = [path.name for path in tmp_path.iterdir() if "owner" in path.name]
    assert "lock.owner-200" in owners


def test_who_waits_gets_it_when_the_holder_is_killed(tmp_path, without_flock):
    environment = without_flock(errno.ENOSYS)
    wait = HOLD.replace("claim(", "hold(").replace(
        "run.run_dir import claim", "storage.lock import hold"
    )
    with program(wait, environment, tmp_path / "lock") as holder:
        assert holder.stdout.readline() == "held\n"
        waits = wait.replace(
            "hold(pathlib.Path(sys.argv[1]))", "hold(pathlib.Path(sys.argv[1]), True)"
        )
        with program(waits, environment, tmp_path / "lock") as waiting:
            time.sleep(0.5)
            holder.send_signal(signal.SIGKILL)
            assert waiting.stdout.readline() == "held\n"
            assert holder.wait() == -signal.SIGKILL
            waiting.communicate()


# --- who is gone, and who may be there ----------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "free"),
    [
        ({}, False),  # this process itself
        ({"started": 1}, True),  # its number has been given to another one
        ({"boot": "another"}, True),
        ({"boot": ""}, False),
        ({"space": "pid:[1]"}, False),  # a container on this host: its numbers mean nothing here
        ({"host": "elsewhere"}, False),
        ({"host": "elsewhere", "boot": "another"}, False),
        ({"host": "elsewhere", "job": "7"}, True),
        ({"host": "elsewhere", "job": "8"}, False),
        ({"host": "elsewhere", "job": "7 of that"}, False),
        # A second step beside this one, in the same start of the job.
        ({"host": "elsewhere", "job": "7", "restart": 2}, False),
        ({"job": "7", "restart": 2}, False),
        ({"job": "7"}, True),
    ],
)
def test_whose_lock_is_free(tmp_path, refused, monkeypatch, changes, free):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    leave(tmp_path / ".lock", **{"job": "", "restart": 0, **changes})
    if free:
        run_dir.claim(tmp_path).release()
    else:
        with pytest.raises(UserError, match=r"another job is using .*; if that is gone, delete "):
            run_dir.claim(tmp_path)


def test_what_was_given_back_is_free_for_all(tmp_path, refused):
    for _ in range(3):
        held = lock.hold(tmp_path / "lock")
        with pytest.raises(lock.LockHeld):
            lock.hold(tmp_path / "lock")
        assert held.held
        held.release()
        held.release()
        assert not held.held
    assert {path.name for path in tmp_path.iterdir()} == {"lock", "lock.owner-3"}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"host": "a"}', json.dumps({"process": "1"}), "\xff"]
)
def test_an_owner_that_cannot_be_read_may_be_there(tmp_path, refused, text):
    """It may be about to write its name."""
    (tmp_path / "lock.owner-5").write_text(text, "latin-1")
    with pytest.raises(lock.LockHeld, match="an unknown process holds it; .*delete .*owner-5"):
        lock.hold(tmp_path / "lock")


@pytest.mark.parametrize("process", [0, -1, 2**40, "1"])
def test_numbers_that_no_process_has(tmp_path, refused, process):
    leave(tmp_path / "lock", process=process)
    with pytest.raises(lock.LockHeld, match="an unknown process"):
        lock.hold(tmp_path / "lock")


def test_a_disk_without_room_leaves_no_owner(tmp_path, refused, monkeypatch):
    def full(number):
        raise OSError(errno.ENOSPC, "no room")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="cannot be used: .*no room"):
            run_dir.claim(tmp_path)
    run_dir.claim(tmp_path).release()


def test_an_older_run_is_set_aside_without_the_locks(tmp_path, refused):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError):
        held = run_dir.claim(tmp_path)
        run_dir.set_aside(tmp_path)
        run_dir.claim(tmp_path)
    assert held.held and (tmp_path / "previous-1" / "config.json").exists()


def test_other_errors_of_flock_are_told(tmp_path, monkeypatch):
    def fail(number, operation):
        raise OSError(errno.EIO, "the disk fails")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(UserError, match="cannot be used: .*the disk fails"):
        run_dir.claim(tmp_path)
