"""Words and their numbers."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

END, UNKNOWN = "<eos>", "<unk>"


@dataclass(frozen=True)
class Vocabulary:
    """The words that a text is made of; the number of a word is its place.

    Args:
        words: `<eos>`, which ends every line, and `<unk>`, which stands for every other word, are
            among them.
    """

    words: Sequence[str]
    _numbers: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_numbers", {word: i for i, word in enumerate(self.words)})

    def __len__(self) -> int:
        return len(self.words)

    @property
    def end(self) -> int:
        """The number of `<eos>`."""
        return self._numbers[END]

    def digest(self) -> str:
        """SHA-256 of the words in order, 64 hexadecimal digits."""
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()

    def encode(self, lines: Iterable[str]) -> npt.NDArray[np.int32]:
        """The numbers of the words of some lines, with `<eos>` behind each line.

        Words are what white space separates. An empty line is `<eos>` alone.

        Returns:
            int32 [tokens].
        """
        known, end, unknown = self._numbers, self.end, self._numbers[UNKNOWN]
        numbers: list[int] = []
        for line in lines:
            numbers += [known.get(word, unknown) for word in line.split()]
            numbers.append(end)
        return np.array(numbers, np.int32)


def of_lines(lines: Iterable[str], least: int = 1) -> Vocabulary:
    """The vocabulary of some lines: the commonest word first, equally common ones by name.

    Args:
        lines: of the training text alone; words of the other split that are not there are `<unk>`.
        least: how often a word must be there to have a number of its own.
    """
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(line.split())
        counts[END] += 1
    always = {END: counts.pop(END, 0), UNKNOWN: counts.pop(UNKNOWN, 0)}
    kept = {word: count for word, count in counts.items() if count >= least}
    always[UNKNOWN] += sum(counts.values()) - sum(kept.values())
    kept |= always
    return Vocabulary(tuple(sorted(kept, key=lambda word: (-kept[word], word))))
