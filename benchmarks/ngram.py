"""What counting words reaches on a text that a language model was trained on.

    python benchmarks/ngram.py --dataset bible-kjv --least-count 3

Perplexity of a unigram and of interpolated Kneser-Ney models on the validation tokens of a text,
with the vocabulary of a run: to compare with `val_perplexity`. As for the network, the text is one
stream, in which `<eos>` is a word like all others.

    p(w | h) = (max(c(h,w) - D, 0) + D · N(h) · p(w | h')) / c(h)

c are counts in the highest order, in the others how many different words stand before; h' is h
without its first word, N(h) how many different words follow h, D = n1 / (n1 + 2·n2) for each order,
of how many entries are counted once and twice. Below the unigram all words are as likely.

Source: Kneser and Ney 1995, interpolated as in Chen and Goodman 1999, "An empirical study of
smoothing techniques for language modeling", section 4.1.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import click
from harness import Report, Table, count_option, one_message, output_option, output_path

from ba_dist.config import Data
from ba_dist.data.catalog.find import find

Gram = tuple[int, ...]


class KneserNey:
    """The model above.

    Args:
        tokens: to count.
        words: V, in the vocabulary; tokens are below it.
        order: n, words of the longest entry.
    """

    def __init__(self, tokens: Sequence[int], words: int, order: int):
        self.words, self.order = words, order
        self._counts: list[dict[Gram, int]] = []
        grams = Counter(zip(*(tokens[i:] for i in range(order)), strict=False))
        for _ in range(order):
            self._counts.insert(0, grams)
            # How many different words stand before what is left when the first one is taken away.
            grams = Counter(gram[1:] for gram in grams)
        self._discounts, self._totals, self._followers = [], [], []
        for counts in self._counts:
            times = Counter(counts.values())
            once, twice = times[1], times[2]
            self._discounts.append(once / (once + 2 * twice) if once else 0.0)
            totals: defaultdict[Gram, int] = defaultdict(int)
            followers: defaultdict[Gram, int] = defaultdict(int)
            for gram, count in counts.items():
                totals[gram[:-1]] += count
                followers[gram[:-1]] += 1
            self._totals.append(totals)
            self._followers.append(followers)

    def probability(self, word: int, before: Gram) -> float:
        """p(word | the last n-1 of the words before it)."""
        found = 1 / self.words
        for length in range(self.order):
            history = before[len(before) - length :]
            total = self._totals[length].get(history, 0)
            if not total:
                break  # a longer history was not seen either
            discount = self._discounts[length]
            count = self._counts[length].get((*history, word), 0)
            rest = discount * self._followers[length][history]
            found = (max(count - discount, 0.0) + rest * found) / total
        return found


def perplexity(model: KneserNey, tokens: Sequence[int], end: int) -> float:
    """exp of the mean of -log p over all tokens; before the text stands `<eos>`."""
    before = model.order - 1
    padded = [end] * before + list(tokens)
    logs = [
        math.log(model.probability(padded[i], tuple(padded[i - before : i])))
        for i in range(before, len(padded))
    ]
    return math.exp(-sum(logs) / len(logs))


def unigram_perplexity(train: Sequence[int], tokens: Sequence[int], words: int) -> float:
    """Of the shares of the words, each counted once more than it is there."""
    counts, total = Counter(train), len(train) + words
    return math.exp(-sum(math.log((counts[t] + 1) / total) for t in tokens) / len(tokens))


@click.command(context_settings={"max_content_width": 100})
@click.option("--dataset", default="bible-kjv", show_default=True, help="A text.")
@click.option("--data-dir", help="Where it is.")
@count_option("--least-count", 1, "How often a word must occur, as in the run.")
@click.option(
    "--order",
    type=click.IntRange(2),
    default=5,
    show_default=True,
    help="Words of the longest entry.",
)
@output_option
@one_message
def main(dataset, data_dir, least_count, order, output):
    """Measure what unigrams and Kneser-Ney models reach on the validation tokens of a text."""
    config = Data(dataset=dataset, data_dir=data_dir, least_count=least_count)
    found = find(config)
    train, validation = (
        found.splits[name].arrays["tokens"].tolist() for name in ("train", "validation")
    )
    info = found.info
    results = {"unigram": unigram_perplexity(train, validation, info.words)}
    for n in range(2, order + 1):
        model = KneserNey(train, info.words, n)
        results[f"Kneser-Ney, {n} words"] = perplexity(model, validation, info.end)
    report = Report("ngram", {"dataset": dataset, "least_count": least_count}, {})
    made = Table(f"{found.origin}: {len(validation)} tokens of validation", ["model", "perplexity"])
    for name, value in results.items():
        report.results.append({"model": name, "perplexity": value})
        made.add(name, value)
    report.tables.append(made)
    path = output_path("ngram", output)
    report.write(path)
    report.show(path)


if __name__ == "__main__":
    main()
