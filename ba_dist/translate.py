"""What the network of a run translates, and how good that is: beam search and BLEU."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ba_dist.comm import Comm
from ba_dist.data.sources import PackedPairs
from ba_dist.data.sources.packed_pairs import SUBWORDS_FILE
from ba_dist.data.text import subwords
from ba_dist.data.text.subwords import BEGIN, END, PAD, UNKNOWN, Subwords
from ba_dist.errors import UserError
from ba_dist.tasks.translation import Translation
from ba_dist.trained import Trained

BEAM, PENALTY = 4, 0.6
_LONGER = 50  # tokens that a translation has at most beyond its source (Vaswani et al., 6.1)
_ROWS, _TOKENS = 32, 2048  # sentences, and tokens of sources, that are translated at once
_SHORTEST = 16

Numbers = npt.NDArray[np.int32]


class Translator:
    """Numbers of source sentences → numbers of their translations.

    What goes through the network together depends on the sentences alone, so that any number of
    ranks finds the same translations.

    Args:
        model: a Transformer.
    """

    def __init__(self, model: Any):
        import tensorflow as tf

        self._model = model
        self._search = tf.function(self._search_batch, autograph=False)

    def batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """The sentences that are translated together, of similar length, the longest first."""
        order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
        found: list[list[int]] = []
        while order:
            size = max(1, min(_ROWS, _TOKENS // _padded(lengths[order[0]])))
            found.append(order[:size])
            order = order[size:]
        return found

    def translate(self, sentences: Sequence[Sequence[int]]) -> list[list[int]]:
        """The translation of each of one batch's sentences.

        Args:
            sentences: numbers of subwords, without begin and end.

        Returns:
            Numbers of subwords, without begin and end.
        """
        width = _padded(max(map(len, sentences)))
        # As many rows as any other batch of this width has: one graph for each width.
        rows = max(len(sentences), 1, min(_ROWS, _TOKENS // width))
        source = np.zeros((rows, width), np.int32)
        source[:, 0] = END
        for row, sentence in zip(source, sentences, strict=False):
            row[: len(sentence)] = sentence
            row[len(sentence)] = END
        lengths = (source > 0).sum(1)
        # What only fills the batch up ends at once.
        longest = np.where(np.arange(rows) < len(sentences), lengths + _LONGER, 1)
        found, _ = self._search(source, longest.astype(np.int32))
        cut = (row[: list(row).index(END)] for row in found.numpy()[: len(sentences)])
        return [row.tolist() for row in cut]

    def _search_batch(self, source: Any, longest: Any) -> tuple[Any, Any]:
        import tensorflow as tf

        from ba_dist.models.beam_search import beam_search

        source = tf.convert_to_tensor(source)
        most = int(source.shape[1]) + _LONGER
        sources = tf.repeat(source, BEAM, axis=0)
        kept = self._model.begin(source, most)
        kept = tf.nest.map_structure(lambda x: tf.repeat(x, BEAM, axis=0), kept)

        def step(tokens: Any, at: Any, state: Any) -> tuple[Any, Any]:
            logits, state = self._model.step(tokens, at, state, sources)
            return logits, state

        return beam_search(
            step,
            kept,
            tf.convert_to_tensor(longest),
            begin=BEGIN,
            end=END,
            beam=BEAM,
            penalty=PENALTY,
            never=(PAD, UNKNOWN, BEGIN),
        )


def _padded(length: int) -> int:
    """Tokens of a batch whose longest sentence has so many without its end: powers of two."""
    width = _SHORTEST
    while width < length + 1:
        width *= 2
    return width


# --- lines of files -------------------------------------------------------------------------------


def translate_lines(trained: Trained, lines: Sequence[str]) -> Iterator[str]:
    """The translation of each line, in order; of an empty one an empty line.

    Args:
        trained: the network of a run.
        lines: of the source language.

    Raises:
        UserError: when the run has learned something else, or has lost its vocabulary.
    """
    if not isinstance(trained.made.task, Translation):
        raise UserError(f"{trained.folder} has learned something else than translation")
    vocabulary = subwords_of(trained)
    translator = Translator(trained.made.model)
    for start in range(0, len(lines), _AT_ONCE):
        # As training has them: one line, single spaces.
        part = [" ".join(line.split()) for line in lines[start : start + _AT_ONCE]]
        numbers = vocabulary.encode(part)
        found = [""] * len(part)
        wanted = [i for i, row in enumerate(numbers) if row]
        for batch in translator.batches([len(numbers[i]) for i in wanted]):
            chosen = [wanted[i] for i in batch]
            made = vocabulary.decode(translator.translate([numbers[i] for i in chosen]))
            for i, text in zip(chosen, made, strict=True):
                found[i] = text
        yield from found


_AT_ONCE = 1024  # lines, which are sorted by length


def subwords_of(trained: Trained) -> Subwords:
    """The vocabulary that a run keeps in its folder.

    Raises:
        UserError: when it is not there, or is not the one that the network was trained with.
    """
    path = trained.folder / SUBWORDS_FILE
    try:
        model = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}, the vocabulary of the run, cannot be read: {error.strerror}"
        ) from None
    if subwords.digest_of(model) != trained.info.subwords:
        raise UserError(f"{path} is not the vocabulary that the run was trained with")
    return Subwords(model)


# --- BLEU -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bleu:
    """How good translations are.

    Args:
        score: 0 … 100.
        copied: of the sources in their place.
        pairs: how many.
        signature: of sacrebleu: how it was counted.
    """

    score: float
    copied: float
    pairs: int
    signature: str


def measure_bleu(
    model: Any, source: PackedPairs, wanted: int, comm: Comm, beat: Callable[[int], Any]
) -> Bleu:
    """BLEU of the first pairs of a split whose texts are kept; collective over the world.

    Args:
        model: a Transformer.
        source: the split.
        wanted: number of pairs; an even share of all.
        comm: the world; batches are dealt out to its ranks.
        beat: is called after each batch with the pairs that this rank has translated.

    Returns:
        The same on every rank.

    Source: Papineni et al. 2002, "BLEU"; Post 2018, arXiv:1804.08771 (sacrebleu).
    """
    count = min(wanted, source.pairs)
    chosen = [source.pairs * i // count for i in range(count)]
    sentences = [source.tokens(pair, "source").tolist() for pair in chosen]
    translator, vocabulary = Translator(model), Subwords(source.info.model)
    mine: list[tuple[int, str]] = []
    batches = translator.batches([len(sentence) for sentence in sentences])
    for batch in batches[comm.rank :: comm.world_size]:
        found = vocabulary.decode(translator.translate([sentences[i] for i in batch]))
        mine += zip(batch, found, strict=True)
        beat(len(batch))
    parts = comm.world.gather_objects(mine)
    made = dict(pair for part in parts for pair in part)
    texts = [source.text(pair) for pair in chosen]
    references = [target for _, target in texts]
    score, signature = _bleu([made[i] for i in range(count)], references)
    return Bleu(score, _bleu([text for text, _ in texts], references)[0], count, signature)


def _bleu(translations: list[str], references: list[str]) -> tuple[float, str]:
    from sacrebleu.metrics import BLEU

    metric = BLEU()
    score = metric.corpus_score(translations, [references]).score
    return float(score), str(metric.get_signature())
