"""TFRecord files, read at any record without TensorFlow.

    length u64 | masked CRC of the length u32 | data | masked CRC of the data u32

All numbers are little-endian. The CRC is CRC-32C, rotated and shifted by a constant ("masked"),
because the CRC of data that holds its own CRCs is not a good checksum.

Source: tensorflow/core/lib/io/record_writer.h, tensorflow/tsl/lib/hash/crc32c.h.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np
import numpy.typing as npt

from ba_dist.data.sources import Allocate, Counters, Image, ImageInfo, new_memory
from ba_dist.data.sources.examples import Features
from ba_dist.data.sources.files import FileDescriptor, OpenFiles, open_files_limit, unreadable
from ba_dist.errors import CorruptRecord, DataError

HEADER, FOOTER = 12, 4
_GZIP = b"\x1f\x8b"


def masked_crc(data: bytes) -> int:
    """The checksum that a TFRecord file has for these bytes."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(data: bytes) -> bytes:
    """The bytes of a file for a record with this data."""
    length = struct.pack("<Q", len(data))
    checks = (struct.pack("<I", masked_crc(part)) for part in (length, data))
    return length + next(checks) + data + next(checks)


def unframe(framed: bytes, length: int) -> bytes:
    """The data of a record of this length, after a check of both checksums.

    Raises:
        CorruptRecord: with what does not match.
    """
    if len(framed) < HEADER + length + FOOTER:
        raise CorruptRecord(
            f"the file ends {len(framed)} bytes into a record of {HEADER + length + FOOTER}"
        )
    if _length(framed) != length:
        raise CorruptRecord(f"its length does not match its checksum, or is not {length}")
    data = framed[HEADER:-FOOTER]
    if struct.unpack("<I", framed[-FOOTER:])[0] != masked_crc(data):
        raise CorruptRecord("its data does not match its checksum")
    return data


def _length(header: bytes) -> int | None:
    """The length in a header; None where it does not match its checksum."""
    length, check = struct.unpack("<QI", header[:HEADER])
    return length if masked_crc(header[:8]) == check else None


@dataclass(frozen=True)
class Scanned:
    """A record found while a file is read from its beginning.

    Args:
        offset: of its header in the file, in bytes.
        length: of its data, in bytes.
        data: None where it does not match its checksum.
    """

    offset: int
    length: int
    data: bytes | None


def scan(path: Path) -> Iterator[Scanned]:
    """All records of a file in order.

    Raises:
        DataError: naming file and offset, where the next record cannot be found because a length
            does not match its checksum or a record is cut short.
    """
    with path.open("rb", buffering=2**20) as file:
        offset, size = 0, os.fstat(file.fileno()).st_size
        while header := file.read(HEADER):
            length = _length(header) if len(header) == HEADER else None
            if length is None:
                raise DataError(f"{path} at byte {offset}: {_no_header(header, offset)}")
            # Not `read(length)` of a false length: memory would be reserved for all of it.
            rest = b"" if length > size - offset else file.read(length + FOOTER)
            if len(rest) < length + FOOTER:
                raise DataError(
                    f"{path} at byte {offset}: the file ends within a record of {length} bytes;"
                    " copy the file again"
                )
            try:
                yield Scanned(offset, length, unframe(header + rest, length))
            except CorruptRecord:
                yield Scanned(offset, length, None)
            offset += HEADER + length + FOOTER


def _no_header(header: bytes, offset: int) -> str:
    if offset == 0 and header.startswith(_GZIP):
        return "the file is compressed, which rules out reading at random; unpack it (gunzip)"
    if len(header) < HEADER:
        return f"the file ends within a header; {HEADER} bytes were expected, copy the file again"
    advice = "; copy it again" if offset else ": this is no TFRecord file, or a corrupt one"
    return f"the length of a record does not match its checksum{advice}"


class TFRecordSource:
    """Samples in TFRecord shards.

    Args:
        info: facts of the dataset.
        shards: the files.
        sizes: int64 [shards], bytes of each file, for `contents`.
        features: which features of an Example are image and label.
        shard: integers [N], the file of each record.
        offset: integers [N], byte at which each record begins.
        length: integers [N], bytes of each record's data.
    """

    stored = True

    def __init__(
        self,
        info: ImageInfo,
        shards: list[Path],
        *,
        sizes: npt.NDArray[np.int64],
        features: Features,
        shard: npt.NDArray[np.integer],
        offset: npt.NDArray[np.integer],
        length: npt.NDArray[np.integer],
    ):
        self.info = info
        self.counters = Counters()
        self.contents = [
            f"{path.name}: {size} bytes" for path, size in zip(shards, sizes, strict=True)
        ]
        self._shards, self._features = shards, features
        self._shard, self._offset, self._length = shard, offset, length
        self._files = OpenFiles(self._open, open_files_limit())

    def __len__(self) -> int:
        return len(self._offset)

    def read(self, sample_id: int) -> bytes:
        number, length = int(self._shard[sample_id]), int(self._length[sample_id])
        offset = int(self._offset[sample_id])
        try:
            framed = self._files[number].read(offset, HEADER + length + FOOTER)
        except OSError as error:
            self._files.forget(number)  # after a restart of the file server it must be opened again
            raise unreadable(error) from None
        self.counters.add(records_read=1, bytes_read=len(framed))
        return unframe(framed, length)

    def decode(self, record: bytes, allocate: Allocate = new_memory) -> tuple[Image, int]:
        self.counters.add(records_decoded=1)
        return self._features.decode(record, allocate)

    def where(self, sample_id: int) -> str:
        number, offset = self._shard[sample_id], self._offset[sample_id]
        return f"{self._shards[number]} at byte {offset}"

    def _open(self, number: int) -> FileDescriptor:
        self.counters.add(files_opened=1)
        return FileDescriptor(self._shards[number])
