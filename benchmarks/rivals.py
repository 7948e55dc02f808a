"""What a user would take instead of ba_dist's group reader, for `group_io.py` to compare with.

    tf.data            every rank reads and decodes the whole batch itself
    tf.data service    one worker process reads and decodes, all ranks fetch the batch from it
    streaming          mosaicml-streaming with replication = M: every rank decodes the whole batch

Each gives every rank of a group the same decoded batch, uint8 [64, 375, 500, 3], in the same order.
A rival is called with a number of batches and returns the times at which they came, in seconds.
"""

import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ranks import Helper, patient_barrier

from ba_dist.comm import Comm
from ba_dist.errors import UserError

# Of the square that is made ready for the network, and by what it is standardised.
SIDE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Batches of a turn that are not counted: nothing is made behind them, so they come faster.
BEHIND = 4
_FEATURES = {"image": "image/encoded", "label": "image/class/label"}


def arrivals(batches: Iterator[Any], count: int) -> list[float]:
    """Takes `count` batches, as fast as they come."""
    times = []
    for _ in range(count):
        next(batches)
        times.append(time.perf_counter())
    return times


# --- tf.data --------------------------------------------------------------------------------------


def decoded_batches(data_dir: Path, batch_size: int, threads: int) -> Any:
    """A dataset of (images, labels) without end, in the order of the files.

    Args:
        data_dir: holds train-?????-of-?????.
        batch_size: photographs a batch.
        threads: that parse and decode.
    """
    import tensorflow as tf

    wanted = {
        _FEATURES["image"]: tf.io.FixedLenFeature((), tf.string),
        _FEATURES["label"]: tf.io.FixedLenFeature((), tf.int64),
    }

    def decode(record: Any) -> tuple[Any, Any]:
        features = tf.io.parse_single_example(record, wanted)
        image = tf.io.decode_jpeg(features[_FEATURES["image"]], channels=3)
        return image, features[_FEATURES["label"]]

    files = sorted(str(path) for path in data_dir.glob("train-*-of-*"))
    dataset = tf.data.TFRecordDataset(files).repeat()
    dataset = dataset.map(decode, num_parallel_calls=threads, deterministic=True)
    return dataset.batch(batch_size, drop_remainder=True).prefetch(2)


def ready_batches(data_dir: Path, batch_size: int, threads: int) -> Any:
    """The same photographs ready for the network: random boxes, mirrored or not, standardised.

    What a script for ImageNet does: only the box is decoded, and resized by one bilinear sample.

    Args:
        data_dir: holds train-?????-of-?????.
        batch_size: photographs a batch.
        threads: that parse, decode and augment.
    """
    import tensorflow as tf

    wanted = {
        _FEATURES["image"]: tf.io.FixedLenFeature((), tf.string),
        _FEATURES["label"]: tf.io.FixedLenFeature((), tf.int64),
    }
    scale = tf.constant([1 / (255 * std) for std in STD])
    offset = tf.constant([mean / std for mean, std in zip(MEAN, STD, strict=True)])

    def make(record: Any) -> tuple[Any, Any]:
        features = tf.io.parse_single_example(record, wanted)
        encoded = features[_FEATURES["image"]]
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(encoded),
            tf.zeros([1, 0, 4]),
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
            seed=1,  # where operations must be deterministic there has to be one
        )
        window = tf.concat([begin[:2], size[:2]], 0)
        image = tf.io.decode_and_crop_jpeg(encoded, window, channels=3)
        image = tf.image.random_flip_left_right(tf.image.resize(image, (SIDE, SIDE)), seed=2)
        return image * scale - offset, features[_FEATURES["label"]]

    files = sorted(str(path) for path in data_dir.glob("train-*-of-*"))
    dataset = tf.data.TFRecordDataset(files).repeat()
    dataset = dataset.map(make, num_parallel_calls=threads, deterministic=True)
    return dataset.batch(batch_size, drop_remainder=True).prefetch(2)


def own_threads(dataset: Any, threads: int) -> Any:
    """The same dataset, computed by so many threads."""
    import tensorflow as tf

    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    return dataset.with_options(options)


class TfData:
    """Every rank reads and decodes all of every batch, as scripts without groups do.

    Args:
        data_dir: of the shards.
        batch_size: photographs a batch.
        threads: that parse, decode and augment.
        ready: the batches are ready for the network.
    """

    def __init__(self, data_dir: Path, batch_size: int, threads: int, ready: bool = False):
        batches = ready_batches if ready else decoded_batches
        self._dataset = own_threads(batches(data_dir, batch_size, threads), threads)
        self._behind = BEHIND if ready else 0

    def __call__(self, count: int) -> list[float]:
        behind = count + self._behind
        return arrivals(iter(self._dataset.take(behind)), behind)[:count]

    def close(self) -> None:
        """Nothing is kept between turns."""


# --- tf.data service ------------------------------------------------------------------------------


class Service:
    """tf.data service: a dispatcher and a worker in one process, the ranks its clients.

    `cross_trainer_cache` is what its documentation recommends for trainers that share their data:
    the worker computes a batch once, keeps it, and gives it to every trainer. One worker, because
    only then do all trainers get the batches in the same order; it may use all cores. Batches go
    uncompressed, which is fastest on one machine.

    Args:
        comm: the ranks; collective.
        data_dir: of the shards.
        batch_size: photographs a batch.
        threads: that decode, of all ranks together.
    """

    def __init__(self, comm: Comm, data_dir: Path, batch_size: int, threads: int):
        self._server = None
        address = None
        if comm.rank == 0:
            here = str(Path(__file__).resolve())
            self._server = Helper([sys.executable, here], {}, all_cores=True)
            address = self._server.ask({"threads": threads})
        address = comm.world.share_object(address)
        self._address, self._turn, self._trainer = address, 0, f"rank {comm.rank}"
        self._batches = decoded_batches(data_dir, batch_size, threads)

    def __call__(self, count: int) -> list[float]:
        # A new job each turn: nothing that was fetched ahead in the last one counts in this one.
        self._turn += 1
        batches = iter(self.job(f"photographs {self._turn}"))
        times = arrivals(batches, count)
        del batches
        gc.collect()  # tells the service that this client has left
        return times

    def job(self, name: str) -> Any:
        """The batches of a job of this name, which are the same for all trainers."""
        import tensorflow as tf

        service = tf.data.experimental.service
        return self._batches.apply(
            service.distribute(
                processing_mode=service.ShardingPolicy.OFF,
                service=self._address,
                job_name=name,
                compression=None,
                cross_trainer_cache=service.CrossTrainerCache(trainer_id=self._trainer),
            )
        )

    def close(self) -> None:
        """Ends the service, when all its clients have left; collective."""
        patient_barrier()
        if self._server:
            self._server.close()


def serve() -> None:
    """The process of the service: answers with its address, and ends with its input."""
    from ba_dist import runtime

    runtime.quiet()
    threads = json.loads(sys.stdin.readline())["threads"]
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    service = tf.data.experimental.service
    # Jobs of earlier turns go, with the batches that they keep.
    dispatcher = service.DispatchServer(
        service.DispatcherConfig(job_gc_check_interval_ms=500, job_gc_timeout_ms=500)
    )
    address = dispatcher.target.split("://")[1]
    worker = service.WorkerServer(
        service.WorkerConfig(dispatcher_address=address, heartbeat_interval_ms=500)
    )
    print(json.dumps(dispatcher.target), flush=True)
    sys.stdin.read()
    # Stopping them in order would wait for their clients.
    del worker
    os._exit(0)


# --- mosaicml-streaming ---------------------------------------------------------------------------


class Streaming:
    """mosaicml-streaming's StreamingDataset(replication=M) under PyTorch's DataLoader.

    It lives in an environment of its own, so each rank has a helper there.

    Args:
        python: interpreter of that environment.
        comm: the ranks.
        data_dir: of the photographs in its own format.
        batch_size: photographs a batch.
        threads: processes of the DataLoader.
        ready: the batches are ready for the network.
    """

    def __init__(
        self,
        python: str,
        comm: Comm,
        data_dir: Path,
        batch_size: int,
        threads: int,
        *,
        ready: bool = False,
    ):
        program = str(Path(__file__).resolve().with_name("streaming_rank.py"))
        port = comm.world.share_object(free_port() if comm.rank == 0 else None)
        variables = {
            "RANK": comm.rank,
            "LOCAL_RANK": comm.rank,
            "WORLD_SIZE": comm.world_size,
            "LOCAL_WORLD_SIZE": comm.world_size,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "OMP_NUM_THREADS": threads,
        }
        self._helper = Helper([python, program], {name: f"{v}" for name, v in variables.items()})
        settings: dict[str, Any] = {"data_dir": str(data_dir), "batch_size": batch_size}
        settings |= {"threads": threads, "replication": comm.world_size, "ready": None}
        if ready:
            settings["ready"] = {"side": SIDE, "mean": MEAN, "std": STD}
        self._helper.ask(settings)

    def __call__(self, count: int) -> list[float]:
        times: list[float] = self._helper.ask(count)
        return times

    def close(self) -> None:
        """Ends this rank's helper."""
        self._helper.close()


def mds_folder(data_dir: Path) -> Path:
    """Where the photographs lie in the library's own format."""
    return data_dir / "mds"


def write_mds(python: str, photographs: Iterator[bytes], data_dir: Path) -> None:
    """Writes photographs in that format, unless they are there.

    Raises:
        UserError: when the interpreter has no mosaicml-streaming.
    """
    if (mds_folder(data_dir) / "index.json").exists():
        return
    program = Path(__file__).resolve().with_name("streaming_rank.py")
    with tempfile.TemporaryDirectory() as folder:
        for i, encoded in enumerate(photographs):
            Path(folder, f"{i:06d}.JPEG").write_bytes(encoded)
        line = [python, str(program), folder, str(mds_folder(data_dir))]
        try:
            subprocess.run(line, check=True, capture_output=True, text=True)
        except OSError as error:
            raise UserError(f"--streaming-python {python} cannot be run: {error}") from None
        except subprocess.CalledProcessError as error:
            raise UserError(
                f"--streaming-python {python} cannot write its format:"
                f" {error.stderr.strip().splitlines()[-1]}"
            ) from None


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


if __name__ == "__main__":
    serve()
