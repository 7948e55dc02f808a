"""Predicted against measured on the test cluster: four nodes, links as they are and slower ones.

    python benchmarks/prediction_links.py --bandwidths free,1gbit,100mbit

Root on Debian, as tests/cluster. On free links the nodes are calibrated. A slower link is
predicted twice: from that file with the link's nominal bandwidth in it, without any measurement on
it, and from a calibration on it. What is measured is `scaling.py` with a wait in place of the
network: a sum of --gradient-mb and the exchange of decoded images cross the links. All nodes share
this machine's cores, so images lie in memory and are hardly touched.
"""

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import click
from cluster_jobs import FREE, bandwidths_option, cluster, run
from harness import Report, Table, measure, one_message, output_option, output_path
from prediction import of_scaling

from ba_dist.errors import UserError
from ba_dist.planner import Machine, read_machine

NODES = 4
CALIBRATE = "--model resnet8 --image-size 16 --batch-sizes 4,8 --seconds 4 --files 8"
NOMINAL = {"1gbit": 1e9 / 8, "100mbit": 1e8 / 8, "10gbit": 1e10 / 8}


def measured(bandwidth: str, scaling: str, folder: Path) -> tuple[Machine, dict[str, Any]]:
    """(what calibration says of the cluster, the content of scaling.json) with such links."""
    here = folder / bandwidth
    here.mkdir()
    with cluster(NODES, bandwidth) as up:
        run(up, here, "calibrate", f"calibrate --output {here}/machine.toml {CALIBRATE}"
            f" --storage {here}")  # fmt: skip
        run(up, here, "scaling", f"python benchmarks/scaling.py {scaling}"
            f" --output {here}/scaling.json")  # fmt: skip
    return read_machine(here / "machine.toml"), json.loads((here / "scaling.json").read_text())


@click.command(context_settings={"max_content_width": 100})
@bandwidths_option
@click.option("--compute-ms", default=300.0, show_default=True, help="Of a step's wait.")
@click.option("--gradient-mb", default=4.0, show_default=True, help="That are summed.")
@click.option("--multiplicity", default=4, show_default=True, help="M.")
@click.option(
    "--group-sizes", default="1,2,4", show_default=True, help="R, the layouts that are compared."
)
@output_option
@one_message
def main(bandwidths, compute_ms, gradient_mb, multiplicity, group_sizes, output):
    """Hold predictions against runs on four nodes with links of several bandwidths."""
    names = bandwidths.split(",")
    if names[0] != FREE or set(names[1:]) - set(NOMINAL):
        raise UserError(f"--bandwidths: free, then any of {', '.join(NOMINAL)}")
    scaling = (
        f"--multiplicities {multiplicity} --group-sizes {group_sizes}"
        f" --compute-ms {compute_ms} --gradient-mb {gradient_mb}"
        " --input arrays --batch-per-rank 8 --rounds 3 --steps 10 --warm-up 4"
    )
    report = Report("prediction_links", {"bandwidths": names, "scaling": scaling})
    made = Table(
        f"Steps/s on four nodes, M = {multiplicity}",
        ["links", "R", "seen", "+-", "from free links", "off %", "calibrated", "off %"],
    )
    free: Machine | None = None
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            machine, content = measured(name, scaling, Path(folder))
            free = free or machine
            slow = min(free.network.bandwidth, NOMINAL.get(name, free.network.bandwidth))
            network = dataclasses.replace(free.network, bandwidth=slow)
            nominal = dataclasses.replace(free, network=network)
            report.notes.append(choice(name, content, nominal))
            for row in content["results"]:
                seen = row["steps_per_second"]
                found = [of_scaling(row, content["settings"], m) for m in (nominal, machine)]
                offs = [100 * (rate / seen["median"] - 1) for rate in found]
                made.add(name, row["group_size"], seen["median"], seen["deviation"],
                         found[0], offs[0], found[1], offs[1])  # fmt: skip
                links = dataclasses.asdict(machine.network)
                report.results.append({"links": name, **row, "predicted": found, "network": links})
    report.tables.append(made)
    report.notes.append(f"median of off: {measure(abs(o) for o in _offs(made)).median:.1f} %")
    path = output_path("prediction_links", output)
    report.write(path)
    report.show(path)


def choice(links: str, content: dict[str, Any], machine: Machine) -> str:
    """How the layout that is predicted to be the fastest compares with the one that was."""
    results = content["results"]
    taken = max(results, key=lambda row: of_scaling(row, content["settings"], machine))
    seen = taken["steps_per_second"]["median"]
    best = max(row["steps_per_second"]["median"] for row in results)
    behind = 100 * (1 - seen / best)
    return f"{links}: predicted as the fastest R = {taken['group_size']}, {behind:.0f} % behind"


def _offs(made: Table) -> list[float]:
    return [row[column] for row in made.rows for column in (5, 7)]


if __name__ == "__main__":
    main()
