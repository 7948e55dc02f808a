"""Encoded records in ArrayRecord files, read by index.

The library checks a hash of every chunk that it reads. In files written with group_size:1, as
TensorFlow Datasets does, every record is a chunk. The library releases Python's lock while it
reads, one reader serves several threads, and a reader still works after a corrupt record (tested
with array_record 0.8.1). A file with a corrupt header or footer is opened as an empty file.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ba_dist.data.sources import Allocate, Counters, Image, ImageInfo, new_memory
from ba_dist.data.sources.files import OpenFiles, open_files_limit
from ba_dist.errors import CorruptRecord, DataError, reason

Decoder = Callable[[bytes, Allocate], tuple[Image, int]]

# No threads and no reading ahead, because the order of samples is random. Small buffers, because
# there may be a thousand files.
_OPTIONS = {
    "options": "readahead_buffer_size:0,max_parallelism:0",
    "file_reader_buffer_size": 32768,
}


def survey(files: Sequence[Path]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """How many records and how many bytes are in each file, both int64 [files].

    Raises:
        DataError: naming a file that is missing or is no ArrayRecord file.
    """

    def one(path: Path) -> tuple[int, int]:
        if not path.is_file():
            raise DataError(f"{path} is missing")
        # A file with a corrupt header or footer is opened as an empty file.
        if count := int(_open(path).num_records()):
            return count, path.stat().st_size
        raise DataError(f"{path} is no ArrayRecord file, is corrupt, or holds no records")

    with ThreadPoolExecutor(16, "survey") as pool:
        counts, sizes = np.array(list(pool.map(one, files)), np.int64).T
    return counts, sizes


def _open(path: Path) -> Any:
    from array_record.python.array_record_module import ArrayRecordReader

    try:
        return ArrayRecordReader(str(path), **_OPTIONS)
    except (ValueError, RuntimeError, IndexError, OSError) as error:
        raise DataError(f"{path} cannot be opened as ArrayRecord: {reason(error)}") from None


class ArrayRecordSource:
    """Samples in ArrayRecord files; only the records that are asked for are read.

    Args:
        info: facts of the dataset.
        files: in the order in which sample ids count through them.
        decoder: record and allocator → image uint8 [H, W, C] and label.
        counts: int64 [files], records in each file; found out where it is None.
        sizes: int64 [files], bytes of each file; found out where it is None.

    Raises:
        DataError: naming a file that is missing or is no ArrayRecord file.
    """

    stored = True

    def __init__(
        self,
        info: ImageInfo,
        files: Sequence[Path],
        decoder: Decoder,
        *,
        counts: npt.NDArray[np.int64] | None = None,
        sizes: npt.NDArray[np.int64] | None = None,
    ):
        self.info = info
        self.counters = Counters()
        self._decoder, self._files = decoder, list(files)
        if counts is None or sizes is None:
            counts, sizes = survey(files)
        self._ends = np.cumsum(counts)
        self.contents = [f"{f.name}: {size} bytes" for f, size in zip(files, sizes, strict=True)]
        self._readers = OpenFiles(self._reader, open_files_limit())

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, sample_id: int) -> bytes:
        number, index = self._find(sample_id)
        try:
            (record,) = self._readers[number].read([index])
        except DataError as error:
            raise CorruptRecord(str(error)) from None
        except (ValueError, RuntimeError, IndexError, OSError) as error:
            self._readers.forget(number)
            raise CorruptRecord(f"it cannot be read: {error or type(error).__name__}") from None
        self.counters.add(records_read=1, bytes_read=len(record))
        return bytes(record)

    def decode(self, record: bytes, allocate: Allocate = new_memory) -> tuple[Image, int]:
        self.counters.add(records_decoded=1)
        return self._decoder(record, allocate)

    def where(self, sample_id: int) -> str:
        number, index = self._find(sample_id)
        return f"{self._files[number]}, record {index}"

    def _find(self, sample_id: int) -> tuple[int, int]:
        """The file's number, and the record's number in it."""
        number = int(np.searchsorted(self._ends, sample_id, side="right"))
        return number, sample_id - (int(self._ends[number - 1]) if number else 0)

    def _reader(self, number: int) -> Any:
        self.counters.add(files_opened=1)
        return _open(self._files[number])
