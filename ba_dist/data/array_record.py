"""Encoded records in ArrayRecord files, read by index."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ba_dist.data.sources import Counters, DatasetInfo, Images, Labels
from ba_dist.errors import DataError

Decoder = Callable[[bytes], tuple[npt.NDArray[np.uint8], int]]


class ArrayRecordSource:
    """Samples in ArrayRecord files; only the records that are asked for are read.

    Args:
        info: of the dataset.
        files: in order; sample ids count through them.
        decoder: a record's bytes → image uint8 [H, W, C] and label.

    Raises:
        DataError: naming a file that is missing or is no ArrayRecord file.
    """

    def __init__(self, info: DatasetInfo, files: Sequence[Path], decoder: Decoder):
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        self.info = info
        self.counters = Counters(files_opened=len(files))
        self._decoder = decoder
        self._files = [str(file) for file in files]
        for file in files:
            if not file.is_file():
                raise DataError(f"{file} is missing")
        try:
            self._records: Any = ArrayRecordDataSource(self._files)
        except (ValueError, RuntimeError) as error:
            raise DataError(f"{', '.join(self._files)}: not ArrayRecord ({error})") from None
        self.digest = self._digest(files)

    def __len__(self) -> int:
        return len(self._records)

    def read(self, ids: npt.NDArray[np.int64]) -> list[bytes]:
        """The encoded records of these samples, in order."""
        # The reader refuses an empty list, which a lane has when b is below the group size.
        records: list[bytes] = list(self._records.__getitems__(ids.tolist())) if len(ids) else []
        self.counters.records_read += len(records)
        self.counters.bytes_read += sum(map(len, records))
        return records

    def decode(self, records: Sequence[bytes]) -> tuple[Images, Labels]:
        """Images uint8 [H, W, C] and labels int64 [n] of records."""
        self.counters.records_decoded += len(records)
        decoded = [self._decoder(record) for record in records]
        return [image for image, _ in decoded], np.array([label for _, label in decoded], np.int64)

    def _digest(self, files: Sequence[Path]) -> str:
        """Names the content by the files' names and sizes; reading all of it would take hours."""
        facts = [(file.name, file.stat().st_size) for file in files]
        return hashlib.sha256(repr((len(self), facts)).encode()).hexdigest()
