"""Hostile input: no code runs from data or checkpoints."""

import ast
import pickle
from pathlib import Path

import numpy as np
import pytest

import ba_dist
from ba_dist.errors import CheckpointError
from ba_dist.run import checkpoint

HOUSE = Path(ba_dist.__file__).parent

# Names that run what they read, or build a shell's text.
FORBIDDEN = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {"eval", "exec", "system", "popen", "load_model", "extractall"}


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_in_the_place_of_a_checkpoint_does_not_run(tmp_path, promise):
    bombs = [pickle.dumps(Bomb(tmp_path / "pwned"), protocol) for protocol in range(6)]
    np.save(tmp_path / "bomb.npy", np.array([Bomb(tmp_path / "pwned")]), allow_pickle=True)
    bombs.append((tmp_path / "bomb.npy").read_bytes())
    for number, bomb in enumerate(bombs):
        path = tmp_path / f"step-{number:08d}.safetensors"
        path.write_bytes(bomb)
        with pytest.raises(CheckpointError, match=path.name):
            checkpoint.load(path)
    assert not (tmp_path / "pwned").exists()
    promise(16, "a pickle in the place of a checkpoint: refused", len(bombs), len(bombs))


@pytest.mark.parametrize("path", sorted(HOUSE.rglob("*.py")), ids=lambda p: p.stem)
def test_nothing_here_can_run_what_it_reads(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name.split(".")[0] for alias in node.names}
            names.add((getattr(node, "module", None) or "").split(".")[0])
            assert not names & FORBIDDEN
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            assert name not in CALLS
            for keyword in node.keywords:
                dangerous = keyword.arg in ("shell", "allow_pickle")
                assert not (dangerous and getattr(keyword.value, "value", True))
