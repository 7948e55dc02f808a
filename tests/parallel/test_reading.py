"""The three modes of reading a group's batch: the same batches, at a different price."""

import json

import numpy as np
import pytest
from array_record.python import array_record_module

from tests.parallel.ranks import WORLD_SIZES, program

RECORDS = 150
STEPS = 3


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """150 images of different sizes, about 60 kB each, in one ArrayRecord file."""
    path = tmp_path_factory.mktemp("records") / "records.array_record"
    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    numbers = np.random.default_rng(7)
    images = []
    for i in range(RECORDS):
        height, width = numbers.integers(100, 200, 2)
        pixels = numbers.integers(0, 256, (height, width, 3), np.uint8)
        images.append(pixels)
        writer.write(bytes([height, i]) + pixels.tobytes())
    writer.close()
    return path, images


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", WORLD_SIZES)
def test_modes_give_the_same_batches_and_share_the_reads(ranks, records, tmp_path):
    path, images = records
    (tmp_path / path.name).symlink_to(path)
    program("reading.py", ranks, tmp_path)
    results = [json.loads((tmp_path / f"rank-{r}.json").read_text()) for r in range(ranks)]
    for result in results:
        batches = [mode["batches"] for mode in result["modes"].values()]
        assert batches[0] == batches[1] == batches[2]
        for _, ids, _, shapes, labels in batches[0]:
            assert labels == ids
            assert shapes == [list(images[i].shape) for i in ids]
    size = results[0]["group_size"]
    samples = STEPS * 8 * ranks // size  # b = 8 a group and step
    kernel = {}
    for mode, factor in (("replicate", size), ("broadcast", 1), ("cooperative", 1)):
        costs = [result["modes"][mode] for result in results]
        assert sum(cost["records_read"] for cost in costs) == factor * samples
        kernel[mode] = sum(cost["kernel_bytes"] for cost in costs)
    groups = {result["group"]: result["modes"]["replicate"]["batches"] for result in results}
    wanted = sum(
        images[i].nbytes + 2 for batches in groups.values() for batch in batches for i in batch[1]
    )
    for mode, factor in (("replicate", size), ("broadcast", 1), ("cooperative", 1)):
        # The kernel also counts record headers and what MPI itself reads: under 5 %.
        assert wanted * factor <= kernel[mode] < 1.05 * wanted * factor, mode
    decoded = [
        sum(result["modes"][mode]["records_decoded"] for result in results)
        for mode in ("replicate", "broadcast", "cooperative")
    ]
    assert decoded == [size * samples, size * samples, samples]
