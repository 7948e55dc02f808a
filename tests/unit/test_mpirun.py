"""launch/mpirun.sh with an Open MPI that behaves as it has been seen to do now and then."""

import fcntl
import os
import shutil
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

CLONE = Path(__file__).parents[2]
HANGS = """\
#!/bin/bash
if [ "$1" = --version ]; then echo "mpirun (Open MPI) {version}"; exit; fi
trap '' TERM USR2
{said}
while :; do sleep 0.1; done
"""
BANNER = f"""\
{"-" * 74}
prterun detected that one or more processes exited with non-zero status,
thus causing the job to be terminated. The first process to do so was:

   Process name: [prterun-node1-120@1,3]
   Exit code:    75
{"-" * 74}
"""
PRIMARY_4 = f"""\
{"-" * 74}
Primary job  terminated normally, but 1 process returned
a non-zero exit code. Per user-direction, the job has been aborted.
{"-" * 74}
"""
BANNER_4 = f"""\
{"-" * 74}
mpirun detected that one or more processes exited with non-zero status, thus causing
the job to be terminated. The first process to do so was:

  Process name: [[20354,1],0]
  Exit code:    75
{"-" * 74}
"""
UNREACHABLE = "[node1:26611] PMIX ERROR: PMIX_ERR_UNREACH in file /a/pmix_server.c at line 3146\n"
REPORT = f"cat >&2 <<END\n{BANNER}END\n"


@pytest.fixture
def start(tmp_path):
    """Starts launch/mpirun.sh of a clone whose mpirun does what a script says."""
    shutil.copytree(CLONE / "launch", tmp_path / "launch")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    mpirun = tmp_path / "mpirun"
    (tmp_path / ".venv" / ".setup-mpi").write_text(f"{mpirun}\ncpu\n")

    def start(said, version="5.0.11", **env):
        mpirun.write_text(HANGS.format(said=said, version=version))
        mpirun.chmod(0o755)
        words = [tmp_path / "launch" / "mpirun.sh", "-n", "2", "--", "train", "quickstart"]
        env = {"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path), **env}
        return subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True)

    return start


def test_a_launcher_that_has_reported_the_end_and_stays_is_killed(start):
    begun = time.monotonic()
    job = start(REPORT, BA_DIST_LINGER_SECONDS="1")
    _, said = job.communicate(timeout=60)
    assert job.returncode == 75, said
    assert time.monotonic() - begun < 20


@pytest.mark.faults
def test_a_launcher_that_does_not_stop_when_asked_is_killed(start):
    job = start("echo ready >&2", BA_DIST_STOP_SECONDS="1")
    assert job.stderr.readline() == "ready\n"
    job.terminate()
    _, said = job.communicate(timeout=60)
    assert job.returncode == 128 + 9, said


def test_a_launcher_that_stays_when_all_its_ranks_are_gone_is_killed(start):
    """It has said nothing; the ranks are dead, and it does not look at them."""
    dead = "exec python3 -c 'import os, time; os.fork() or os._exit(3); time.sleep(1000)'"
    job = start(dead, BA_DIST_LINGER_SECONDS="2")
    _, said = job.communicate(timeout=60)
    assert job.returncode == 128 + 9, said


def test_a_launcher_that_dies_after_it_has_reported_the_status_is_told_in_one_line(start):
    job = start(REPORT + "kill -ABRT $$")
    _, said = job.communicate(timeout=60)
    assert job.returncode == 75
    assert said == (
        "launch/mpirun.sh: mpirun died of SIGABRT after the ranks had ended with status 75\n"
    )


@pytest.mark.faults
def test_what_a_launcher_leaves_behind_when_it_dies_is_ended(start, tmp_path):
    """A daemon in a session of its own holds the streams open; the report was cut short."""
    daemon = f"setsid bash -c 'echo $$ > {tmp_path}/pid; while :; do sleep 9; done' &"
    cut = f"{daemon}\nwhile [ ! -s {tmp_path}/pid ]; do sleep 0.1; done"
    job = start(f"{cut}\necho {'-' * 74} >&2\nkill -SEGV $$")
    _, said = job.communicate(timeout=60)
    assert job.returncode == 128 + 11
    assert said == (
        f"{'-' * 74}\nlaunch/mpirun.sh: mpirun died of SIGSEGV without saying how the ranks"
        " ended; all of them are ended\n"
    )
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


@pytest.mark.parametrize(
    ("version", "banner"), [("5.0.11", BANNER), ("4.1.4", PRIMARY_4 + BANNER_4)]
)
@pytest.mark.parametrize(
    ("before", "status", "after"),
    [
        ("", 75, ""),
        ("ba-dist: no such recipe\n", 2, ""),
        ("", 2, "{banner}"),  # nobody has said why
        ("ba-dist: nowhere is not a run directory\n", 1, ""),
        ("Traceback: of a script\n", 1, "{banner}"),
        ("ba-dist: no such recipe\n", 9, "{banner}"),
    ],
)
def test_the_banner_is_left_out_where_the_ranks_have_spoken(
    start, version, banner, before, status, after
):
    banner = banner.replace("75", str(status))
    rest = f"{'-' * 74}\nprterun has lost its way.\n\tno newline"
    job = start(f"cat >&2 <<'END'\n{before}{banner}{rest}\nEND\nexit {status}", version)
    _, said = job.communicate(timeout=60)
    assert (job.returncode, said) == (status, f"{before}{after.format(banner=banner)}{rest}\n")


@pytest.mark.parametrize("status", [2, 9])
def test_a_rank_out_of_reach_is_told_only_where_nobody_has_said_why_it_ended(start, status):
    banner = BANNER.replace("75", str(status))
    spoken = "ba-dist: no such recipe\n"
    job = start(f"cat >&2 <<'END'\n{spoken}{UNREACHABLE}{banner}{UNREACHABLE}END\nexit {status}")
    _, said = job.communicate(timeout=60)
    assert said == (spoken if status == 2 else spoken + UNREACHABLE + banner + UNREACHABLE)


@pytest.mark.parametrize("status", [2, 9])
def test_the_first_word_of_open_mpi_4_waits_until_all_ranks_have_ended(start, status):
    job = start(
        f"echo 'ba-dist: a typo' >&2; cat >&2 <<'END'\n{PRIMARY_4}END\nsleep 2; exit {status}",
        "4.1.4",
    )
    _, said = job.communicate(timeout=60)
    assert said == "ba-dist: a typo\n" + (PRIMARY_4 if status == 9 else "")


def test_what_a_launcher_inside_of_a_rank_says_is_not_the_status(start):
    job = start(f"cat >&2 <<'END'\n{BANNER_4}END\nexit 0", "4.1.4")
    _, said = job.communicate(timeout=60)
    assert (job.returncode, said) == (0, "")  # 75 is said to be a stop, which needs no banner


def test_a_slow_reader_of_a_stream_that_does_not_block_gets_all():
    """As a program beside the launcher may have set the stream."""
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    script = "from launcher_errors import write; write(b'x' * 300_000)"
    with subprocess.Popen(
        [sys.executable, "-B", "-c", script],
        stderr=writes,
        env={"PYTHONPATH": str(CLONE / "launch")},
    ) as child:
        os.close(writes)
        full = (1 << 16).to_bytes(4, sys.byteorder)
        while child.poll() is None and fcntl.ioctl(reads, termios.FIONREAD, bytes(4)) != full:
            time.sleep(0.01)
        with os.fdopen(reads, "rb") as stream:
            assert len(stream.read()) == 300_000


def test_errors_come_byte_for_byte_and_at_once(start):
    # But for zero bytes, of which Open MPI writes some.
    job = start(r"printf '\xff\0 1/2\r 2/2\r----' >&2; sleep 20; exit 3")
    os.set_blocking(job.stderr.fileno(), True)
    said, begun = b"", time.monotonic()
    while len(said) < 14:
        said += os.read(job.stderr.fileno(), 100)
    job.kill()
    assert (said, time.monotonic() - begun < 10) == (b"\xff 1/2\r 2/2\r----", True)


@pytest.mark.faults
def test_a_launcher_whose_ranks_run_is_left_alone(start):
    job = start("echo ready >&2; sleep 6; exit 3", BA_DIST_LINGER_SECONDS="2")
    _, said = job.communicate(timeout=60)
    assert (job.returncode, said) == (3, "ready\n")


def test_a_request_at_the_moment_of_the_end_loses_no_status():
    program = "trap 'exit 75' USR2; echo up; read -t 0.1 <><(:); exit 3"
    supervise = CLONE / "launch" / "supervise.py"
    line = [sys.executable, "-IS", supervise, "x", "prterun", "USR2", "TERM"]
    found = []
    for number in range(12):
        quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with subprocess.Popen([*line, "bash", "-c", program], **quiet) as job:
            job.stdout.readline()
            time.sleep(0.05 + 0.01 * number)
            job.terminate()
            found.append(job.wait(timeout=20))
    assert set(found) <= {3, 75}, found


def test_the_next_launcher_gets_a_folder_of_its_own(start, tmp_path):
    """Open MPI 5 does not start in what a killed one with the same process id has left."""
    (tmp_path / "tmp").mkdir()
    folder = "$PRTE_MCA_prte_local_tmpdir_base"
    tell = f'echo {folder} >> {tmp_path}/folders; [ -d "{folder}" ]'
    for _ in range(2):
        job = start(f"{tell} && exit 3", TMPDIR=str(tmp_path / "tmp"))
        job.communicate(timeout=60)
        assert job.returncode == 3
    first, second = (tmp_path / "folders").read_text().split()
    assert first != second
    assert not list((tmp_path / "tmp").iterdir())
    job = start(f"{tell} || exit 4", TMPDIR=str(tmp_path), PRTE_MCA_prte_tmpdir_base="/own")
    job.communicate(timeout=60)
    assert job.returncode == 4
