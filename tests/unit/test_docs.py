"""README and docs/ name commands and flags that exist."""

import re
import shlex
from pathlib import Path

import click
import pytest

from ba_dist.cli import plot
from ba_dist.cli.commands import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md"))]
BLOCK = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
# What starts ranks, and then our command.
LAUNCH = re.compile(r"^(launch/(mpirun|srun)\.sh|ba-dist run)\b.*? -- +")
PROGRAM = re.compile(r"^(python +)?(benchmarks/\w+\.py)\b")


def commands(page):
    """The lines of code blocks, continued ones joined, and what stands in code within the text."""
    text = page.read_text()
    blocks = "\n".join(BLOCK.findall(text)).replace("\\\n", " ")
    lines = [re.sub(r"^\$ ", "", line) for line in blocks.splitlines()]
    return [
        re.sub(r"\s#.*", "", line).strip() for line in [*lines, *CODE.findall(BLOCK.sub("", text))]
    ]


def ours(line):
    """(the words after `ba-dist`, None) or (None, the words of a benchmark); else nothing."""
    line = LAUNCH.sub("", line)
    launched = re.match(r"(train|eval|translate|sweep)\s", line)
    if found := PROGRAM.match(line):
        return None, [found.group(2), *words(line[found.end() :])]
    if launched or re.match(r"(\.venv/bin/)?ba-dist\s", line):
        return words(line if launched else line.split(None, 1)[1]), None
    return None, None


def words(text):
    try:
        return shlex.split(text)
    except ValueError:  # an ellipsis of a table, a quote of a shell
        return text.split()


def flags(names):
    return [name.partition("=")[0].rstrip("…,.") for name in names if re.match(r"--[a-z]", name)]


def command_of(names):
    """The click command that the words call."""
    command, context = cli, click.Context(cli, info_name="ba-dist")
    for name in (name.partition("|")[0] for name in names):
        if command is plot.plot:
            return plot._NAMED.get(name, command)
        if not isinstance(command, click.Group):
            return command
        command = command.get_command(context, name)
        if command is None:
            pytest.fail(f"there is no command {name!r} in `ba-dist {' '.join(names)}`")
        context = click.Context(command, parent=context, info_name=name)
    return command


def options(command):
    return {opt for param in command.params for opt in [*param.opts, *param.secondary_opts]}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_flags_exist(page):
    for line in commands(page):
        names, program = ours(line)
        if names and re.match(r"[a-z]", names[0]):
            command = command_of(names)
            known = options(command) | {"--help"}
            wrong = [flag for flag in flags(names) if flag not in known]
            assert not wrong, f"{page.name}: `{line}`: {command.name} has no {', '.join(wrong)}"
        if program:
            shared = ROOT / "benchmarks/harness.py"
            source = (ROOT / program[0]).read_text() + shared.read_text()
            wrong = [flag for flag in flags(program[1:]) if f'"{flag}"' not in source]
            assert not wrong, f"{page.name}: `{line}` has no {', '.join(wrong)}"


def test_the_words_of_other_tools_name_flags_of_ours():
    """The right column of docs/other-tools.md."""
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \|$", (ROOT / "docs/other-tools.md").read_text(), re.M)
    named = {flag for row in rows for code in CODE.findall(row) for flag in flags(code.split())}
    known = options(command_of(["train"])) | options(command_of(["eval"]))
    assert len(rows) > 30 and len(named) > 15
    assert named <= known, f"there are no {named - known}"
