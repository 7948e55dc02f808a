"""Name → sentence pairs as numbers: text files, a vocabulary, rows; prepared once.

    cache/datasets/NAME/{train,valid}.{en,de}      the texts, of datasets that are brought here
    cache/datasets/NAME-DIGEST/                    vocabulary, tokens and rows, of any texts

DIGEST is that of the texts and of what they are made into: texts that change are another folder.
Texts that came from --data-dir are in a folder NAME with a digest of that path.
"""

import hashlib
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ba_dist.config import Data
from ba_dist.data.catalog.found import Arrays, Found, Split
from ba_dist.data.catalog.prepare import first_line
from ba_dist.data.sources import PackedPairs, PairsInfo, Source
from ba_dist.data.sources.packed_pairs import SIDES, SUBWORDS_FILE
from ba_dist.data.text import gettext_pairs, subwords
from ba_dist.data.text.lines import read_lines
from ba_dist.data.text.packing import first_fit
from ba_dist.data.text.subwords import END, Subwords
from ba_dist.errors import ConfigError, DataError
from ba_dist.storage import lock
from ba_dist.storage.cache import DATA_VARIABLE, cache_dir, check_data_dir, data_dir

Lines = list[str]

# What the files call the splits.
_FILES = {"train": "train", "validation": "valid"}
_ARRAYS = ("source", "target", "source_ends", "target_ends", "pairs", "row_ends")
_TEXTS = ("text", "text_ends")
# Raised when the same texts are made into other numbers.
_VERSION = 1
_MANY_PAIRS, _SUBWORDS = 1_000_000, {True: 32_000, False: 8_000}
_TFDS = "wmt16_translate/de-en"


def find(config: Data) -> Found:
    """Makes the numbers of a dataset, or finds them; several processes may do it at a time.

    Raises:
        DataUnavailable, DataError: with what was looked for, and how to get it.
        ConfigError: when `--languages` is not of its form.
    """
    if not re.fullmatch(r"\w+-\w+", config.languages):
        raise ConfigError(
            f"--languages {config.languages!r} cannot be read; write SOURCE-TARGET, such as en-de"
        )
    folder = _folder_of(config)
    texts = {split: _read(folder, split, config.languages.split("-")) for split in _FILES}
    return found_in(config, texts, f"the texts in {folder}")


def found_in(config: Data, texts: Mapping[str, tuple[Lines, Lines]], origin: str) -> Found:
    """The rows of some sentence pairs, made of them once and kept in the cache.

    Args:
        config: names the dataset and says how long rows are.
        texts: split → lines of the source, lines of the target.
        origin: where they came from, for messages.

    Raises:
        DataError: when all pairs are longer than a row, or the cache cannot be written.
    """
    size = config.subwords or _SUBWORDS[len(texts["train"][0]) >= _MANY_PAIRS]
    digests = {split: _digest(lines, size, config.row_tokens) for split, lines in texts.items()}
    # The vocabulary is made of the training texts, so both splits depend on them.
    key = hashlib.sha256("".join(digests.values()).encode()).hexdigest()[:12]
    made = cache_dir() / "datasets" / f"{config.dataset}-{key}"
    _once(made, lambda to: _encode(to, texts, size, config.row_tokens))
    info, splits = _load(made, config)
    counts = {split: (len(a["source_ends"]), len(a["pairs"])) for split, a in splits.items()}
    longer = sum(all_of - packed for all_of, packed in counts.values())
    left_out = f"; {longer} pairs longer than a row are left out" if longer else ""
    kept = ", ".join(f"{all_of} pairs of {split}" for split, (all_of, _) in counts.items())
    said = f"{origin}: {kept}, {info.vocabulary} subwords, rows of {config.row_tokens} tokens"
    return Found(
        info,
        said + left_out,
        {
            split: Split(len(arrays["row_ends"]), _open, {"digest": digests[split]}, arrays)
            for split, arrays in splits.items()
        },
    )


def _open(info: PairsInfo, split: Split) -> Source:
    return PackedPairs(info, split.arrays, split.facts["digest"], END)


# --- the texts ------------------------------------------------------------------------------------


def _folder_of(config: Data) -> Path:
    """The folder of the text files; those of datasets that can be brought are written first."""
    path = data_dir(config.data_dir)
    if path is not None:
        check_data_dir(path)
    if config.dataset == "pairs":
        if path is None:
            raise DataError(
                f"pairs needs --data-dir (or ${DATA_VARIABLE}) to name a folder with"
                f" {', '.join(_names(config.languages.split('-')))}"
            )
        return path
    if config.dataset == "gettext-en-de" and not config.data_dir:
        path = None  # the environment's folder is for data; these lie where programs look for them
    # Another folder may have other files with the same names.
    mark = f"-{hashlib.sha256(bytes(path)).hexdigest()[:12]}" if path else ""
    folder = cache_dir() / "datasets" / f"{config.dataset}{mark}"
    bring = _BROUGHT[config.dataset]
    _once(folder, lambda to: _write_texts(to, bring(path)))
    return folder


def _from_gettext(path: Path | None) -> dict[str, gettext_pairs.Pairs]:
    return gettext_pairs.read_catalogues(path or gettext_pairs.LOCALES / "de" / "LC_MESSAGES")


def _from_tfds(path: Path | None) -> dict[str, gettext_pairs.Pairs]:
    """WMT16 as TensorFlow Datasets has it; `valid` is newstest2015."""
    from ba_dist.data.catalog import tfds_arrays

    folder = path or cache_dir() / "tfds"
    try:
        builder = tfds_arrays.open_builder(_TFDS, folder, check=_check_languages)
        return {
            "train": _sentences(tfds_arrays.in_order(builder, "train")),
            "valid": _sentences(tfds_arrays.in_order(builder, "validation")),
        }
    except Exception as error:  # a download fails in many ways; all mean that there is no data
        raise DataError(
            f"{_TFDS} is not prepared in {folder}, and TensorFlow Datasets cannot bring it:"
            f" {first_line(error)}\nRun `ba-dist data prepare wmt16-en-de` on a machine with a"
            " network and the same cache (XDG_CACHE_HOME), or use --dataset pairs with text files"
            " of your own"
        ) from None


def _sentences(samples: Any) -> gettext_pairs.Pairs:
    """(English, German) of each sample; a sentence is one line with single spaces."""

    def clean(value: Any) -> str:
        text = value.decode() if isinstance(value, bytes) else str(value)
        return " ".join(text.split())

    pairs = ((clean(sample["en"]), clean(sample["de"])) for sample in samples)
    return [pair for pair in pairs if all(pair)]


def _check_languages(builder: Any) -> None:
    if not {"en", "de"} <= set(builder.info.features):
        raise DataError(f"{builder.name} has {', '.join(builder.info.features)}, not en and de")


_BROUGHT: dict[str, Callable[[Path | None], dict[str, gettext_pairs.Pairs]]] = {
    "gettext-en-de": _from_gettext,
    "wmt16-en-de": _from_tfds,
}
NAMES = (*_BROUGHT, "pairs")


def _write_texts(folder: Path, splits: Mapping[str, gettext_pairs.Pairs]) -> None:
    for split, pairs in splits.items():
        for i, language in enumerate(("en", "de")):
            lines = "".join(f"{pair[i]}\n" for pair in pairs)
            (folder / f"{split}.{language}").write_text(lines, encoding="utf-8", newline="\n")


def _names(languages: list[str]) -> list[str]:
    return [f"{split}.{language}" for split in _FILES.values() for language in languages]


def _read(folder: Path, split: str, languages: list[str]) -> tuple[Lines, Lines]:
    """The lines of both languages of a split."""
    paths = [folder / f"{_FILES[split]}.{language}" for language in languages]
    if missing := [path.name for path in paths if not path.is_file()]:
        raise DataError(
            f"{folder} has no {' and no '.join(missing)}; sentence pairs are"
            f" {', '.join(_names(languages))}, line by line (--languages names the endings)"
        )
    source, target = (read_lines(path) for path in paths)
    if len(source) != len(target):
        raise DataError(
            f"{paths[0]} has {len(source)} lines, {paths[1].name} has {len(target)}; line i of one"
            " must be the translation of line i of the other"
        )
    if not source:
        raise DataError(f"{paths[0]} is empty")
    for path, lines in zip(paths, (source, target), strict=True):
        if empty := next((i for i, line in enumerate(lines, 1) if not line.strip()), 0):
            raise DataError(f"{path}, line {empty} is empty; leave such pairs out of both files")
    return source, target


# --- the numbers ----------------------------------------------------------------------------------


def _digest(lines: tuple[Lines, Lines], size: int, row_tokens: int) -> str:
    facts = [_VERSION, size, row_tokens, len(lines[0])]
    digest = hashlib.sha256(json.dumps(facts).encode())
    for side in lines:
        digest.update("\n".join(side).encode())
    return digest.hexdigest()


def _encode(
    folder: Path, texts: Mapping[str, tuple[Lines, Lines]], size: int, row_tokens: int
) -> None:
    """Writes vocabulary, tokens and rows."""
    count = len(texts["train"][0])
    if count > _MANY_PAIRS // 10:
        print(f"making subwords and rows of {count} pairs once", file=sys.stderr, flush=True)
    made = subwords.learn(
        [line for pair in zip(*texts["train"], strict=True) for line in pair], size
    )
    (folder / SUBWORDS_FILE).write_bytes(made.model)
    for split, lines in texts.items():
        arrays = _arrays(made, lines, row_tokens)
        if not len(arrays["row_ends"]):
            raise DataError(
                f"every pair of {_FILES[split]} is longer than --row-tokens {row_tokens}"
            )
        if split == "validation":
            both = [line.encode() for pair in zip(*lines, strict=True) for line in pair]
            arrays["text"] = np.frombuffer(b"".join(both), np.uint8)
            arrays["text_ends"] = np.cumsum([len(line) for line in both], dtype=np.int64)
        for name, array in arrays.items():
            np.save(folder / f"{split}_{name}.npy", array)


def _arrays(made: Subwords, lines: tuple[Lines, Lines], row_tokens: int) -> Arrays:
    arrays: Arrays = {}
    lengths = []
    for side, texts in zip(SIDES, lines, strict=True):
        numbers = made.encode(texts)
        lengths.append(np.array([len(row) for row in numbers], np.int64))
        arrays[side] = np.concatenate([np.array(row, np.uint16) for row in numbers])
        arrays[f"{side}_ends"] = np.cumsum(lengths[-1])
    arrays["pairs"], arrays["row_ends"] = first_fit(np.stack(lengths, 1) + 1, row_tokens)
    return arrays


def _load(folder: Path, config: Data) -> tuple[PairsInfo, dict[str, Arrays]]:
    """Facts, and the arrays of each split as `PackedPairs` has them."""
    try:
        vocabulary = Subwords((folder / SUBWORDS_FILE).read_bytes())
        splits = {
            split: {
                name: np.load(folder / f"{split}_{name}.npy", "r", allow_pickle=False)
                for name in (*_ARRAYS, *(_TEXTS if split == "validation" else ()))
            }
            for split in _FILES
        }
    except (OSError, ValueError, DataError) as error:
        raise DataError(f"{folder} is corrupt ({error}); delete it to prepare it anew") from None
    info = PairsInfo(
        config.dataset, config.row_tokens, vocabulary.size, vocabulary.digest, vocabulary.model
    )
    return info, splits


def _once(folder: Path, write: Callable[[Path], None]) -> None:
    """Makes a folder by `write` unless it is there; all of it or nothing, by one process."""
    if folder.is_dir():
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with lock.hold(folder.with_name(f"{folder.name}.lock"), wait=True):
            if folder.is_dir():
                return
            # The lock is held, so what is there was left by a process that was killed.
            for left in folder.parent.glob(f".{folder.name}.*"):
                shutil.rmtree(left, ignore_errors=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            try:
                write(temporary)
                temporary.chmod(0o755)
                temporary.rename(folder)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written: {error}; XDG_CACHE_HOME names another place"
        ) from None
