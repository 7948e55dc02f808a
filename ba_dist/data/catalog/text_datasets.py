"""Datasets that are texts: where their lines are, and which of them are for validation.

    ptb         ptb.train.txt and ptb.valid.txt in --data-dir
    text        train.txt and valid.txt in --data-dir; or any other .txt files there, of each of
                which the last twentieth of the lines is for validation
    bible-kjv   the Debian package of this name: every twentieth chapter is for validation
    fortunes    the Debian package of this name: every twentieth fortune is for validation

Words are what white space separates. The texts of Debian's packages are brought to that form first:
small letters, and signs apart from words.
"""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ba_dist.config import Data
from ba_dist.data.catalog.found import Found, Split
from ba_dist.data.sources import Source
from ba_dist.data.sources.text import TextInfo, TextSource, WindowSource, windows
from ba_dist.data.text import vocabulary
from ba_dist.data.text.lines import read_lines
from ba_dist.errors import DataError, DataUnavailable
from ba_dist.storage.cache import DATA_VARIABLE, check_data_dir, data_dir

TEXTS = ("ptb", "text", "bible-kjv", "fortunes")
DEBIAN = ("bible-kjv", "fortunes")
_VALIDATION = ("valid", "validation", "val", "dev")
_SHARE = 20  # one of so many lines, chapters or fortunes is for validation
_WORDS = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?|\d+|[^\w\s]")
_FORTUNES = Path("/usr/share/games/fortunes")
_BIBLE = ("bible", "-f", "gen1:1-rev22:21")


@dataclass(frozen=True)
class Lines:
    """The lines of a text.

    Args:
        train: to train on.
        validation: to evaluate on.
        origin: where they are, for messages.
    """

    train: list[str]
    validation: list[str]
    origin: str


def find(config: Data) -> Found:
    """Reads a text, and numbers its words.

    Raises:
        DataUnavailable, DataError: as `locate`, or when there are too few words.
    """
    return found_in(config, locate(config.dataset, config.data_dir))


def found_in(config: Data, lines: Lines) -> Found:
    """The spans and windows of some lines, whose words are numbered.

    Raises:
        DataError: when there are too few words for a single span.
    """
    words = vocabulary.of_lines(lines.train, config.least_count)
    train, validation = words.encode(lines.train), words.encode(lines.validation)
    info = TextInfo(
        config.dataset, len(words), words.digest(), words.end, config.bptt, config.context
    )
    spans = (len(train) - 1) // config.bptt
    if spans == 0:
        raise DataError(
            f"{lines.origin}: {len(train)} tokens to train on are no more than --bptt"
            f" {config.bptt}; use more text, or a smaller --bptt"
        )
    splits = {
        name: Split(
            count,
            opened,
            {"digest": hashlib.sha256(tokens.tobytes()).hexdigest()},
            {"tokens": tokens},
        )
        for name, tokens, count, opened in (
            ("train", train, spans, _open_spans),
            ("validation", validation, windows(len(validation), info), _open_windows),
        )
    }
    origin = f"{lines.origin}; {len(train)} tokens of {len(words)} words"
    return Found(info, origin, splits)


def _open_spans(info: TextInfo, split: Split) -> Source:
    # Fewer samples are the beginning of the text: what is read in a row must lie in a row.
    return TextSource(info, split.arrays["tokens"], split.facts["digest"], split.count)


def _open_windows(info: TextInfo, split: Split) -> Source:
    return WindowSource(info, split.arrays["tokens"], split.facts["digest"])


def locate(name: str, given_dir: str | None) -> Lines:
    """Reads the lines of a text.

    Args:
        name: one of `TEXTS`.
        given_dir: the value of --data-dir.

    Raises:
        DataUnavailable: with what was looked for, and how to get it.
        DataError: when a file cannot be read, is not UTF-8, or a split has no words.
    """
    if name in DEBIAN:
        found = {"bible-kjv": _bible, "fortunes": _fortunes}[name]()
    else:
        found = _folder(name, data_dir(given_dir))
    for split, lines in (("train", found.train), ("validation", found.validation)):
        if not any(line.split() for line in lines):
            raise DataError(f"{found.origin}: there are no words for {split}; expected text")
    return found


def missing_package(name: str) -> str | None:
    """The Debian package that has to be installed for a text, None where all is there."""
    there: dict[str, Callable[[], bool]] = {
        "bible-kjv": lambda: shutil.which(_BIBLE[0]) is not None,
        "fortunes": _FORTUNES.is_dir,
    }
    return None if name not in there or there[name]() else name


# --- files in a folder ----------------------------------------------------------------------------


def _folder(name: str, folder: Path | None) -> Lines:
    prefix = "ptb." if name == "ptb" else ""
    forms = f"{prefix}train.txt and {prefix}valid.txt"
    others = "" if prefix else ", or of other .txt files, whose last lines are for validation"
    if folder is None:
        raise DataUnavailable(
            f"{name} needs --data-dir (or ${DATA_VARIABLE}) to name a folder of {forms}{others}"
        )
    check_data_dir(folder)
    train = folder / f"{prefix}train.txt"
    if train.is_file():
        for path in (folder / f"{prefix}{word}.txt" for word in _VALIDATION):
            if path.is_file():
                return Lines(read_lines(train), read_lines(path), f"{train} and {path.name}")
        raise DataUnavailable(
            f"{folder} has {train.name}, but no {prefix}{_VALIDATION[0]}.txt beside it: text to"
            " evaluate on is needed"
        )
    paths = sorted(folder.glob("*.txt"))
    if prefix or not paths:
        raise DataUnavailable(f"{folder} has no {train.name}; expected {forms}{others}")
    parts = [_last_apart(read_lines(path)) for path in paths]
    return Lines(
        [line for first, _ in parts for line in first],
        [line for _, last in parts for line in last],
        f"{len(paths)} .txt files in {folder}",
    )


def _last_apart(lines: list[str]) -> tuple[list[str], list[str]]:
    count = len(lines) - len(lines) // _SHARE
    return lines[:count], lines[count:]


# --- the texts of Debian's packages ---------------------------------------------------------------


def _bible() -> Lines:
    _check_there("bible-kjv")
    try:
        done = subprocess.run(
            _BIBLE, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(f"`{' '.join(_BIBLE)}` failed: {error}") from None
    chapters: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        where, _, verse = line.partition(" ")
        chapters.setdefault(where.partition(":")[0], []).append(_plain(verse))
    if len(chapters) < _SHARE:
        raise DataError(
            f"`{' '.join(_BIBLE)}` printed {len(chapters)} chapters (status {done.returncode});"
            " expected all of them: is its package bible-kjv-text installed?"
        )
    return _every_twentieth(list(chapters.values()), "the Debian package bible-kjv")


def _fortunes() -> Lines:
    _check_there("fortunes")
    files = sorted(p for p in _FORTUNES.iterdir() if p.is_file() and not p.is_symlink())
    fortunes = []
    for path in (p for p in files if p.suffix == ""):
        for fortune in "\n".join([*read_lines(path), ""]).split("\n%\n"):
            lines = [plain for line in fortune.splitlines() if (plain := _plain(line))]
            fortunes += [lines] if lines else []
    return _every_twentieth(fortunes, f"the files in {_FORTUNES}")


def _check_there(name: str) -> None:
    if missing_package(name):
        raise DataUnavailable(
            f"{name} is not on this machine: `ba-dist data prepare {name}` as root, or `apt-get"
            f" install {name}`, installs the Debian package that holds it, where rank 0 runs"
        )


def _every_twentieth(parts: list[list[str]], origin: str) -> Lines:
    def joined(chosen: Iterable[list[str]]) -> list[str]:
        return [line for part in chosen for line in part]

    train = joined(part for i, part in enumerate(parts) if i % _SHARE != _SHARE - 1)
    return Lines(train, joined(parts[_SHARE - 1 :: _SHARE]), origin)


def _plain(line: str) -> str:
    """Small letters, and signs apart from words."""
    return " ".join(_WORDS.findall(line.lower()))


def install(name: str) -> None:
    """Installs the Debian package of a text, where it is missing and this is root.

    Raises:
        DataUnavailable: when it cannot be installed, with the reason.
    """
    package = missing_package(name)
    if package is None or os.geteuid() != 0 or not shutil.which("apt-get"):
        return  # `locate` says what is missing
    from ba_dist.data.catalog.prepare import apt

    try:
        apt(["apt-get", "install", "--yes", "--no-install-recommends", package])
    except (DataError, OSError, subprocess.TimeoutExpired) as error:
        raise DataUnavailable(
            f"the Debian package {package} cannot be installed: {error}"
        ) from None
