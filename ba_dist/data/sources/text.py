"""A text in memory: spans of it to train on, windows of it to evaluate on."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ba_dist.data.sources.source import Allocate, Counters, DatasetInfo, new_memory, put
from ba_dist.rules import streams

Tokens = npt.NDArray[np.int32]


@dataclass(frozen=True)
class TextInfo(DatasetInfo):
    """What a task needs to know of a text.

    Args:
        name: as `--dataset` has it.
        words: in the vocabulary.
        vocabulary: its digest.
        end: the number of `<eos>`.
        span: tokens of a step, about (`--bptt`).
        context: tokens before those that are scored in evaluation.
    """

    dtype: ClassVar[str] = "int32"

    words: int
    vocabulary: str
    end: int
    span: int
    context: int

    @property
    def vocabulary_digest(self) -> str:
        return self.vocabulary


@dataclass
class _Text:
    """What spans and windows of a text have in common; a record is the tokens, int32.

    Args:
        info: facts of the text.
        tokens: int32 [tokens].
        digest: identifies the content.
    """

    info: TextInfo
    tokens: Tokens
    digest: str
    counters: Counters = field(default_factory=Counters, kw_only=True)

    stored = False

    def __post_init__(self) -> None:
        self.contents = [self.digest, f"vocabulary {self.info.vocabulary}"]

    def decode(self, record: bytes, allocate: Allocate = new_memory) -> tuple[Tokens, int]:
        self.counters.add(records_decoded=1)
        memory = put(np.frombuffer(record, np.uint8), (len(record),), allocate)
        return memory.view(np.int32), 0


@dataclass
class TextSource(_Text):
    """Spans of a text; a sample id names the span, as `rules.streams` makes it.

    A sample is int32 [length + 1]: the tokens that are read, and behind them the last one to be
    told. Its length as a source is the N of `streams.Streams`, so samples are not numbered 0 … N-1.

    Args:
        info: facts of the text.
        tokens: int32 [tokens], of which the first N·span + 1 are used.
        digest: identifies the content.
        count: N.
    """

    count: int

    def __len__(self) -> int:
        return self.count

    def read(self, sample_id: int) -> bytes:
        self.counters.add(records_read=1)
        start, length = streams.located(sample_id)
        return self.tokens[start : start + length + 1].tobytes()

    def where(self, sample_id: int) -> str:
        start, length = streams.located(sample_id)
        return f"{self.info.name}, tokens {start} to {start + length}"


@dataclass
class WindowSource(_Text):
    """Windows of a text, in each of which other tokens are scored: all of them, each once.

    Window i is int32 [context + scored + 1]: a token before, the context, and the tokens
    i·scored, i·scored + 1, … behind it, all of which are told from those before them. Before the
    text stands `<eos>`; behind it -1, which is not scored.

    Args:
        info: facts of the text.
        tokens: int32 [tokens].
        digest: identifies the content.
    """

    def __len__(self) -> int:
        return windows(len(self.tokens), self.info)

    def read(self, sample_id: int) -> bytes:
        self.counters.add(records_read=1)
        scored, before = scored_tokens(self.info), self.info.context + 1
        begin, end = sample_id * scored - before, (sample_id + 1) * scored
        found = np.full(before + scored, -1, np.int32)
        found[: max(0, -begin)] = self.info.end
        part = self.tokens[max(0, begin) : end]
        first = max(0, -begin)
        found[first : first + len(part)] = part
        return found.tobytes()

    def where(self, sample_id: int) -> str:
        return f"{self.info.name}, window {sample_id}"


def scored_tokens(info: TextInfo) -> int:
    """Tokens that are scored in a window: as many as the context, or a span without one."""
    return info.context or info.span


def windows(tokens: int, info: TextInfo) -> int:
    """How many windows a text of so many tokens has."""
    return -(-tokens // scored_tokens(info))
