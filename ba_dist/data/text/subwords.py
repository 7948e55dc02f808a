"""Pieces of words: what a text is cut into, and put together from again."""

import hashlib
import io
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from ba_dist.errors import DataError

PAD, UNKNOWN, BEGIN, END = range(4)
# So many lines, evenly spread, are enough to count pairs of letters: of WMT16 every fifth one.
_MOST_LINES = 2_000_000


class Subwords:
    """A vocabulary of subwords: text ↔ numbers below `size`.

    Nothing is unknown to it: a character that is not in the vocabulary is written in its bytes.

    Args:
        model: SentencePiece's file.

    Raises:
        DataError: when the bytes are no such file.
    """

    def __init__(self, model: bytes):
        self.model = model
        try:
            self._processor = _sentencepiece().SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise DataError(f"the subwords cannot be read: {error}") from None

    @property
    def size(self) -> int:
        """Number of subwords, with padding, unknown, begin and end."""
        return int(self._processor.get_piece_size())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the vocabulary, 64 hexadecimal digits."""
        return digest_of(self.model)

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        """The numbers of each line, without begin and end."""
        found: list[list[int]] = self._processor.encode(list(lines))
        return found

    def decode(self, numbers: Sequence[Sequence[int]]) -> list[str]:
        """The text of each row of numbers."""
        rows = [[int(number) for number in row] for row in numbers]
        found: list[str] = self._processor.decode(rows) if rows else []
        return found


def digest_of(model: bytes) -> str:
    """SHA-256 of a vocabulary, 64 hexadecimal digits."""
    return hashlib.sha256(model).hexdigest()


def learn(lines: Sequence[str], size: int) -> Subwords:
    """Learns a vocabulary; the same lines give the same one, bit for bit.

    Args:
        lines: of all languages together.
        size: number of subwords.

    Raises:
        DataError: when the lines hold too few pieces, or too many characters, for so many subwords.

    Source: byte-pair encoding, Sennrich et al. 2016, arXiv:1508.07909; Kudo and Richardson 2018,
    "SentencePiece".
    """
    written = io.BytesIO()
    try:
        _sentencepiece().SentencePieceTrainer.train(
            sentence_iterator=iter(_spread(lines)),
            model_writer=written,
            model_type="bpe",
            vocab_size=size,
            # Threads would share the counting, and ties could fall in another order.
            num_threads=1,
            character_coverage=1.0,
            byte_fallback=True,
            # Longer lines would be left out without a word.
            max_sentence_length=1 << 20,
            pad_id=PAD,
            unk_id=UNKNOWN,
            bos_id=BEGIN,
            eos_id=END,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = f"{error}".strip().splitlines()[-1].split("] ")[-1]
        raise DataError(
            f"{len(lines)} lines of text do not give {size} subwords: {reason} (--subwords)"
        ) from None
    return Subwords(written.getvalue())


def _spread(lines: Sequence[str]) -> Iterable[str]:
    step = -(-len(lines) // _MOST_LINES)
    return lines[:: max(1, step)]


def _sentencepiece() -> Any:
    # Its first import takes a while, and only text needs it.
    import sentencepiece

    return sentencepiece
