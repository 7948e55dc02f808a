"""The bytes that a group reads from storage, counted from outside the program that reads them.

`observe` runs this file's `main` on the ranks under strace, which sees every call by which any of
their threads reads from a file of the dataset. What MPI reads and what the index costs is not
among them: those are other files.
"""

import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from harness import leave
from ranks import run_ranks

BATCHES = 6
_CALLS = "read,readv,pread64,preadv,preadv2,faccessat,faccessat2,access"
_READ = re.compile(r"\bp?readv?2?(?:64)?\(\d+<(?P<path>[^>]*)>.*= (?P<bytes>\d+)$")
_RESUMED = re.compile(r"<\.\.\. (?P<call>\w+) resumed>.*= (?P<bytes>\d+)$")
_BEGUN = re.compile(r"\bp?readv?2?(?:64)?\(\d+<(?P<path>[^>]*)>.*<unfinished \.\.\.>$")
_MARK = re.compile(r'"(?:[^"]*/)?begin-(?P<name>[a-z-]+)"')


def observe(ranks: int, modes: list[str], data_dir: Path, batch_size: int) -> dict[str, int]:
    """Mode → bytes that all ranks of a group read from the files in `data_dir`, for `BATCHES`.

    Raises:
        UserError: when strace may not watch here, or the ranks fail.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "strace.log")
        tracer = [
            "strace",
            "--follow-forks",
            "--decode-fds=path",
            "--quiet=all",
            "--string-limit=64",
            f"--trace={_CALLS}",
            f"--output={log}",
        ]
        words = [__file__, f"{data_dir}", f"{batch_size}", *modes]
        run_ranks(ranks, words, tracer)
        with log.open(errors="replace") as lines:
            counted = count(lines, f"{data_dir.resolve()}/train")
    return {mode: counted[mode] for mode in modes}


def available() -> bool:
    """Whether strace is installed."""
    return shutil.which("strace") is not None


def count(lines: Iterable[str], prefix: str) -> Counter[str]:
    """Mode → bytes read, from a log of strace with process ids and decoded descriptors.

    Args:
        lines: of the log, in the order of time.
        prefix: of the files that count.
    """
    totals: Counter[str] = Counter()
    mode, pending = "", {}
    for line in lines:
        process = line.split(maxsplit=1)[0]
        if mark := _MARK.search(line):
            mode = mark["name"]
        elif begun := _BEGUN.search(line):
            pending[process] = begun["path"]
        elif resumed := _RESUMED.search(line):
            path = pending.pop(process, "")
            totals[mode] += int(resumed["bytes"]) * path.startswith(prefix)
        elif read := _READ.search(line):
            totals[mode] += int(read["bytes"]) * read["path"].startswith(prefix)
    return totals


def main() -> None:
    """Reads `BATCHES` in each mode, on a rank: arguments DATA_DIR BATCH_SIZE MODE…"""
    from contenders import OURS
    from ranks import my_threads

    from ba_dist import comm as ba_comm
    from ba_dist.config import Data
    from ba_dist.data.catalog import open_dataset
    from ba_dist.data.group.group_reader import GroupReader
    from ba_dist.data.sources import workers
    from ba_dist.rules.layout import Layout
    from ba_dist.rules.order import GroupSampler

    data_dir, batch_size, *modes = sys.argv[1:]
    comm = ba_comm.start()
    layout = Layout(comm.world_size, comm.world_size, int(batch_size))
    source = open_dataset(Data("pictures", data_dir), comm).train
    with workers(my_threads(comm)) as pool:
        for mode in modes:
            comm.world.barrier()
            if comm.rank == 0:
                os.access(f"begin-{mode}", os.F_OK)  # seen by strace, and nothing else
            comm.world.barrier()
            sampler = GroupSampler(len(source), 0, layout, 0)
            reader = GroupReader(
                source, sampler, comm.group(layout), OURS[mode], first=0, last=BATCHES, workers=pool
            )
            for _ in reader:
                reader.advance()
            reader.close()


if __name__ == "__main__":
    if len(sys.argv) < 4:
        leave("group_io.py runs this; see `python benchmarks/group_io.py --help`")
    main()
