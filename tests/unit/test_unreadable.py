"""Folders and files that may not be read, and files where folders belong: one line, no trace.

Tests often run as root, who may read everything; so the command runs without that power.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest

from ba_dist.config import COMPUTATION, Config, to_dict

POWERS = "-dac_override,-dac_read_search"
WEAK = ["setpriv", f"--bounding-set={POWERS}", f"--inh-caps={POWERS}"] if os.geteuid() == 0 else []
pytestmark = pytest.mark.skipif(WEAK != [] and not shutil.which("setpriv"), reason="no setpriv")


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """A folder and a file of somebody else's."""
    root = tmp_path_factory.mktemp("others")
    (root / "dir").mkdir()
    (root / "file").write_text("x")
    (root / "run").mkdir()
    (root / "run" / "config.json").write_text("{}")
    (root / "trained" / "checkpoints").mkdir(parents=True)
    facts = {"config": to_dict(Config("test")), "computation": COMPUTATION}
    (root / "trained" / "config.json").write_text(json.dumps(facts))
    hidden = [root / "dir", root / "run" / "config.json", root / "trained" / "checkpoints"]
    for path in hidden:
        path.chmod(0)
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)
    yield root
    for path in hidden:
        path.chmod(0o700)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("data verify imagenet --data-dir dir", "the data directory dir may not be read by you"),
        ("data verify cifar10 --data-dir dir/sub", "dir/sub is in a folder that may not be read"),
        ("data index pictures --data-dir file", "the data directory file is a file"),
        ("data prepare cifar10 --data-dir gone", "the data directory gone is not there"),
        ("audit file", "file is not a run directory: it is a file"),
        ("audit run", "run/config.json cannot be read: Permission denied"),
        ("export dir/sub --output w.npz", "dir/sub/checkpoints cannot be read: Permission denied"),
        ("eval trained", "trained/checkpoints cannot be read: Permission denied"),
        ("export trained --output w.npz", "trained/checkpoints cannot be read: Permission denied"),
        ("plot dir/sub", "permission denied"),
        ("plot curves dir/sub", "permission denied"),
        ("compare dir/sub", "permission denied"),
        ("report file", "file is not a run directory: it has no metrics.jsonl"),
        ("predict dir/sub file", "dir/sub/config.json cannot be read: Permission denied"),
        ("translate dir/sub", "dir/sub/config.json cannot be read: Permission denied"),
        ("analyze variance trained", "trained/checkpoints cannot be read: Permission denied"),
        ("plan quickstart --machine dir/x --nodes 1", "permission denied"),
        ("recipes dir/x.py:f", "the file dir/x.py of the recipe cannot be read: Permission denied"),
        ("sweep quickstart --seed 1,2 --output dir/x", "dir/x/sweep.json: permission denied"),
        ("calibrate --output dir/x", "--output dir/x cannot be written: Permission denied"),
        ("train dir/x.py:f", "the file dir/x.py of the recipe cannot be read: Permission denied"),
        ("train quickstart --config dir/x", "--config dir/x cannot be read: Permission denied"),
        ("submit quickstart --site cpu --nodes 1 --run-dir dir/x", "cannot be written: Permission"),
    ],
)
def test_one_line_on_every_command(paths, words, said):
    command = [*WEAK, sys.executable, "-m", "ba_dist", *words.split()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdin": subprocess.DEVNULL, "capture_output": True}
    done = subprocess.run(command, cwd=paths, env=environment, text=True, timeout=50, **pipes)
    shown = done.stderr.replace(f"{paths}/", "")
    assert done.returncode in (1, 2) and said in shown
    assert len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr
    assert "b'" not in shown and "Errno" not in shown
