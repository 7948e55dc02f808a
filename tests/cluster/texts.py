"""The files and scripts of the test cluster, as pure functions of what it shall be."""

from dataclasses import dataclass
from pathlib import Path

CONTROLLER = "ctl"
NETWORK = "10.111.0"
# Most job scripts ask for GPUs. Slurm counts those that it is told of, and looks at nothing but
# whether their files are devices.
GPUS = 8


@dataclass(frozen=True)
class Plan:
    """What the cluster shall be.

    Args:
        folder: everything of the cluster lives below it.
        nodes: how many there are: `node1` … `nodeN`.
        cpus: of each node, as Slurm counts them; the machine may have fewer.
        bandwidth: of each node's link in either direction, as `tc` writes it (`100mbit`); None
            leaves it as fast as the machine.
    """

    folder: Path
    nodes: int = 4
    cpus: int = 2
    bandwidth: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= 200:
            raise ValueError(f"a cluster of {self.nodes} nodes was asked for; 1 to 200 will do")
        if self.cpus < 1:
            raise ValueError(f"{self.cpus} CPUs a node were asked for; it needs at least 1")

    @property
    def names(self) -> list[str]:
        """Of the compute nodes."""
        return [f"node{number}" for number in range(1, self.nodes + 1)]

    @property
    def scratch(self) -> Path:
        """The folder that is each node's own, in memory: its TMPDIR."""
        return self.folder / "tmp"

    @property
    def slurm_conf(self) -> Path:
        return self.folder / "slurm.conf"

    @property
    def gpus(self) -> list[Path]:
        """The files that stand for the GPUs of each node."""
        return [self.folder / f"gpu{number}" for number in range(GPUS)]

    @property
    def munge_socket(self) -> Path:
        return self.folder / "munge" / "socket"


def address(name: str) -> str:
    """The IPv4 address of a node or of the controller."""
    if name == CONTROLLER:
        return f"{NETWORK}.1"
    return f"{NETWORK}.{10 + int(name.removeprefix('node'))}"


def hardware_address(name: str) -> str:
    """The MAC address of a node or of the controller, the same after each start, as of a real one.

    A node that came back with another was out of reach for up to 9 s from nodes that had talked to
    it before: their kernels still sent to the old address.
    """
    number = int(address(name).rpartition(".")[2])
    return f"02:ba:d1:00:00:{number:02x}"


def port(name: str) -> str:
    """The controller's end of a node's cable, a port of its bridge."""
    return f"to-{name}"


def hosts(plan: Plan) -> str:
    """What every node sees as /etc/hosts."""
    lines = ["127.0.0.1 localhost"]
    lines += [f"{address(name)} {name}" for name in [CONTROLLER, *plan.names]]
    return "\n".join(lines) + "\n"


def slurm_conf(plan: Plan) -> str:
    """The configuration of Slurm.

    Two partitions share all nodes: a job in `urgent` preempts jobs in `batch`, which get SIGTERM
    and a grace time first and are queued again.
    """
    nodes = "\n".join(
        f"NodeName={name} NodeAddr={address(name)} CPUs={plan.cpus} RealMemory=1000"
        f" Feature=gpu Gres=gpu:{GPUS} State=UNKNOWN"
        for name in plan.names
    )
    return f"""\
ClusterName=ba-dist-test
SlurmctldHost={CONTROLLER}({address(CONTROLLER)})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={plan.munge_socket}
StateSaveLocation={plan.folder}/state
SlurmctldPidFile={plan.folder}/slurmctld.pid
SlurmctldLogFile={plan.folder}/slurmctld.log
SlurmdSpoolDir={plan.folder}/spool/%n
SlurmdPidFile={plan.folder}/%n.pid
SlurmdLogFile={plan.folder}/%n.log
# Each node's own: PMIx keeps its sockets there.
TmpFS={plan.scratch}
MpiDefault=pmix
# Neither needs control groups, which containers may not change.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
# Believe the CPUs below rather than count those of the machine.
SlurmdParameters=config_overrides
# A dead node is noticed within seconds, and may come back.
SlurmdTimeout=15
ReturnToService=2
MessageTimeout=5
TCPTimeout=2
KillWait=5
# Jobs start at once, and what became of them can be asked for an hour.
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
MinJobAge=3600
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
{nodes}
PartitionName=batch Nodes=ALL Default=YES PriorityTier=1 GraceTime=30 PreemptMode=REQUEUE
PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""


def gres_conf(plan: Plan) -> str:
    """What Slurm is told of the nodes' GPUs."""
    return "AutoDetect=off\n" + "".join(f"Name=gpu File={path}\n" for path in plan.gpus)


def controller_script(plan: Plan) -> str:
    """Turns a bare set of namespaces into the controller: a switch, and Slurm's two daemons."""
    munge = plan.folder / "munge"
    return f"""\
set -eu
{_own_machine(plan, CONTROLLER)}
# What is mounted here later appears on the nodes too; what a node mounts stays its own.
mount --make-rshared /
ip link add switch address {hardware_address(CONTROLLER)} type bridge
ip addr add {address(CONTROLLER)}/24 dev switch
ip link set switch up
munged --key-file={munge}/key --socket={plan.munge_socket} --pid-file={munge}/pid \\
  --log-file={munge}/log --seed-file={munge}/seed
slurmctld -f {plan.slurm_conf}
"""


def node_script(plan: Plan, name: str) -> str:
    """Turns a bare set of namespaces, with the cable already in it, into a compute node."""
    return f"""\
set -eu
{_own_machine(plan, name)}
ip addr add {address(name)}/24 dev eth0
ip link set eth0 up
{limit(plan, "eth0")}
slurmd -f {plan.slurm_conf}
"""


def cable_script(plan: Plan, name: str, pid: int) -> str:
    """Joins a node, whose first process is `pid`, to the switch; run beside the controller."""
    return f"""\
set -eu
# Of a node that was killed: the kernel takes its network away when it finds the time.
ip link del {port(name)} 2>/dev/null || true
ip link add {port(name)} type veth peer name eth0 address {hardware_address(name)} netns {pid}
ip link set {port(name)} master switch up
{limit(plan, port(name))}
"""


def limit(plan: Plan, device: str) -> str:
    """The command that limits what leaves by a device; empty where nothing is limited."""
    if plan.bandwidth is None:
        return ""
    # The bucket holds what a fast link sends between two ticks of a slow clock (250 a second).
    return f"tc qdisc add dev {device} root tbf rate {plan.bandwidth} burst 256kb latency 50ms"


def _own_machine(plan: Plan, name: str) -> str:
    """What makes namespaces look like a machine of their own.

    Without a /dev/shm of its own, Open MPI's shared memory mixes up the nodes and crashes.
    """
    return f"""\
hostname {name}
mount --bind {plan.folder}/hosts /etc/hosts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=1777 tmpfs {plan.scratch}
ip link set lo up"""
