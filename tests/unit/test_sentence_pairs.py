"""Sentence pairs: texts, vocabulary, rows; what is wrong with them is told in one message."""

import gettext
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ba_dist.config import Data
from ba_dist.data.catalog import open_source
from ba_dist.data.catalog.find import find, shards_of
from ba_dist.data.sources import PairsInfo
from ba_dist.data.text import gettext_pairs, subwords
from ba_dist.data.text.packing import first_fit
from ba_dist.errors import ConfigError, DataError, DataUnavailable

ENGLISH = [f"the file {i} is not there, look at number {i * i}" for i in range(60)]
GERMAN = [f"die Datei {i} ist nicht da, siehe Nummer {i * i}" for i in range(60)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("BA_DIST_DATA", raising=False)


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for split, part in (("train", slice(0, 50)), ("valid", slice(50, 60))):
        for ending, lines in (("en", ENGLISH), ("de", GERMAN)):
            (folder / f"{split}.{ending}").write_text("\n".join(lines[part]) + "\n", "utf-8")
    return folder


def data(folder, **more):
    return Data(
        **{"dataset": "pairs", "data_dir": str(folder), "row_tokens": 64, **more, "subwords": 330}
    )


# --- rows -----------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=60),
    st.integers(8, 16),
)
def test_every_pair_that_fits_is_in_one_row_and_no_row_is_too_full(lengths, row_tokens):
    lengths = np.array(lengths)
    pairs, ends = first_fit(lengths, row_tokens)
    assert sorted(pairs) == np.flatnonzero((lengths <= row_tokens).all(1)).tolist()
    rows = np.split(pairs, ends[:-1])
    assert all(len(row) for row in rows) or not len(pairs)
    assert all((lengths[row].sum(0) <= row_tokens).all() for row in rows)


def test_rows_are_nearly_full():
    lengths = np.random.default_rng(0).integers(1, 40, (5000, 1)) + np.zeros((1, 2), int)
    _, ends = first_fit(lengths, 128)
    assert len(ends) < 1.02 * lengths[:, 0].sum() / 128


def test_a_row_decodes_to_its_pairs(texts):
    """Tokens, ends and numbers of pairs; text and back."""
    for split, part in (("train", slice(0, 50)), ("validation", slice(50, 60))):
        source = open_source(data(texts), split)
        vocabulary = subwords.Subwords(source.info.model)
        seen = []
        for i in range(len(source)):
            row, label = source.decode(source.read(i))
            assert row.dtype == np.int32 and row.shape == (4, 64) and label == 0
            sides = []
            for tokens, numbers in ((row[0], row[1]), (row[2], row[3])):
                assert ((tokens > 0) == (numbers > 0)).all()
                assert (np.diff(numbers[numbers > 0]) >= 0).all()
                last = np.flatnonzero(tokens == subwords.END)
                assert (np.diff(numbers)[last[last < 63]] != 0).all()
                found = [tokens[numbers == n][:-1] for n in range(1, numbers.max() + 1)]
                sides.append(vocabulary.decode(found))
            seen += zip(*sides, strict=True)
        assert sorted(seen) == sorted(zip(ENGLISH[part], GERMAN[part], strict=True))


def test_validation_keeps_its_texts(texts):
    source = open_source(data(texts), "validation")
    assert [source.text(i) for i in range(source.pairs)] == list(
        zip(ENGLISH[50:], GERMAN[50:], strict=True)
    )


def test_the_other_direction(texts):
    source = open_source(data(texts, languages="de-en"), "validation")
    assert source.text(3) == (GERMAN[53], ENGLISH[53])


def test_a_part_of_the_rows(texts):
    whole, part = (open_source(data(texts, train_samples=n), "train") for n in (None, 3))
    rows = [whole.read(i) for i in range(len(whole))]
    assert len(part) == 3 and all(part.read(i) in rows for i in range(3))


def test_pairs_longer_than_a_row_are_counted_and_told(texts):
    path = texts / "train.en"
    path.write_text(path.read_text().replace("number 4\n", "number 4" + " and" * 99 + "\n", 1))
    found = find(data(texts))
    assert "1 pairs longer than a row are left out" in found.origin
    assert len(found.splits["train"].arrays["pairs"]) == 49
    with pytest.raises(DataError, match="every pair of train is longer than --row-tokens 8"):
        find(data(texts, row_tokens=8))


# --- what makes two runs the same -----------------------------------------------------------------


def contents(config):
    return [open_source(config, split).contents for split in ("train", "validation")]


def test_the_same_texts_give_the_same_bits_and_others_do_not(texts, tmp_path, monkeypatch):
    first, model = contents(data(texts)), find(data(texts)).info.model
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    assert contents(data(texts)) == first and find(data(texts)).info.model == model
    assert contents(data(texts, row_tokens=72)) != first
    path = texts / "train.de"
    path.write_text(path.read_text().replace("siehe", "siehst"))
    assert contents(data(texts))[0] != first[0]


def test_a_vocabulary_fits_its_network_alone(texts):
    info = find(data(texts)).info
    info.check_fits(info.subwords)
    assert "model" not in info.stored() and info.files() == {"subwords.model": info.model}
    other = PairsInfo("pairs", 64, 330, "0" * 64)
    with pytest.raises(DataError, match="other words here .*use the data and"):
        other.check_fits(info.vocabulary_digest)


def test_nothing_is_unknown_to_a_vocabulary():
    made = subwords.learn(ENGLISH + GERMAN, 330)
    lines = ["zwölf Äpfel, ☃ 東京", "a_b  %s\\n", ""]
    numbers = made.encode(lines)
    assert not any(number in (0, 1, 2, 3) for row in numbers for number in row)
    assert made.decode(numbers) == ["zwölf Äpfel, ☃ 東京", "a_b %s\\n", ""]
    assert made.size == 330


# --- wrong texts ----------------------------------------------------------------------------------


def test_what_is_wrong_with_texts_is_told(texts, tmp_path):
    def refused(message, **more):
        with pytest.raises((DataError, ConfigError), match=message):
            find(data(texts, **more))

    train = (texts / "train.de").read_bytes()
    for content, message in (
        (train + b"eins\n", r"train.en has 50 lines, train.de has 51; line i of one must be"),
        (train.replace(b"siehe", b"\xff", 1), r"train.de, line 1 is not UTF-8 \(byte 0xff\)"),
        (b"\n" + train.split(b"\n", 1)[1], r"train.de, line 1 is empty"),
    ):
        (texts / "train.de").write_bytes(content)
        refused(message)
    (texts / "train.de").unlink()
    refused("has no train.de; sentence pairs are train.en, train.de, valid.en, valid.de")
    refused("has no train.fr and no train.it", languages="fr-it")
    refused("--languages 'german' cannot be read; write SOURCE-TARGET", languages="german")
    with pytest.raises(DataError, match="pairs needs --data-dir"):
        find(Data(dataset="pairs"))
    with pytest.raises(DataError, match="pairs is sentence pairs: there is nothing to index"):
        shards_of(data(texts))
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_too_many_subwords_for_too_little_text():
    with pytest.raises(DataError, match=r"2 lines of text do not give 8000 subwords.*--subwords"):
        subwords.learn(["a b c", "d e f"], 8000)
    with pytest.raises(DataError, match="the subwords cannot be read"):
        subwords.Subwords(b"something else")


def test_a_prepared_folder_that_has_changed(texts, tmp_path):
    find(data(texts))
    (path,) = (tmp_path / "cache").rglob("train_source.npy")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match="is corrupt .*; delete it to prepare it anew"):
        find(data(texts))


# --- gettext --------------------------------------------------------------------------------------


def write_catalogue(path, messages, charset="UTF-8"):
    """A catalogue as msgfmt writes it; plural forms are joined by a zero byte."""
    entries = {"": f"Content-Type: text/plain; charset={charset}\n", **messages}
    keys = sorted(entries)
    sides = [[text.encode(charset) for text in side] for side in (keys, [entries[k] for k in keys])]
    start = 28 + 16 * len(keys)
    tables, blob = [], b""
    for side in sides:
        table = b""
        for text in side:
            table += struct.pack("<II", len(text), start + len(blob))
            blob += text + b"\0"
        tables.append(table)
    head = struct.pack("<7I", 0x950412DE, 0, len(keys), 28, 28 + 8 * len(keys), 0, 0)
    path.write_bytes(head + tables[0] + tables[1] + blob)


def test_messages_of_catalogues(tmp_path):
    many = {f"cannot open the {w} file": f"{w} geht nicht auf" for w in map(chr, range(97, 123))}
    many |= {k.replace("a", "o"): v for k, v in list(many.items())}
    many |= {f"{k} {i}{j}": v for i in "bcdfg" for j in "rst" for k, v in list(many.items())[:30]}
    write_catalogue(
        tmp_path / "a.mo",
        {
            **many,
            "menu\x04one two\nthree  words": "eins zwei\n drei",
            "%d file was found\0%d files were found": "%d Datei da\0%d Dateien da",
            "two words": "zwei Wörter",
            "these are all alike": "these are all alike",
        },
    )
    write_catalogue(tmp_path / "b.mo", {"%d file was found": "anders"})
    (tmp_path / "c.mo").write_bytes(b"no catalogue")
    with (tmp_path / "a.mo").open("rb") as file:
        assert gettext.GNUTranslations(file).gettext("two words") == "zwei Wörter"
    found = gettext_pairs.read_catalogues(tmp_path)
    pairs = dict(found["train"] + found["valid"])
    assert pairs["one two three words"] == "eins zwei drei"
    assert pairs["%d file was found"] == "%d Datei da"
    assert "two words" not in pairs and "these are all alike" not in pairs
    assert set(many) <= set(pairs)
    assert gettext_pairs._split_of("Expired: %s!") == gettext_pairs._split_of("expired  %s 3")
    letters = [{"".join(filter(str.isalpha, en)) for en, _ in found[s]} for s in found]
    assert found["valid"] and not letters[0] & letters[1]


def test_catalogues_of_two_folders_are_two_datasets(tmp_path, monkeypatch):
    """And $BA_DIST_DATA, which names a folder of images and the like, is not looked into."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        pairs = zip(ENGLISH, GERMAN, strict=True)
        words = {f"{folder} {chr(97 + i % 26)}{chr(97 + i // 26)} {en}": de for i, (en, de) in
                 enumerate([*pairs] * 3)}  # fmt: skip
        write_catalogue(tmp_path / folder / "a.mo", words)

    def texts_of(folder):
        config = Data(dataset="gettext-en-de", data_dir=folder, row_tokens=64, subwords=330)
        source = open_source(config, "validation")
        return {source.text(i)[0].split()[0] for i in range(source.pairs)}

    assert texts_of(str(tmp_path / "one")) == {"one"}
    assert texts_of(str(tmp_path / "two")) == {"two"}
    monkeypatch.setenv("BA_DIST_DATA", str(tmp_path / "one"))
    monkeypatch.setattr(gettext_pairs, "LOCALES", tmp_path / "no")
    with pytest.raises(DataUnavailable, match="no/de/LC_MESSAGES holds no gettext catalogues"):
        find(Data(dataset="gettext-en-de"))


def test_no_catalogues(tmp_path):
    with pytest.raises(DataUnavailable, match=r"holds no gettext catalogues.*on Debian"):
        gettext_pairs.read_catalogues(tmp_path)


# --- WMT16 ----------------------------------------------------------------------------------------


def test_wmt16_as_tensorflow_datasets_stores_it(tmp_path):
    """By name, configuration and features, with other content; in two shards, in order."""
    import tensorflow_datasets as tfds

    class Wmt16Translate(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="de-en", version=VERSION)]

        def _info(self):
            features = tfds.features.Translation(languages=("de", "en"))
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            parts = {"train": slice(0, 50), "validation": slice(50, 60), "test": slice(50, 60)}
            return {split: self._generate_examples(part) for split, part in parts.items()}

        def _generate_examples(self, part):
            for i, (english, german) in enumerate(zip(ENGLISH[part], GERMAN[part], strict=True)):
                yield i, {"en": f" {english}\n", "de": german.replace(" ", "  ", 1)}
            yield 99, {"en": "", "de": "nichts"}

    builder = Wmt16Translate(config="de-en", data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=2))
    config = Data(dataset="wmt16-en-de", data_dir=str(tmp_path), row_tokens=64, subwords=330)
    source = open_source(config, "validation")
    texts = {source.text(i) for i in range(source.pairs)}
    assert texts == set(zip(ENGLISH[50:], GERMAN[50:], strict=True))
    assert "50 pairs of train, 10 pairs of validation" in find(config).origin


def test_wmt16_without_a_network(tmp_path, monkeypatch):
    def no_address(*_):
        raise OSError("no network in this test")

    monkeypatch.setattr("socket.getaddrinfo", no_address)
    with pytest.raises(DataError, match="cannot bring it: .*\n.*or use --dataset pairs"):
        find(Data(dataset="wmt16-en-de", data_dir=str(tmp_path)))
