"""The text of a job script: a script of slurm/ with a user's values filled in.

A value gets into the text in one of two ways: as a quoted word of the shell; or in an #SBATCH
line, where only harmless characters are allowed, because versions of Slurm quote differently.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ba_dist.config import options
from ba_dist.errors import ConfigError
from ba_dist.run.run_dir import JOB_FOLDER

# The line in a script of slurm/ that is replaced by the recipe and its flags.
MARKER = "# `ba-dist submit` writes the recipe, its flags and the clone's folder here.\n"

_NAME = (r"[A-Za-z0-9_][A-Za-z0-9_.-]*", "letters, digits and _ . -")
_NAMES = (r"[A-Za-z0-9_][A-Za-z0-9_.,-]*", "letters, digits and _ . -, with commas between names")
# Field of the command line → (pattern, what it allows in words).
WISHES = {
    "account": _NAME,
    "partition": _NAMES,
    "qos": _NAME,
    "constraint": (r"[A-Za-z0-9_\[(][A-Za-z0-9_.,:&|*()\[\]-]*", "features with & | , ( ) [ ] *"),
    "job_name": (r"[A-Za-z0-9_][A-Za-z0-9_.=+-]*", "letters, digits and _ . = + -"),
    "time": (
        r"\d{1,6}(:\d{1,2}){0,2}|\d{1,4}-\d{1,2}(:\d{1,2}){0,2}",
        "minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS",
    ),
    "cpus_per_task": (r"\d+", "a number"),
}
# Paths that can be in an #SBATCH line without quotes; % begins a pattern there.
_PLAIN_PATH = r"[A-Za-z0-9_./,:=@+~-]+"


@dataclass(frozen=True)
class Job:
    """What is to be submitted.

    Args:
        site: name of the script of slurm/.
        template: its text.
        recipe: name of the recipe.
        nodes: number of nodes.
        ranks_per_node: number of ranks on each node.
        wishes: values of WISHES that the user gave.
        changes: fields of the configuration that the user gave.
        run_dir: absolute path of the run directory.
        home: absolute path of the clone, or of the scripts in the installed package.
        work_dir: absolute path of the folder that relative paths start from.
        python: absolute path of the Python that has ba_dist, where it is not the clone's.
        source: the words of `ba-dist train` before the flags, where they are not the recipe alone:
            the user's own recipe or file of settings, with absolute paths.
        tasks: of a job array, the words of each of its tasks; `source` and `changes` are then in
            them, and `run_dir` holds the script and the logs alone.
    """

    site: str
    template: str
    recipe: str
    nodes: int
    ranks_per_node: int
    wishes: dict[str, Any]
    changes: dict[str, Any]
    run_dir: str
    home: str
    work_dir: str
    python: str = ""
    source: tuple[str, ...] = ()
    tasks: tuple[tuple[str, ...], ...] = ()

    @property
    def script(self) -> str:
        """Path of the job script."""
        return f"{self.run_dir}/{JOB_FOLDER}/submit.sbatch"

    @property
    def log(self) -> str:
        """Pattern of the log's path: %j is the job id; of an array %A, and %a the task."""
        folder, number = f"{self.run_dir}/{JOB_FOLDER}/", "%A_%a" if self.tasks else "%j"
        plain = re.fullmatch(_PLAIN_PATH, folder, re.ASCII)
        return f"{folder}{number}.log" if plain else f"slurm-{number}.out"


def render(job: Job) -> str:
    """The whole job script.

    Raises:
        ConfigError: when a value cannot be in a job script, with what can.
    """
    if job.template.count(MARKER) != 1:
        raise ConfigError(
            f"slurm/{job.site}.sbatch must have this line behind `set -euo pipefail`:\n{MARKER}"
        )
    text = job.template
    for name, value in _sbatch_options(job).items():
        text = _with_option(text, name, value)
    head, *_ = text.partition("\n")
    origin = f"{head}\n# Made by `ba-dist submit` from slurm/{job.site}.sbatch.\n#\n"
    text = text.replace(f"{head}\n", origin, 1)
    return text.replace(MARKER, _words(job))


def ranks_per_node(template: str) -> int:
    """The ranks per node that a script of slurm/ asks for.

    Raises:
        ConfigError: when it does not say.
    """
    found = re.search(r"^#SBATCH --ntasks-per-node=(\d+)$", template, re.MULTILINE)
    if not found:
        raise ConfigError("the site's script has no --ntasks-per-node=N; give --ranks-per-node")
    return int(found[1])


def train_flags(changes: dict[str, Any]) -> list[str]:
    """The flags of `ba-dist train` for some changed fields, each one word, without --run-dir."""
    words = []
    for option in options():
        if option.name not in changes or option.name == "run_dir":
            continue
        value = changes[option.name]
        if option.type is bool:
            words.append(option.flag if value else f"--no-{option.flag[2:]}")
        else:
            words.append(f"{option.flag}={option.text(value)}")
    return words


def _words(job: Job) -> str:
    """The lines that set the arguments which plain `sbatch` would get after the script's name."""
    words = [*(job.source or [job.recipe]), *train_flags(job.changes), f"--run-dir={job.run_dir}"]
    for word in (*words, *sum(job.tasks, ()), job.home, job.work_dir, job.python):
        _check_word(word)
    python = f"export BA_DIST_PYTHON={shlex.quote(job.python)}\n" if job.python else ""
    return (
        "# What `ba-dist submit` was told. More flags may be given behind the script's name.\n"
        f"cd {shlex.quote(job.work_dir)}\n"
        f"export BA_DIST_HOME={shlex.quote(job.home)}\n"
        f"{python}"
        f"export BA_DIST_SCRIPT={shlex.quote(job.script)}\n"
        f"{_choice(job.tasks) if job.tasks else _set(words)}"
    )


def _set(words: Sequence[str]) -> str:
    lines = " \\\n  ".join(shlex.quote(word) for word in words)
    return f'set -- {lines} \\\n  "$@"\n'


def _choice(tasks: Sequence[Sequence[str]]) -> str:
    """Each task of an array takes its own words."""
    cases = "".join(f"{number})\n{_set(words)};;\n" for number, words in enumerate(tasks))
    other = '*) echo "this script is for sbatch: its job array has no such task" >&2; exit 2 ;;'
    return f"case ${{SLURM_ARRAY_TASK_ID:-}} in\n{cases}{other}\nesac\n"


def _check_word(word: str) -> None:
    """Refuses characters that would make a script unreadable or control a terminal."""
    try:
        word.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{word!r} is not UTF-8; use another name") from None
    if re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", word):
        raise ConfigError(f"{word!r} holds a control character; use another name")


def _sbatch_options(job: Job) -> dict[str, str]:
    """Long name of each option of sbatch → its value, checked."""
    found = {"nodes": str(job.nodes), "ntasks-per-node": str(job.ranks_per_node)}
    if "#SBATCH --gpus-per-node=" in job.template:
        # One rank drives one GPU.
        found["gpus-per-node"] = str(job.ranks_per_node)
    for field, value in {"job_name": job.recipe, **job.wishes}.items():
        pattern, allowed = WISHES[field]
        flag = field.replace("_", "-")
        if not re.fullmatch(pattern, str(value), re.ASCII):
            raise ConfigError(f"--{flag} is {value!r}; allowed: {allowed}")
        found[flag] = str(value)
    if "time" in found:
        _check_time(job.template, found["time"])
    if job.tasks:
        found["array"] = f"0-{len(job.tasks) - 1}"
    found["output"] = job.log
    return found


def _check_time(template: str, time: str) -> None:
    """Refuses a time limit that is shorter than the warning before its end."""
    warned = re.search(r"^#SBATCH --signal=B:USR2@(\d+)$", template, re.MULTILINE)
    needed = int(warned[1]) if warned else 0
    if _seconds(time) <= needed:
        raise ConfigError(
            f"--time {time} is {_seconds(time)} s, but the script is told to save {needed} s before"
            " the end; give it more"
        )


def _seconds(time: str) -> int:
    """The seconds of a time in one of Slurm's forms."""
    days, dash, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, (minutes, seconds) = 0, (*parts, 0)[:2]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def _with_option(text: str, name: str, value: str) -> str:
    """The script with one #SBATCH line changed, activated (`##SBATCH`) or added."""
    line = f"#SBATCH --{name}={value}"
    changed, count = re.subn(
        rf"^##?SBATCH --{name}(=.*)?$", lambda _: line, text, count=1, flags=re.MULTILINE
    )
    if count:
        return changed
    *_, last = re.finditer(r"^##?SBATCH .*\n", text, re.MULTILINE)
    return f"{text[: last.end()]}{line}\n{text[last.end() :]}"
