"""Rows of sentence pairs as numbers, held in memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ba_dist.data.sources.source import Allocate, Counters, DatasetInfo, Sample, new_memory, put
from ba_dist.errors import CorruptRecord

Arrays = Mapping[str, npt.NDArray[Any]]

SUBWORDS_FILE = "subwords.model"
SIDES = ("source", "target")


@dataclass(frozen=True)
class PairsInfo(DatasetInfo):
    """What a task needs to know of a dataset of sentence pairs.

    Args:
        name: as `--dataset` has it.
        row_tokens: tokens of a row, on each side.
        vocabulary: number of subwords.
        subwords: SHA-256 of the vocabulary.
        model: the vocabulary, as SentencePiece writes it; empty where only config.json was read.
    """

    dtype: ClassVar[str] = "int32"

    row_tokens: int
    vocabulary: int
    subwords: str
    model: bytes = field(default=b"", metadata={"stored": False}, repr=False)

    def files(self) -> dict[str, bytes]:
        return {SUBWORDS_FILE: self.model}

    @property
    def vocabulary_digest(self) -> str:
        return self.subwords


@dataclass
class PackedPairs:
    """A sample is a row of pairs, one behind the other, int32 [4, row_tokens].

    The four are: tokens of the source, the number of the pair (from 1) that each belongs to, and
    the same of the target. Each sentence has an end; behind the last pair all is 0.

    Args:
        info: facts of the dataset.
        arrays: `source` and `target`, the tokens of all pairs; `source_ends` and `target_ends`
            [pairs]; `pairs` [packed pairs] and `row_ends` [rows]; where texts are kept also `text`
            and `text_ends` [2·pairs], the UTF-8 of source, target, source, …
        digest: identifies tokens and rows.
        end: the number that ends a sentence.
    """

    info: PairsInfo
    arrays: Arrays
    digest: str
    end: int
    counters: Counters = field(default_factory=Counters)

    stored = False

    def __post_init__(self) -> None:
        info = self.info
        self.contents = [
            self.digest,
            f"subwords {info.subwords}",
            f"rows of {info.row_tokens} tokens",
        ]

    def __len__(self) -> int:
        return len(self.arrays["row_ends"])

    def read(self, sample_id: int) -> bytes:
        self.counters.add(records_read=1)
        row = np.zeros((4, self.info.row_tokens), np.int32)
        for i, side in enumerate(SIDES):
            start = 0
            for number, pair in enumerate(self._pairs_of(sample_id), 1):
                tokens = self.tokens(int(pair), side)
                stop = start + len(tokens)
                row[2 * i, start:stop] = tokens
                row[2 * i, stop] = self.end
                row[2 * i + 1, start : stop + 1] = number
                start = stop + 1
        return row.tobytes()

    def decode(self, record: bytes, allocate: Allocate = new_memory) -> tuple[Sample, int]:
        self.counters.add(records_decoded=1)
        shape = (4, self.info.row_tokens)
        if len(record) != 4 * int(np.prod(shape)):
            raise CorruptRecord(f"a row has {len(record)} bytes, expected 4·4·{shape[1]}")
        memory = put(np.frombuffer(record, np.uint8), (len(record),), allocate)
        return memory.view(np.int32).reshape(shape), 0

    def where(self, sample_id: int) -> str:
        pairs = self._pairs_of(sample_id)
        return (
            f"{self.info.name}, row {sample_id}, line {int(pairs[0]) + 1} and {len(pairs) - 1} more"
        )

    @property
    def pairs(self) -> int:
        """Number of pairs, with those that are longer than a row."""
        return len(self.arrays["source_ends"])

    def tokens(self, pair: int, side: str) -> npt.NDArray[Any]:
        """The tokens of one side of a pair, without an end."""
        return _part(self.arrays[side], self.arrays[f"{side}_ends"], pair)

    def text(self, pair: int) -> tuple[str, str]:
        """Source and target as they are written, of a split whose texts are kept."""
        parts = (_part(self.arrays["text"], self.arrays["text_ends"], 2 * pair + i) for i in (0, 1))
        source, target = (part.tobytes().decode() for part in parts)
        return source, target

    def _pairs_of(self, row: int) -> npt.NDArray[Any]:
        return _part(self.arrays["pairs"], self.arrays["row_ends"], row)


def _part(values: npt.NDArray[Any], ends: npt.NDArray[Any], i: int) -> npt.NDArray[Any]:
    return values[int(ends[i - 1]) if i else 0 : int(ends[i])]
