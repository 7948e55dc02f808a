"""A Slurm cluster of several nodes on this one machine, for tests.

    python -m tests.cluster.cluster up [--nodes 4] [--cpus 2] [--bandwidth 100mbit]
    python -m tests.cluster.cluster run [--on node2] COMMAND ...
    python -m tests.cluster.cluster shell [--on node2]
    python -m tests.cluster.cluster status | down

A node is a set of Linux namespaces: its own network, processes, host name, /dev/shm, /etc/hosts and
TMPDIR; all other files are this machine's. The nodes live inside the namespaces of the controller
`ctl`, which holds the switch they are plugged into, Slurm's controller, and stands for the login
node. Nothing of it is visible outside but one folder, and when the controller's first process ends
the kernel ends all the rest: no network device, mount or process can be left behind.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.cluster import host, machines, texts
from tests.cluster.texts import CONTROLLER, Plan

FOLDER = Path("/run/ba_dist_cluster")
NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid")
GONE = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"}
GONE |= {"PREEMPTED", "REVOKED", "TIMEOUT"}


class ClusterError(Exception):
    """The cluster, or a command on it, did not do what it should."""


class Cluster:
    """Brings the cluster up and down, runs commands on it and breaks it."""

    def __init__(
        self,
        nodes: int = 4,
        cpus: int = 2,
        bandwidth: str | None = None,
        folder: Path = FOLDER,
    ) -> None:
        self.plan = Plan(folder, nodes, cpus, bandwidth)
        self.folder = folder
        self.nodes = self.plan.names

    def __enter__(self) -> "Cluster":
        self.up()
        return self

    def __exit__(self, *exception: object) -> None:
        self.down()

    # ------------------------------------------------------------ up and down

    def up(self, timeout: float = 60) -> bool:
        """Brings up what is not up yet, and waits until every node is idle.

        Returns:
            Whether this call started the controller.

        Raises:
            ClusterError: when a Slurm that is not a test cluster's was found, or a node did not
                get idle in time; then nothing is left of the cluster.
        """
        foreign = host.foreign_slurm()
        if foreign:
            raise ClusterError(f"a Slurm is here already, which is left alone: {foreign}")
        fresh = CONTROLLER not in self.processes()
        try:
            if fresh:
                self._start_controller()
            elif (self.plan.slurm_conf).read_text() != texts.slurm_conf(self.plan):
                raise ClusterError(f"another cluster is up in {self.folder}; take it down first")
            for name in self.nodes:
                self.start_node(name)
            self.wait_until_idle(timeout)
        except BaseException:
            if fresh:
                self.down()
            raise
        return fresh

    def down(self) -> None:
        """Ends every process of the cluster and removes its folder; harmless when it is not up."""
        ours = {machine.namespace for machine in self.machines()}
        if controller := self.processes().get(CONTROLLER):
            os.kill(controller, signal.SIGKILL)
        until(lambda: not machines.inside(ours), "the end of the cluster's processes", 30)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start_controller(self) -> None:
        self.down()  # what a cluster that was killed left in the folder
        self.folder.mkdir(mode=0o755, parents=True)
        for name in ("munge", "spool", "state", "tmp"):
            (self.folder / name).mkdir(mode=0o755)
        (self.folder / "hosts").write_text(texts.hosts(self.plan))
        self.plan.slurm_conf.write_text(texts.slurm_conf(self.plan))
        (self.folder / "gres.conf").write_text(texts.gres_conf(self.plan))
        for path in self.plan.gpus:
            path.symlink_to("/dev/null")
        key = self.folder / "munge" / "key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        self._start_namespaces(CONTROLLER, [], "private")
        self._script(CONTROLLER, texts.controller_script(self.plan))

    def start_node(self, name: str) -> None:
        """Starts a node that is not running, as after `kill_node`."""
        if name in self.processes():
            return
        self._start_namespaces(name, self._enter(CONTROLLER), "slave")
        cable = texts.cable_script(self.plan, name, self.processes()[name])
        inside = ["nsenter", f"--net=/proc/{self.processes()[CONTROLLER]}/ns/net"]
        self._call([*inside, "bash", "-c", cable])
        self._script(name, texts.node_script(self.plan, name))

    def _start_namespaces(self, name: str, inside: list[str], propagation: str) -> None:
        words = [*inside, "unshare", *NAMESPACES, "--fork", "--mount-proc"]
        words += ["--propagation", propagation, *machines.FIRST_PROCESS, str(self.folder), name]
        quiet = subprocess.DEVNULL
        started = subprocess.Popen(
            words,
            env=self.environment(),
            stdin=quiet,
            stdout=quiet,
            stderr=quiet,
            start_new_session=True,
        )
        _CHILDREN.append(started)
        until(lambda: name in self.processes(), f"the namespaces of {name}", 10)

    def wait_until_idle(self, timeout: float = 60) -> None:
        """Waits until every node is idle."""
        until(
            lambda: self.node_states() == dict.fromkeys(self.nodes, "idle"),
            lambda: f"idle nodes; now {self.node_states()}\n{self.logs()}",
            timeout,
        )

    # ------------------------------------------------------------ what is there

    def machines(self) -> list[machines.Machine]:
        """The controller and the nodes that are up."""
        return [it for it in machines.machines() if it.folder == str(self.folder)]

    def processes(self) -> dict[str, int]:
        """The first process of the controller and of every living node, as this machine counts."""
        return {machine.name: machine.pid for machine in self.machines()}

    def find(self, text: str) -> list[str]:
        """The node of each process whose command line contains a text."""
        names = {machine.namespace: machine.name for machine in self.machines()}
        found = machines.inside(names)
        return sorted(names[it.namespace] for it in found if text in " ".join(it.words))

    def node_states(self) -> dict[str, str]:
        """Slurm's word for each node (`idle`, `allocated`, `down*` …); empty when it is silent."""
        done = self.run("sinfo", "-h", "-N", "-p", "batch", "-o", "%N %T", check=False)
        return dict(line.split() for line in done.stdout.splitlines() if len(line.split()) == 2)

    def logs(self, lines: int = 15) -> str:
        """The ends of the daemons' logs."""
        paths = sorted(self.folder.glob("*.log")) + sorted(self.folder.glob("munge/log"))
        ends = {path: path.read_text(errors="replace").splitlines()[-lines:] for path in paths}
        return "\n".join(f"--- {path.name}\n" + "\n".join(end) for path, end in ends.items())

    # ------------------------------------------------------------ running

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """What a person who has logged in to the cluster would have."""
        alien = ("SLURM_", "SBATCH_", "SRUN_", "PMIX_", "OMPI_", "PRTE_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(alien)}
        own = {
            "PATH": host.search_path(),
            "SLURM_CONF": str(self.plan.slurm_conf),
            "TMPDIR": str(self.plan.scratch),
        }
        return {**kept, **own, **(extra or {})}

    def command(self, *words: object, on: str = CONTROLLER, cwd: Path | None = None) -> list[str]:
        """The command line that runs WORDS on a node."""
        return [*self._enter(on), "env", "-C", str(cwd or Path.cwd()), *map(str, words)]

    def run(
        self,
        *words: object,
        on: str = CONTROLLER,
        check: bool = True,
        timeout: float = 120,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command on a node, by default the login node, and returns what it printed."""
        return self._call(self.command(*words, on=on, cwd=cwd), check, timeout, env)

    def _enter(self, name: str) -> list[str]:
        pid = self.processes().get(name)
        if pid is None:
            raise ClusterError(f"{name} is not up; up are {sorted(self.processes())}")
        return ["nsenter", f"--target={pid}", *NAMESPACES]

    def _script(self, name: str, script: str) -> None:
        self._call([*self._enter(name), "bash", "-c", script])

    def _call(
        self,
        words: Sequence[str],
        check: bool = True,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            words,
            env=self.environment(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode:
            raise ClusterError(
                f"{' '.join(words)}\nended with {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done

    # ------------------------------------------------------------ jobs

    def submit(self, script: str, *options: object, cwd: Path, name: str = "job") -> int:
        """Submits a job script; its output goes to `NAME-JOBID.out` in `cwd`.

        Args:
            script: the text; a first line `#!/bin/bash` is put before it when it has none.
            options: of sbatch.
            cwd: the folder it starts in.
            name: of the job.

        Returns:
            The job's number.
        """
        path = cwd / f"{name}.sbatch"
        path.write_text(script if script.startswith("#!") else f"#!/bin/bash\n{script}")
        output = [f"--job-name={name}", f"--output={cwd}/{name}-%j.out"]
        done = self.run("sbatch", "--parsable", *output, *options, path, cwd=cwd)
        return int(done.stdout.split(";")[0])

    def job(self, number: int) -> dict[str, str]:
        """What Slurm knows of a job: JobState, ExitCode, NodeList, Restarts, StdOut …"""
        ask = ("scontrol", "show", "job", "-o", number)
        # On a machine that is busy with ranks an answer may come too late; the next one will not.
        answer = self.run(*ask, check=False).stdout or self.run(*ask).stdout
        return dict(word.split("=", 1) for word in answer.split() if "=" in word)

    def state(self, number: int) -> str:
        """PENDING, RUNNING, COMPLETED, FAILED, NODE_FAIL …"""
        return self.job(number)["JobState"]

    def output(self, number: int) -> str:
        """What the job has printed so far."""
        path = Path(self.job(number)["StdOut"])
        return path.read_text(errors="replace") if path.exists() else ""

    def wait(self, number: int, timeout: float = 300) -> str:
        """Waits for the end of a job; its last state."""
        self.wait_for_state(number, GONE, timeout)
        return self.state(number)

    def wait_for_state(self, number: int, states: set[str], timeout: float = 60) -> None:
        """Waits until a job is in one of these states."""
        until(
            lambda: self.state(number) in states,
            lambda: f"job {number} in {states}; now {self.job(number)}\n{self.output(number)}",
            timeout,
        )

    # ------------------------------------------------------------ breaking

    def kill_node(self, name: str) -> None:
        """Switches a node off: all its processes and its network end at once."""
        pid = self.processes()[name]
        os.kill(pid, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{pid}").exists(), f"the death of {name}", 10)

    def cut_link(self, name: str) -> None:
        """Pulls the plug of a node's network cable."""
        self.run("ip", "link", "set", texts.port(name), "down")

    def mend(self) -> None:
        """Ends all jobs, brings back what was broken, and waits until every node is idle."""
        self.run("scancel", "--user=root")
        for name in self.nodes:
            self.start_node(name)
            self.run("ip", "link", "set", texts.port(name), "up")
        # Has every node report. By itself the controller asks a lost one now and then, and 60 s
        # were seen not to be enough.
        self.run("scontrol", "reconfigure")
        self.wait_until_idle(timeout=180)

    def mount_disk(self, folder: Path, size: str, on: str = CONTROLLER) -> None:
        """Mounts an empty disk of SIZE (`4m`) over a folder.

        Args:
            on: the node that has it; a disk of the controller is shared by all nodes.
        """
        self.run("mount", "-t", "tmpfs", "-o", f"size={size},mode=1777", "tmpfs", folder, on=on)

    def unmount_disk(self, folder: Path, on: str = CONTROLLER) -> None:
        """Takes such a disk away with all that is on it."""
        self.run("umount", "--lazy", folder, on=on)

    def fill_disk(self, folder: Path, on: str = CONTROLLER) -> None:
        """Writes to a disk of `mount_disk` until nothing more fits."""
        kind = self.run("stat", "-f", "-c", "%T", folder, on=on).stdout.strip()
        if kind != "tmpfs":  # never fill the disk of the machine itself
            raise ClusterError(f"{folder} is no disk of mount_disk, but {kind}")
        self.run("dd", "if=/dev/zero", f"of={folder}/.filler", "bs=4k", on=on, check=False)

    def free_disk(self, folder: Path, on: str = CONTROLLER) -> None:
        """Makes room again after `fill_disk`."""
        self.run("rm", "-f", folder / ".filler", on=on)


_CHILDREN: list[subprocess.Popen[bytes]] = []


def until(condition: Callable[[], object], what: Any, timeout: float) -> float:
    """Asks again and again until something is so.

    Args:
        condition: is asked ten times a second, and twice a second after ten seconds.
        what: is waited for; a text, or a function that makes it, for the error.
        timeout: in seconds.

    Returns:
        The seconds that it took.

    Raises:
        ClusterError: when it is still not so after the timeout.
    """
    start = time.monotonic()
    while not condition():
        waited = time.monotonic() - start
        if waited > timeout:
            text = what() if callable(what) else what
            raise ClusterError(f"waited {timeout:.0f} s in vain for {text}")
        for child in _CHILDREN:
            child.poll()  # reaps it when it has ended
        time.sleep(0.1 if waited < 10 else 0.5)
    return time.monotonic() - start


def main() -> None:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the cluster [%(default)s]")
    actions = parser.add_subparsers(dest="action", required=True)
    up = actions.add_parser("up", help="bring it up, or mend it")
    up.add_argument("--nodes", type=int, default=4)
    up.add_argument("--cpus", type=int, default=2, help="of each node")
    up.add_argument("--bandwidth", help="of each link, as tc writes it (100mbit)")
    actions.add_parser("down", help="take it down, with all its processes")
    actions.add_parser("status", help="the nodes and the jobs")
    for name in ("shell", "run"):
        action = actions.add_parser(name, help=f"{name} on a node")
        action.add_argument("--on", default=CONTROLLER, help="the node [%(default)s: log in]")
        if name == "run":
            action.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    try:
        sys.exit(_act(given))
    except ClusterError as error:
        sys.exit(f"cluster: {error}")


def _act(given: argparse.Namespace) -> int:
    cluster = Cluster(folder=given.folder)
    if given.action == "up":
        host.make_ready()
        Cluster(given.nodes, given.cpus, given.bandwidth, given.folder).up()
    elif given.action == "down":
        cluster.down()
    elif CONTROLLER not in cluster.processes():
        print("the cluster is down")
        return 1
    else:
        words = {
            "status": ["bash", "-c", "sinfo -N -l; squeue -l"],
            "shell": [os.environ.get("SHELL", "bash")],
            "run": getattr(given, "command", []),
        }[given.action]
        line = cluster.command(*words, on=getattr(given, "on", CONTROLLER))
        return subprocess.run(line, env=cluster.environment()).returncode
    return 0


if __name__ == "__main__":
    main()
