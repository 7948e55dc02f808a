"""The house: a module imports from its own room and from those before it, in no circle.

The order of the rooms is written once, in the table of docs/design.md.
"""

import ast
import graphlib
import re
import sys
from pathlib import Path

import pytest

import ba_dist

ROOT = Path(ba_dist.__file__).parent
DESIGN = ROOT.parent / "docs" / "design.md"
# Packages that only one room may import; and what the first rooms may import at all.
DOORS = {"mpi4py": "comm", "horovod": "comm"}
PURE = ("errors", "rules", "config")
GROUND = {"numpy", "ba_dist", *sys.stdlib_module_names}


def read_rooms():
    """The rooms in their order, as the table has them, `data.sources` for `data/sources`."""
    table = DESIGN.read_text().split("## The rooms")[1]
    cells = re.findall(r"^\| (`[^|]+) \|", table, re.M)
    return [room.replace("/", ".") for cell in cells for room in re.findall(r"`([^`]+)`", cell)]


def read_house():
    """Module → its source; `models` for models/__init__.py, the empty name for the package."""
    paths = {path: path.relative_to(ROOT).with_suffix("").parts for path in ROOT.rglob("*.py")}
    names = {
        p: ".".join(part for part in parts if part != "__init__") for p, parts in paths.items()
    }
    return {name: path.read_text() for path, name in names.items()}


def room_of(name, rooms):
    """The longest room that holds a module; the package itself and its entry are in none."""
    holding = [room for room in rooms if f"{name}.".startswith(f"{room}.")]
    return max(holding, key=len, default=None)


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


def violations(house, rooms):
    """A line for every import that the plan of the house forbids."""
    graph = {}
    for name, source in house.items():
        inside, outside = imports(source, house)
        graph[name] = inside - {name}
        if name in ("", "__main__"):
            continue
        room = room_of(name, rooms)
        if room is None:
            yield f"{name} is in no room"
            continue
        for other in inside - {""}:
            there = room_of(other, rooms)
            if other not in house:
                yield f"{name} imports {other}, which is not there"
            elif there is None:
                yield f"{name} imports {other}, which is in no room"
            elif rooms.index(there) > rooms.index(room):
                yield f"{name} imports {other}, and {room} comes before {there}"
        for package in outside:
            if room != DOORS.get(package, room):
                yield f"{name} imports {package}; only {DOORS[package]} may"
            if room in PURE and package not in GROUND:
                yield f"{name} imports {package}; {room} needs nothing but numpy"
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        yield f"imports in a circle: {' → '.join(error.args[1])}"


def test_the_house_stands():
    house = read_house()
    assert len(house) > 60
    assert list(violations(house, read_rooms())) == []


def test_every_room_is_there():
    house = read_house()
    assert len(read_rooms()) > 20
    assert [room for room in read_rooms() if room not in house] == []


@pytest.mark.parametrize(
    ("name", "source", "broken"),
    [
        ("rules.layout", "import tensorflow as tf", "rules.layout imports tensorflow; rules needs"),
        ("config.tree", "def f():\n    import keras.layers", "config.tree imports keras; config"),
        ("rules.order", "from ba_dist import comm", "rules.order imports comm, and rules comes"),
        (
            "step",
            "def f():\n    from ba_dist.training import x",
            "step imports training, and step comes",
        ),
        ("step", "import ba_dist.cli", "step imports cli, and step comes before cli"),
        ("data.sources.files", "from ba_dist.data.pipeline import x", "data.sources.files imports"),
        ("training", "from mpi4py import MPI", "training imports mpi4py; only comm may"),
        ("optim.sgd", "import horovod.tensorflow", "optim.sgd imports horovod; only comm may"),
        ("errors", "from ba_dist.rules.layout import Layout", "imports in a circle: "),
        ("helpers", "", "helpers is in no room"),
        (
            "training",
            "from ba_dist.helpers import x",
            "training imports helpers, which is in no room",
        ),
        ("cli", "from ba_dist.analysis.no import x", "cli imports analysis.no, which is not there"),
    ],
)
def test_a_house_that_does_not(name, source, broken):
    house = read_house()
    if broken.startswith("training imports helpers"):
        house["helpers"] = ""
    house[name] = house.get(name, "") + "\n" + source
    assert any(line.startswith(broken) for line in violations(house, read_rooms()))
