"""The house: a module imports from its own floor and below, in no circle; MPI has one door.

A new file fails these tests until it is given a floor here.
"""

import ast
import graphlib
import sys
from pathlib import Path

import pytest

import ba_dist

ROOT = Path(ba_dist.__file__).parent

# A name with a dot at its end holds for all modules of that package.
FLOORS = [
    [
        *("", "errors", "topology", "sampling", "schedules", "config", "recipes."),
        *("position", "stragglers", "whole_file", "lock", "launcher", "shared_memory"),
    ],
    [
        *("comm", "runtime", "devices", "run_dir", "signals", "inject", "job_script"),
        *("models.", "optim."),
        *("data.sources", "data.array_record", "data.tfds_arrays", "data.prepare"),
        *("data.crop", "data.colour", "data.auto_augment", "data.mixing", "data.augment"),
        *("data.images", "data.files", "data.examples", "data.tfrecord", "data.shard_index"),
        *("data.image_folder", "data.synthetic", "data.pictures", "data.find", "data.verify"),
    ],
    [
        *("data.catalog", "data.exchange", "data.record_exchange", "data.group_reader"),
        *("step", "checkpoint", "metrics", "nonfinite", "replicas", "watchdog"),
    ],
    ["data.pipeline", "evaluate", "saving"],
    ["train", "report", "record", "evaluate_run", "doctor", "submit", "analysis."],
    ["flags", "cli", "__main__"],
]
DOORS = {"mpi4py": {"comm"}, "horovod": {"comm"}}
GROUND = {"numpy", "ba_dist", *sys.stdlib_module_names}


def read_house():
    """Module → its source; `models` for models/__init__.py, the empty name for the package."""
    paths = {path: path.relative_to(ROOT).with_suffix("").parts for path in ROOT.rglob("*.py")}
    names = {
        p: ".".join(part for part in parts if part != "__init__") for p, parts in paths.items()
    }
    return {name: path.read_text() for path, name in names.items()}


def floor_of(name):
    """None for a module without one; packages that hold only a docstring are on the ground."""
    for number, names in enumerate(FLOORS):
        if name in names or any(n.endswith(".") and f"{name}.".startswith(n) for n in names):
            return number
    return 0 if name == "data" else None


def imports(source, house):
    """(modules of the house, names of other packages) that a source imports, at any depth."""
    inside, outside = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written out in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [n if n.removeprefix("ba_dist.") in house else node.module for n in names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "ba_dist":
                inside.add(name.removeprefix("ba_dist").removeprefix("."))
            else:
                outside.add(name.split(".")[0])
    return inside, outside


def violations(house):
    """A line for every import that the plan of the house forbids."""
    graph = {}
    for name, source in house.items():
        inside, outside = imports(source, house)
        graph[name] = inside - {name}
        floor = floor_of(name)
        if floor is None:
            yield f"{name} has no floor"
            continue
        for other in inside:
            above = floor_of(other)
            if above is None:
                yield f"{name} imports {other}, which has no floor"
            elif other not in house:
                yield f"{name} imports {other}, which is not there"
            elif above > floor:
                yield f"{name} on floor {floor} imports {other} from floor {above}"
        for package in outside:
            if name not in DOORS.get(package, {name}):
                yield f"{name} imports {package}; only {', '.join(DOORS[package])} may"
            if floor == 0 and package not in GROUND:
                yield f"{name} on floor 0 imports {package}"
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        yield f"imports in a circle: {' → '.join(error.args[1])}"


def test_the_house_stands():
    house = read_house()
    assert len(house) > 30
    assert list(violations(house)) == []


@pytest.mark.parametrize(
    ("name", "source", "broken"),
    [
        ("topology", "import tensorflow as tf", "topology on floor 0 imports tensorflow"),
        ("config", "def f():\n    import keras.layers", "config on floor 0 imports keras"),
        ("sampling", "from ba_dist import comm", "sampling on floor 0 imports comm from floor 1"),
        ("step", "def f():\n    from ba_dist.train import x", "step on floor 2 imports train"),
        ("step", "import ba_dist.cli", "step on floor 2 imports cli from floor 5"),
        ("train", "from mpi4py import MPI", "train imports mpi4py; only comm may"),
        ("optim.sgd", "import horovod.tensorflow", "optim.sgd imports horovod; only comm may"),
        ("errors", "from ba_dist.topology import Layout", "imports in a circle: "),
        ("helpers", "", "helpers has no floor"),
        ("data.extra", "", "data.extra has no floor"),
        ("train", "from ba_dist.helpers import x", "train imports helpers, which has no floor"),
        ("cli", "from ba_dist.analysis.no import x", "cli imports analysis.no, which is not there"),
    ],
)
def test_a_house_that_does_not(name, source, broken):
    house = read_house()
    house[name] = house.get(name, "") + "\n" + source
    assert any(line.startswith(broken) for line in violations(house))
