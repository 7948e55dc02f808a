"""`ba-dist submit`: the script compared whole, hostile names run by a real bash, every refusal.

A golden file is changed by hand, after reading: the failing test prints the text that it should be.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from ba_dist.cluster import job_script, submit
from ba_dist.cluster.home import HOME
from ba_dist.cluster.job_script import Job, ranks_per_node, render, train_flags
from ba_dist.errors import ConfigError, UserError
from ba_dist.rules.layout import Layout

from .test_cli import refused

GOLDEN = Path(__file__).parent / "golden"
SITES = sorted(path.stem for path in (HOME / "slurm").glob("*.sbatch"))
ALL_WISHES = {
    "account": "proj-1",
    "partition": "normal,long",
    "qos": "high",
    "constraint": "gpu&(a100|h100)",
    "job_name": "table_2",
    "time": "1-12:30:00",
    "cpus_per_task": 16,
}
ALL_CHANGES = {
    "multiplicity": 4,
    "lr": ((0.0, 0.1), (30.0, 0.01)),
    "flip": False,
    "trace": True,
    "data_dir": "/data/ima genet",
    "run_dir": "/scratch/user/runs/first",
}


def job(site="cpu", **changes):
    """A small job; `template` is that of the site."""
    known = {
        "site": site,
        "template": submit.template(site),
        "recipe": "quickstart",
        "nodes": 2,
        "ranks_per_node": 2,
        "wishes": {},
        "changes": {},
        "run_dir": "/scratch/user/runs/first",
        "home": "/home/user/ba_dist",
        "work_dir": "/home/user/work",
    }
    return Job(**{**known, **changes})


def options_of(text):
    """Long name → value of the #SBATCH lines in use."""
    return dict(re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", text, re.MULTILINE))


# --- the text -----------------------------------------------------------------------------------


def golden_job(site):
    """The job of a golden file; the one of `gpu` says everything that can be said."""
    if site == "gpu":
        return job(site, nodes=4, ranks_per_node=8, wishes=ALL_WISHES, changes=ALL_CHANGES)
    return job(site, ranks_per_node=ranks_per_node(submit.template(site)))


@pytest.mark.parametrize("site", SITES)
def test_the_script_is_the_golden_one(site):
    assert render(golden_job(site)) == (GOLDEN / f"submit-{site}.sbatch").read_text()


def test_every_golden_file_is_that_of_a_site():
    assert sorted(path.name for path in GOLDEN.glob("submit-*")) == [
        f"submit-{site}.sbatch" for site in SITES
    ]


@pytest.mark.parametrize("site", SITES)
def test_nothing_of_the_template_is_lost(site):
    template = submit.template(site)
    text = render(job(site, nodes=3, ranks_per_node=1, wishes=ALL_WISHES))
    body = template.partition(job_script.MARKER)[2]
    assert text.endswith(body) and body
    wanted = {**options_of(template), "nodes": "3", "ntasks-per-node": "1"}
    wanted |= {name.replace("_", "-"): str(value) for name, value in ALL_WISHES.items()}
    wanted["output"] = "/scratch/user/runs/first/job/%j.log"
    if "gpus-per-node" in wanted:
        wanted["gpus-per-node"] = "1"
    assert options_of(text) == wanted
    # Slurm stops reading options at the first command.
    assert text.rindex("#SBATCH") < text.index("set -euo pipefail")


def test_what_is_not_wished_stays_as_the_template_has_it():
    text = render(job("lumi", ranks_per_node=8))
    assert "##SBATCH --account=ACCOUNT" in text and "#SBATCH --partition=standard-g" in text
    assert options_of(text)["job-name"] == "quickstart"


def test_flags_come_back_as_the_same_values():
    words = train_flags({**ALL_CHANGES, "lighting": 0.1, "resume": False, "cutout": 0})
    assert words == [
        *("--multiplicity=4", "--data-dir=/data/ima genet", "--no-flip", "--lighting=0.1"),
        *("--cutout=0", "--lr=0:0.1,30:0.01", "--no-resume", "--trace"),
    ]


def test_a_template_without_its_marks():
    with pytest.raises(ConfigError, match="must have this line"):
        render(job(template="#!/bin/sh\n"))
    with pytest.raises(ConfigError, match="give --ranks-per-node"):
        ranks_per_node("#!/bin/sh\n##SBATCH --ntasks-per-node=3\n")


# --- what must not become shell code ------------------------------------------------------------

HOSTILE = [
    "a b",
    "a;touch pwned",
    "$(touch pwned)",
    "`touch pwned`",
    "a'b",
    "'; touch pwned; '",
    'a"b',
    "a\\",
    "-rf",
    "~",
    "*",
    "a&&touch pwned",
    "a|tee pwned",
    "a>pwned",
    "!!",
    "#SBATCH --wrap=x",
    "%j",
    "${IFS}",
    "ä 日本",
    "{a,b}",
    "set -euo pipefail",
    "\\1\\g<0>",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_only_names(name, tmp_path, promise):
    """The argument part of the script, run by bash, passes on exactly the words that were meant."""
    clone, work = tmp_path / f"clone{name}", tmp_path / f"work{name}"
    for folder in (clone / "slurm", work):
        folder.mkdir(parents=True)
    show = 'printf "%s\\0" "$PWD" "$BA_DIST_HOME" "$BA_DIST_SCRIPT" "$@"\n'
    (clone / "slurm" / "lib.sh").write_text(f"run_job() {{ {show} }}\n")
    run_dir = f"{work}/{name}"
    made = job(
        run_dir=run_dir,
        home=str(clone),
        work_dir=str(work),
        changes={"data_dir": name, "dataset": name},
    )
    script = tmp_path / "script"
    script.write_text(render(made))
    done = subprocess.run(["bash", script, f"--extra={name}"], capture_output=True, cwd=tmp_path)
    assert done.stderr == b"" and done.returncode == 0
    assert done.stdout.decode().split("\0")[:-1] == [
        *(str(work), str(clone), f"{run_dir}/job/submit.sbatch", "quickstart"),
        *(f"--dataset={name}", f"--data-dir={name}", f"--run-dir={run_dir}", f"--extra={name}"),
    ]
    assert not list(tmp_path.rglob("pwned"))
    # sbatch reads these lines with rules of its own.
    lines = re.findall("^#SBATCH .*$", script.read_text(), re.MULTILINE)
    assert all(re.fullmatch(r"#SBATCH --[\w=@:%/.~-]+", line, re.ASCII) for line in lines)
    promise(16, "a hostile name in a job script: it stays a name", 1, 1)


@pytest.mark.parametrize("place", ["run_dir", "home", "work_dir"])
@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\0b", "\x1b[2J", "a\x7f", "a\u2028b", "\x85"])
def test_control_characters_are_refused(place, bad):
    with pytest.raises(ConfigError, match="control character"):
        render(job(**{place: f"/x/{bad}"}))
    with pytest.raises(ConfigError, match="control character"):
        render(job(changes={"data_dir": bad}))


def test_a_name_that_is_not_text():
    with pytest.raises(ConfigError, match="not UTF-8"):
        render(job(run_dir="/x/\udcff"))


WRONG = [
    "",
    " ",
    "a b",
    "a\n#SBATCH --uid=0",
    "$(id)",
    "a;b",
    "a'b",
    'a"b',
    "-x",
    "a#b",
    "ä",
    "a\\",
]


@pytest.mark.parametrize("name", sorted(job_script.WISHES))
@pytest.mark.parametrize("bad", WRONG)
def test_values_that_an_sbatch_line_cannot_hold(name, bad):
    flag = name.replace("_", "-")
    with pytest.raises(ConfigError, match=f"--{flag} is .*; allowed: "):
        render(job(wishes={name: bad}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("account", "p0_1.x-y"),
        ("partition", "a,b-c"),
        ("constraint", "[rack1*2&rack2*4]"),
        ("job_name", "m=4+lr"),
        *(("time", time) for time in ("3", "02:01", "1:00:00", "0-1", "1-0:30", "7-00:00:00")),
    ],
)
def test_values_that_it_can_hold(name, value):
    assert options_of(render(job(wishes={name: value})))[name.replace("_", "-")] == value


@pytest.mark.parametrize("time", ["0", "2", "02:00", "0:02:00", "0-0:2", "0-0:1:59", "119:1:1:1"])
def test_times_that_are_over_before_the_run_can_save(time):
    with pytest.raises(ConfigError, match="--time"):
        render(job(wishes={"time": time}))


def test_the_log_goes_to_the_run_directory_where_slurm_can_be_told():
    assert options_of(render(job()))["output"] == "/scratch/user/runs/first/job/%j.log"
    for odd in ("/x/a b", "/x/50%", "/x/a'b", "/x/a\\b"):
        assert options_of(render(job(run_dir=odd)))["output"] == "slurm-%j.out"


# --- the command --------------------------------------------------------------------------------


@pytest.fixture
def sbatch(monkeypatch, tmp_path):
    """A stand-in for sbatch that notes its words; returns where, and how to change its answer."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "sbatch"

    def answers(text="4711", status=0, stream=1):
        program.write_text(
            "#!/bin/bash\n"
            f'printf "%s\\n" "$PWD" "$@" >{tmp_path}/called\n'
            f"printf '%s\\n' {json.dumps(text)} >&{stream}\nexit {status}\n"
        )
        program.chmod(0o755)
        return tmp_path / "called"

    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return answers


def test_submitting(ba_dist, sbatch, tmp_path):
    called = sbatch()
    words = ["quickstart", "--site", "cpu", "--nodes", 2, "--run-dir", "runs/a b", "--steps", 7]
    status, out, err = ba_dist("submit", *words, "--time", "10:00")
    script = tmp_path / "runs" / "a b" / "job" / "submit.sbatch"
    assert (status, err) == (0, "")
    assert called.read_text().splitlines() == [str(tmp_path), "--parsable", str(script)]
    text = script.read_text()
    assert f"--run-dir={tmp_path}/runs/a b" in text and "--steps=7" in text
    assert options_of(text)["time"] == "10:00" and os.access(script, os.X_OK)
    for part in (
        "submitted job 4711: quickstart, 2 nodes x 2 ranks = 2 groups of 2",
        f"'{script}'",
        "squeue -j 4711",
        "tail -F slurm-4711.out",
        "scancel 4711",
    ):
        assert part in out


def test_the_run_directory_has_a_name_of_its_own(ba_dist, sbatch, tmp_path):
    sbatch("4711;daint")
    status, out, _ = ba_dist("submit", "quickstart", "--site", "cpu", "--nodes", 1)
    (made,) = (tmp_path / "runs").iterdir()
    assert status == 0 and re.fullmatch(r"quickstart-\d{8}-\d{6}", made.name)
    assert f"tail -F {made}/job/4711.log" in out


def test_dry_run_prints_the_script_alone(ba_dist, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    monkeypatch.chdir(tmp_path)
    flags = ["--run-dir", "/scratch/user/runs/first", "--multiplicity", 4]
    words = ["quickstart", "--site", "lumi", "--nodes", 2, "--dry-run", *flags]
    status, out, err = ba_dist("submit", *words)
    wanted = job(
        "lumi",
        ranks_per_node=8,
        changes={"multiplicity": 4},
        home=str(HOME),
        work_dir=str(tmp_path),
    )
    assert (status, err, out) == (0, "", render(wanted))
    assert list(tmp_path.iterdir()) == []


def test_mistakes(ba_dist, sbatch, tmp_path):
    called = sbatch()
    good = ["--site", "gpu", "--nodes", 1]
    start = ["submit", "quickstart"]
    refused(ba_dist("submit", "nothing", *good), "'nothing'", "quickstart")
    refused(ba_dist(*start, "--site", "moon", "--nodes", 1), "'moon'", *SITES)
    refused(ba_dist(*start, "--site", "../slurm/gpu", "--nodes", 1), "there is no site")
    refused(ba_dist(*start, "--site", "gpu"), "--nodes")
    refused(ba_dist(*start, "--nodes", 1), "--site")
    refused(ba_dist(*start, "--site", "gpu", "--nodes", 0), "--nodes")
    refused(ba_dist(*start, *good, "--ranks-per-node", 0), "--ranks-per-node")
    refused(ba_dist(*start, *good, "--batch-sise", 3), "did you mean --batch-size?\n")
    refused(ba_dist(*start, *good, "--batch-size", 0), "--batch-size")
    refused(ba_dist(*start, *good, "--io", "magic"), "cooperative")
    refused(ba_dist(*start, *good, "--account", "a b"), "--account is 'a b'; allowed: letters")
    refused(ba_dist(*start, *good, "--run-dir", "a\nb"), "control character")
    assert not called.exists() and sorted(p.name for p in tmp_path.iterdir()) == ["bin"]


def test_a_layout_that_cannot_work_is_not_submitted(ba_dist, sbatch, tmp_path):
    called = sbatch()
    words = ["submit", "quickstart", "--site", "gpu", "--nodes", 3]
    answer = ba_dist(*words, "--batch-size", 64)
    refused(answer, "--batch-size 64 must divide by the number of groups, 6", "values that work:")
    answer = ba_dist(*words, "--ranks-per-node", 2, "--group-size", 4)
    refused(answer, "number of ranks (6)", "with --group-size 2, --batch-size values that")
    assert not called.exists()


def test_sbatch_says_no(ba_dist, sbatch, tmp_path):
    sbatch("sbatch: error: invalid partition specified: x", 1, 2)
    answer = ba_dist("submit", "quickstart", "--site", "cpu", "--nodes", 1, "--run-dir", "r")
    refused(answer, "invalid partition specified: x", "r/job/submit.sbatch", status=1)


def test_no_sbatch(ba_dist, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    answer = ba_dist("submit", "quickstart", "--site", "cpu", "--nodes", 1, "--run-dir", "r")
    refused(answer, "there is no sbatch here", f"{tmp_path}/r/job/submit.sbatch", status=1)
    assert (tmp_path / "r" / "job" / "submit.sbatch").exists()


def test_a_run_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        submit.submit(job(run_dir=f"{tmp_path}/file/run"), "", Layout(1, 1, 1))


def test_no_scripts_at_all(tmp_path):
    with pytest.raises(ConfigError, match="install ba_dist again"):
        submit.template("gpu", tmp_path)
