"""Every flag and recipe that a text names is there: in documents, help, messages, scripts."""

import importlib
import re

import click
import pytest

from ba_dist import cli
from ba_dist.cli.plot import NAMED as PLOTS
from ba_dist.models import NETWORKS
from ba_dist.recipes import RECIPES

from .test_benchmarks import BENCHMARKS, ROOT

FOLDERS = ("docs", "ba_dist", "launch", "slurm", "benchmarks")
TEXTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "Makefile")),
    *(
        path
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".png"
    ),
]
# Other programs' flags, which may be named where the program (a pattern) is.
OTHERS = {
    "mpirun": "allow-run-as-root bind-to host hostfile hosts machinefile map-by mca np"
    " oversubscribe",
    "(?i:sbatch|srun|scancel|slurm)": "account batch cpu-bind cpus-per-task environment exclusive"
    " export gpus-per-node gpus-per-task job-name kill-on-bad-exit mpi nodes ntasks ntasks-per-node"
    " open-mode parsable partition pty requeue signal",
    "pip": "all default-pip force-reinstall no-binary no-build-isolation no-cache-dir no-deps"
    " no-index python require-hashes target without-pip",
    "horovodrun": "binding-args",
    "ruff": "check",
    "pytest": "pdb",
    "apt-get": "no-install-recommends yes",
    "dpkg-deb": "extract",
    "docker": "shm-size",
    "apptainer": "nv",
    r"gpu_check\.sh": "folder",
    "tar": "exclude",
    "patch": "batch forward fuzz",
    "strace": "decode-fds follow-forks quiet string-limit",
    "strip": "strip-debug",
    "patchelf": "print-rpath replace-needed set-rpath",
    "jsonargparse": "crop_area",
    r"my_script\.py": "flag",
    "last_value": "flag",
    "timm": "aa aug-repeats amp amp-dtype dist-bn grad-accum-steps model-ema sched smoothing"
    " split-bn",
    "torchrun": "nproc-per-node",
    "tensorflow2_synthetic_benchmark": "no-cuda num-batches-per-iter num-iters num-warmup-batches",
    r"torch_step\.py": "classes",
    "prefers-color-scheme": "c faint ground ink notable panel rule",  # names of colours
}
FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
# A command runs to the end of its line, its quotes or its comment.
WORDS = r"([^`\"#;|\n]*)"
BA_DIST = re.compile(
    r"(`?)(?:[\w./]*\bba-dist(?: run(?: [^`\n]*?)? --)?|-m ba_dist"
    rf"|(?:mpirun|srun)\.sh(?: [^`\n]*?)? --) {WORDS}"
)
SBATCH = re.compile(rf"sbatch(?: --\S+)* slurm/[^ ]+\.sbatch {WORDS}")
BENCHMARK = re.compile(rf"benchmarks/({'|'.join(BENCHMARKS)})\.py\b{WORDS}")
STEMS = "|".join(sorted({name.split("-")[0] for name in RECIPES}))
LIKE_A_RECIPE = re.compile(rf"(?<![\w./-])(?:{STEMS})-[a-z0-9][a-z0-9-]*(?![\w*])")


@pytest.fixture(scope="module")
def benchmarks():
    """Name → command. Programs import what lies beside them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        return {name: importlib.import_module(name).main for name in BENCHMARKS}


def flags_of(*commands):
    """All flags of these commands and of those below them."""
    found = {"--help"}
    for command in commands:
        found |= {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)}
        found |= flags_of(*getattr(command, "commands", {}).values())
    return found


def allowed_in(text, benchmarks):
    """The flags that a text may name."""
    cluster = (ROOT / "tests" / "cluster" / "cluster.py").read_text()
    found = flags_of(cli.cli, *PLOTS.values(), *benchmarks.values())
    found |= (
        set(re.findall(r'add_argument\("(--[a-z-]+)"', cluster)) if "cluster" in text else set()
    )
    for program, flags in OTHERS.items():
        if re.search(rf"\b(?:{program})\b", text):
            found |= {f"--{flag}" for flag in flags.split()}
    return found


def wrong_call(quoted, words):
    """What is wrong with the words behind `ba-dist`."""
    command, path = cli.cli, []
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        path.append(words.pop(0))
        command = command.commands[path[-1]]
    if path == ["plot"] and words and words[0] in PLOTS:
        path.append(words.pop(0))
        command = PLOTS[path[-1]]
    call = " ".join(["ba-dist", *path])
    if isinstance(command, click.Group):
        wrong = quoted and not path and words and re.fullmatch(r"[a-z]+", words[0])
        return [f"`{call}` has no `{words[0]}`"] if wrong else []
    of_a_recipe = path[0] != "recipes" and any(p.metavar == "RECIPE" for p in command.params)
    found = []
    if of_a_recipe or path == ["recipes"]:
        found = [f"no recipe {word}" for word in words[:1] if is_name(word) and word not in RECIPES]
    return found + wrong_flags(call, command, words)


def is_name(word):
    return re.fullmatch(r"[a-z0-9][a-z0-9-]*", word) is not None


def wrong_flags(call, command, words):
    named = [match[0] for word in words if (match := FLAG.match(word.lstrip("[")))]
    return [f"`{call}` has no {flag}" for flag in named if flag not in flags_of(command)]


def problems(text, benchmarks):
    """A line for everything that a text names and that is not there."""
    text = re.sub(r" *\\+\n[ #]*", " ", text)  # a command over several lines
    allowed = allowed_in(text, benchmarks)
    named = {flag for flag in FLAG.findall(text) if not flag.endswith("-")}
    found = [f"no program has {flag}" for flag in sorted(named - allowed)]
    known = {*RECIPES, *NETWORKS}
    found += [f"no recipe {name}" for name in LIKE_A_RECIPE.findall(text) if name not in known]
    for quoted, words in BA_DIST.findall(text):
        found += wrong_call(quoted, words.split())
    for words in SBATCH.findall(text):
        found += wrong_call("", ["train", *words.split()])
    for name, words in BENCHMARK.findall(text):
        found += wrong_flags(f"benchmarks/{name}.py", benchmarks[name], words.split())
    return found


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_texts_name_is_there(benchmarks, path):
    assert problems(path.read_text(), benchmarks) == []


@pytest.mark.parametrize(
    "command", ["train", "submit", "compare", "report", *(f"plot {name}" for name in PLOTS)]
)
def test_help_names_only_what_is_there(benchmarks, command):
    made = {**cli.cli.commands, **{f"plot {name}": PLOTS[name] for name in PLOTS}}[command]
    texts = [made.help, *(p.help for p in made.params if isinstance(p, click.Option))]
    assert problems("\n".join(filter(None, texts)), benchmarks) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("`--no-such-flag` does it", ["no program has --no-such-flag"]),
        ("set --batch_size", ["no program has --batch_size"]),
        ("`ba-dist train quickstart --render 3`", ["`ba-dist train` has no --render"]),
        ("launch/mpirun.sh -n 2 -- train cifar10", ["no recipe cifar10"]),
        ("ba-dist run -n 2 -- train cifar10", ["no recipe cifar10"]),
        (
            "launch/srun.sh -- train quickstart \\\n  --output x",
            ["`ba-dist train` has no --output"],
        ),
        ("sbatch --nodes=4 slurm/gpu.sbatch resnet", ["no recipe resnet"]),
        ("see `ba-dist trian`", ["`ba-dist` has no `trian`"]),
        ("ba-dist plot augmentations digits", ["no recipe digits"]),
        ("`ba-dist plot curves runs/a --render 3`", ["`ba-dist plot curves` has no --render"]),
        ("benchmarks/order.py --baseline x", ["`benchmarks/order.py` has no --baseline"]),
        ("as resnet44-cifar1000 does", ["no recipe resnet44-cifar1000"]),
        ("kept with --mca", ["no program has --mca"]),
        ("kept with mpirun --mca and `ba-dist train RECIPE --lr 0:1 --no-flip -h`", []),
        ("ba-dist data prepare|index NAME, `.venv/bin/ba-dist recipes quickstart`", []),
    ],
)
def test_what_is_not_there_is_found(benchmarks, text, expected):
    assert problems(text, benchmarks) == expected


def test_no_flag_of_another_program_is_kept_in_vain(benchmarks):
    texts = [path.read_text() for path in TEXTS]
    for program, flags in OTHERS.items():
        there = [text for text in texts if re.search(program, text)]
        named = {flag for text in there for flag in FLAG.findall(text)}
        assert {f"--{flag}" for flag in flags.split()} <= named, program
