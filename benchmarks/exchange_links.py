"""The two ways to exchange a batch between nodes, and the choice, on links of several speeds.

    python benchmarks/exchange_links.py --layouts 2:1,2:2,4:1 --bandwidths free,1gbit,100mbit

Root on Debian, as tests/cluster. All ranks of all nodes form one group, and `group_io.py` has the
records travel between nodes (`cooperative-encoded`), or the decoded images (`cooperative`), or what
`ba-dist train` would choose (`auto`). The nodes share this machine's cores.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import click
from cluster_jobs import FREE, bandwidths_option, cluster, run
from harness import Report, Table, count_option, one_message, output_option, output_path

from ba_dist.errors import UserError

CONTENDERS = ("cooperative-encoded", "cooperative", "auto")


def layouts_of(text: str) -> list[tuple[int, int]]:
    """(nodes, ranks a node) of each of `2:1,2:2`.

    Raises:
        UserError: where it is written otherwise, or a node would have more than two ranks.
    """
    try:
        found = [tuple(map(int, layout.split(":"))) for layout in text.split(",")]
        if all(len(it) == 2 and it[0] > 1 and it[1] in (1, 2) for it in found):
            return [(nodes, ranks) for nodes, ranks in found]
    except ValueError:
        pass
    raise UserError(f"--layouts {text}: expected nodes:ranks of a node, as 2:1,2:2; 1 or 2 ranks")


def behind(rates: dict[str, float]) -> float:
    """How far the choice is behind the better way, in percent; below 0 where it is ahead."""
    return 100 * (1 - rates["auto"] / max(rates[name] for name in CONTENDERS[:2]))


@click.command(context_settings={"max_content_width": 100})
@click.option("--layouts", default="2:1,2:2", show_default=True, help="Nodes:ranks of a node, …")
@bandwidths_option
@count_option("--rounds", 5, "Of each contender.")
@count_option("--photos", 256, "Of the dataset.")
@output_option
@one_message
def main(layouts, bandwidths, rounds, photos, output):
    """Hold the choice of an exchange against both ways, on nodes with links of several speeds."""
    wanted = layouts_of(layouts)
    report = Report("exchange_links", {"layouts": layouts, "bandwidths": bandwidths})
    table = Table(
        "Images per second and rank, all ranks one group",
        ["nodes", "ranks a node", "links", *CONTENDERS, "+-", "behind %"],
    )
    report.tables.append(table)
    report.notes.append("+-: of auto; behind: auto against the better of the two, negative: ahead")
    path = output_path("exchange_links", output)
    with tempfile.TemporaryDirectory() as scratch:
        for nodes, ranks in wanted:
            for bandwidth in bandwidths.split(","):
                rows = _measured(nodes, ranks, bandwidth, (rounds, photos), Path(scratch))
                rates = {name: rows[name]["median"] for name in CONTENDERS}
                label = "not limited" if bandwidth == FREE else bandwidth
                table.add(nodes, ranks, label, *rates.values(), rows["auto"]["deviation"],
                          behind(rates))  # fmt: skip
                where = {"nodes": nodes, "ranks_per_node": ranks, "links": bandwidth}
                report.results.append({**where, **rows, "behind": behind(rates)})
                report.write(path)  # what was measured is kept where a later one fails
    report.show(path)


def _measured(
    nodes: int, ranks: int, bandwidth: str, counts: tuple[int, int], scratch: Path
) -> dict[str, Any]:
    """Contender → images per second and rank, as `harness.measure` tells it."""
    here = Path(tempfile.mkdtemp(dir=scratch))
    rounds, photos = counts
    with cluster(nodes, bandwidth) as up:
        words = f"python benchmarks/group_io.py --contenders {','.join(CONTENDERS)}"
        words += f" --rounds {rounds} --seconds 1 --photos {photos}"
        # One dataset for all.
        words += f" --data-dir {scratch}/photos --output {here}/group_io.json"
        run(up, here, "group_io", words, ranks)
    results = json.loads((here / "group_io.json").read_text())["results"]
    return {row["contender"]: row["images_per_second_per_rank"] for row in results}


if __name__ == "__main__":
    main()
