"""Texts as datasets: words and their numbers, spans and windows, messages."""

import dataclasses
import re
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from ba_dist import experiment, tasks
from ba_dist.config import COMPUTATION, Config, Data, override
from ba_dist.data.catalog import digest, open_alone, open_source, text_datasets
from ba_dist.data.catalog.find import find
from ba_dist.data.catalog.found import open_split
from ba_dist.data.catalog.text_datasets import locate
from ba_dist.data.sources.text import TextInfo
from ba_dist.data.text import made_text
from ba_dist.data.text.vocabulary import END, UNKNOWN, of_lines
from ba_dist.errors import CheckpointError, ConfigError, DataError, DataUnavailable
from ba_dist.rules.streams import Streams
from ba_dist.run import checkpoint, saving
from ba_dist.tasks.language_model import LanguageModel

LINES = ["the cat sat", "the <unk> sat on the mat", "", "on"]


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name.replace('__', '.')}.txt").write_text(text)


def data(folder, **more):
    return Data(dataset="text", data_dir=str(folder), **{"bptt": 4, "context": 3, **more})


def test_words_are_numbered_by_how_common_they_are():
    words = of_lines(LINES)
    assert words.words == (END, "the", "on", "sat", UNKNOWN, "cat", "mat")
    assert words.encode(["the dog sat", ""]).tolist() == [1, 4, 3, 0, 0]
    assert words.encode(LINES).dtype == np.int32
    assert words.digest() != of_lines(LINES[:3]).digest()


def test_rare_words_are_unknown_together():
    words = of_lines(LINES, least=2)
    assert words.words == (END, UNKNOWN, "the", "on", "sat")  # cat, mat and <unk> itself: 3
    assert words.encode(["the cat"]).tolist() == [2, 1, 0]
    assert set(of_lines([], least=5).words) == {END, UNKNOWN}


def test_spans_are_what_the_order_names(tmp_path):
    write(tmp_path, train="\n".join(f"w{i}" for i in range(50)) + "\n", valid="w1\n")
    found = find(data(tmp_path))
    source = open_split(found.info, found.splits["train"])
    tokens = found.splits["train"].arrays["tokens"]
    assert (len(tokens), len(source)) == (100, 99 // 4)
    order = Streams(len(source), 0, 0, batch_size=3, span=4)
    parts = {row: [] for row in range(3)}
    for position in range(3 * (len(source) // 3)):
        sample, _ = source.decode(source.read(int(order(position))))
        parts[position % 3].append(sample)
    for row, samples in parts.items():
        stream = np.concatenate([sample[:-1] for sample in samples])
        np.testing.assert_array_equal(stream, tokens[32 * row : 32 * row + 32])
        # The last token of a span is the first one of the next.
        for one, following in zip(samples, samples[1:], strict=False):
            assert one[-1] == following[0]


@pytest.mark.parametrize("context", [0, 3, 100])
def test_every_token_is_scored_once_with_what_stands_before_it(tmp_path, context):
    text = " ".join(f"w{i}" for i in range(22))
    write(tmp_path, train=text, valid=text)
    found = find(data(tmp_path, context=context))
    source = open_split(found.info, found.splits["validation"])
    tokens = found.splits["validation"].arrays["tokens"]
    scored = context or 4
    padded = [found.info.end] * (context + 1) + tokens.tolist()
    told = []
    for i in range(len(source)):
        row, _ = source.decode(source.read(i))
        assert len(row) == context + scored + 1
        there = row[-scored:][row[-scored:] >= 0]
        before = padded[i * scored : i * scored + context + 1]
        assert row[: context + 1].tolist() == before
        told += there.tolist()
    assert told == tokens.tolist()


def test_fewer_samples_are_the_beginning_of_a_text(tmp_path):
    write(tmp_path, train="a b c d e f g h " * 10, valid="a b")
    found = find(data(tmp_path))
    part = found.splits["train"].subset(5)
    source = open_split(found.info, part)
    assert len(source) == 5 and type(source).__name__ == "TextSource"
    ids = Streams(5, 0, 0, batch_size=1, span=4)(np.arange(5))
    used = np.concatenate([source.decode(source.read(int(i)))[0][:-1] for i in ids])
    np.testing.assert_array_equal(used, part.arrays["tokens"][:20])


def test_files_of_any_name_are_cut_in_two(tmp_path):
    write(tmp_path, b="\n".join(f"b{i}" for i in range(40)), a="\n".join("xyz"))
    lines = locate("text", str(tmp_path))
    assert lines.train == ["x", "y", "z", *(f"b{i}" for i in range(38))]
    assert lines.validation == ["b38", "b39"]
    assert lines.origin == f"2 .txt files in {tmp_path}"


def test_names_of_validation_and_of_ptb(tmp_path):
    write(tmp_path, train="a", val="b", ptb__train="c", ptb__valid="d")
    assert locate("text", str(tmp_path)).validation == ["b"]
    lines = locate("ptb", str(tmp_path))
    assert (lines.train, lines.validation) == (["c"], ["d"])


@pytest.mark.parametrize(
    ("files", "name", "problem"),
    [
        ({}, "text", "has no train.txt; expected train.txt and valid.txt, or of other .txt files"),
        ({"train": "a"}, "text", "has train.txt, but no valid.txt beside it"),
        ({"train": "a", "valid": "a"}, "ptb", "has no ptb.train.txt; expected ptb.train.txt and"),
        ({"train": "a", "valid": " \n\n"}, "text", "no words for validation"),
        ({"train": "\n", "valid": "a"}, "text", "no words for train"),
        ({"a": "one line"}, "text", "no words for validation"),
    ],
)
def test_a_folder_that_will_not_do_is_told(tmp_path, files, name, problem):
    write(tmp_path, **files)
    with pytest.raises(DataError, match=re.escape(problem)):
        locate(name, str(tmp_path))


def test_other_messages(tmp_path, monkeypatch):
    monkeypatch.delenv("BA_DIST_DATA", raising=False)
    with pytest.raises(DataUnavailable, match="ptb needs --data-dir"):
        locate("ptb", None)
    (tmp_path / "train.txt").write_bytes(b"gr\xfc\xdfe\n")
    write(tmp_path, valid="a")
    with pytest.raises(DataError, match=r"train.txt, line 1 is not UTF-8"):
        locate("text", str(tmp_path))
    write(tmp_path, train="a b c")
    with pytest.raises(DataError, match="4 tokens to train on are no more than --bptt 4"):
        find(data(tmp_path))


@pytest.mark.parametrize("name", text_datasets.DEBIAN)
def test_a_missing_package_is_named(name, tmp_path, monkeypatch):
    monkeypatch.setattr(text_datasets, "_FORTUNES", tmp_path / "none")
    monkeypatch.setattr(text_datasets, "_BIBLE", ("no-such-program",))
    with pytest.raises(DataUnavailable, match=f"`ba-dist data prepare {name}`.*apt-get install"):
        locate(name, None)


def test_fortunes_are_brought_to_words(tmp_path, monkeypatch):
    text = "\n%\n".join(f"Don't panic, no. {i}!\n\tsaid A_b" for i in range(20)) + "\n%\n"
    (tmp_path / "some").write_text(text)
    (tmp_path / "some.dat").write_bytes(b"\xff")
    (tmp_path / "some.u8").symlink_to("some")
    monkeypatch.setattr(text_datasets, "_FORTUNES", tmp_path)
    lines = locate("fortunes", None)
    assert lines.train[:2] == ["don't panic , no . 0 !", "said a b"]
    assert lines.validation == ["don't panic , no . 19 !", "said a b"]
    assert len(lines.train) == 38


def test_chapters_of_the_bible(tmp_path, monkeypatch):
    program = tmp_path / "bible"
    lines = [f"Ge{c}:{v} In the Beginning, {c}" for c in range(1, 41) for v in (1, 2)]
    program.write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(lines) + "\nEND\n")
    program.chmod(0o755)
    monkeypatch.setattr(text_datasets, "_BIBLE", (str(program),))
    found = locate("bible-kjv", None)
    assert found.validation == [f"in the beginning , {c}" for c in (20, 20, 40, 40)]
    assert len(found.train) == 76
    program.write_text("#!/bin/sh\necho 'no text'\n")
    with pytest.raises(DataError, match="printed 1 chapters .* bible-kjv-text installed"):
        locate("bible-kjv", None)


def test_other_words_are_refused_though_every_shape_fits(tmp_path):
    """To evaluate, to start from, and to go on with: before a network is built."""
    one, other = (
        TextInfo("text", 7, of_lines([line]).digest(), 0, 4, 3) for line in ("a b c", "a b d")
    )
    with pytest.raises(DataError, match="text has other words here .* use the data"):
        other.check_fits(one.vocabulary_digest)
    saved = {"computation": COMPUTATION, "config": {}, "data": {"vocabulary": one.vocabulary}}
    path = checkpoint.save(tmp_path, checkpoint.Checkpoint(3, {}, saved), 1)
    with pytest.raises(DataError, match="text has other words here"):
        experiment._weights(path, None, other)
    now = {"config": {}, "data": {"vocabulary": other.vocabulary}}
    with pytest.raises(CheckpointError, match="other data: vocabulary was"):
        saving.check_same_run(saved, now)


def test_flags_of_images_are_refused():
    info = TextInfo("text", 7, "", 0, 4, 3)
    config = override(Config("r"), {"cutout": 8, "flip": True, "shuffle": "block"})
    with pytest.raises(ConfigError, match="--shuffle, --flip, --cutout: nothing of that is done"):
        tasks.build("language-model", config, info)
    with pytest.raises(ConfigError, match="learns classification, which text cannot be used for"):
        tasks.build("classification", Config("r"), info)


def test_penalties_are_means_over_activations():
    """Against the formula in numpy; `token_loss` and scores are without them."""
    info = TextInfo("text", 7, "", 0, 4, 0)
    task = LanguageModel(info, activation=2.0, slowness=1.0)
    numbers = np.random.default_rng(0)
    logits, dropped, raw = (tf.constant(numbers.normal(size=(3, 4, k))) for k in (7, 5, 5))
    samples = numbers.integers(0, 7, (3, 5)).astype(np.int32)
    rows = task.allocate(3)
    for sample, row in zip(samples, rows, strict=True):
        task.render(sample, {}, 0, row)
    batch = task.finish(task.pack(rows, np.zeros(3, np.int64), {}))
    np.testing.assert_array_equal(batch["tokens"], samples[:, :-1])
    np.testing.assert_array_equal(batch["targets"], samples[:, 1:])
    loss = task.loss(lambda tokens, training: [logits, dropped, raw], batch)
    shares = logits.numpy() - np.log(np.exp(logits).sum(-1, keepdims=True))
    entropy = -np.take_along_axis(shares, samples[:, 1:, None].astype(int), 2).sum()
    mean = entropy / 12 + 2 * (dropped.numpy() ** 2).mean() + (np.diff(raw, axis=1) ** 2).mean()
    assert float(loss.total / loss.weight) == pytest.approx(mean, rel=1e-12)
    assert [float(x) for x in loss.metrics["token_loss"]] == pytest.approx([entropy, 12])
    plain = task.finish_plain(rows, np.zeros(3, np.int64))
    plain["targets"] = tf.where([[True, True, True, False]] * 3, plain["targets"], -1)
    losses, there = task.scores(logits, plain)["val_perplexity"]
    assert there.numpy().tolist() == [3, 3, 3]
    expected = -np.take_along_axis(shares, samples[:, 1:, None].astype(int), 2)[:, :3, 0].sum(1)
    np.testing.assert_allclose(losses, expected, rtol=1e-12)
    found = task.results({"val_loss": 2.0, "val_perplexity": 2.0})
    assert found == {"val_loss": 2.0, "val_perplexity": pytest.approx(np.exp(2))}
    assert task.results({"val_loss": 800.0, "val_perplexity": 800.0})["val_perplexity"] == np.inf


# --- made -----------------------------------------------------------------------------------------


def test_sentences_that_are_made_follow_from_their_numbers_alone():
    """They are part of what a dataset is: no version may change them."""
    assert made_text.sentences(2, 0) == [
        "a quiet garden waits behind a heavy cat .",
        "the green lamp shines under every small cat .",
    ]
    assert made_text.sentences(500, 0)[:40] == made_text.sentences(40, 0)
    assert not set(made_text.sentences(20, 0)) & set(made_text.sentences(20, 1))
    source, target = made_text.pairs(50, 1)
    assert source == made_text.sentences(50, 1)
    for words, translated in zip(source, target, strict=True):
        assert translated.split() == [word[::-1] for word in reversed(words.split())]


def test_there_is_something_to_learn_in_them():
    """A verb is known by its noun, and the first words of a list are the commonest."""
    rows = [line.split() for line in made_text.sentences(2000, 0)]
    assert len({(row[2], row[3]) for row in rows}) == len({row[2] for row in rows}) == 10
    counts = Counter(row[2] for row in rows)
    # The square of a uniform number is below 1/10 in √(1/10) of all cases: 632 ± 21.
    assert counts["cat"] == counts.most_common(1)[0][1] == pytest.approx(632, abs=84)


@pytest.mark.parametrize("name", ["synthetic-text", "synthetic-pairs"])
def test_language_that_is_made_is_read_like_other_language(name, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = Data(name, bptt=16, context=16, row_tokens=32, train_samples=8, val_samples=4)
    first, again = open_alone(config), open_alone(config)
    assert (len(first.train), len(first.validation)) == (8, 4)
    assert first.info.vocabulary_digest == again.info.vocabulary_digest
    assert digest(first.train) == digest(again.train) != digest(first.validation)
    if name == "synthetic-pairs":
        source = open_source(dataclasses.replace(config, val_samples=None), "validation")
        assert source.text(3) == tuple(side[3] for side in made_text.pairs(4, 1))
        assert len(source.arrays["pairs"]) > 0.99 * source.pairs  # rows are long enough
