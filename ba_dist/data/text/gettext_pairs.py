"""Sentence pairs of the messages that programs show: gettext's catalogues of one language.

A stock Debian has them in /usr/share/locale; English is what programs ask for, so each catalogue
holds both sides.
"""

import gettext
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from ba_dist.errors import DataUnavailable

Pairs = list[tuple[str, str]]

LOCALES = Path("/usr/share/locale")
_WORDS = 3  # fewer are names of languages and countries, menu entries and units
_VALIDATION = 2  # percent
_WORD = re.compile(r"[^\W\d_]{2,}")
_LETTERS = re.compile(r"[^\W\d_]+")


def read_catalogues(folder: Path) -> dict[str, Pairs]:
    """Split → pairs of all catalogues (*.mo) of a folder, the same ones for the same files.

    A message is one line, with single spaces. Left out are those of fewer than three words, those
    that are translated by themselves, and all but the first translation of a message (catalogues in
    the order of their names). The letters of a message alone decide on its split, so that one that
    differs in punctuation, case or numbers is in the same.

    Args:
        folder: such as /usr/share/locale/de/LC_MESSAGES.

    Raises:
        DataUnavailable: when it holds no catalogue with such messages.
    """
    found: dict[str, str] = {}
    for path in sorted(folder.glob("*.mo")):
        for message, translation in _messages(path):
            english, other = " ".join(message.split()), " ".join(translation.split())
            if len(_WORD.findall(english)) >= _WORDS and other and other != english:
                found.setdefault(english, other)
    splits: dict[str, Pairs] = {"train": [], "valid": []}
    for pair in found.items():
        splits[_split_of(pair[0])].append(pair)
    if not all(splits.values()):
        raise DataUnavailable(
            f"{folder} holds no gettext catalogues (*.mo) with messages in both splits. Minimal"
            " systems leave them out: on Debian, reinstall packages with translations once"
            " /etc/dpkg/dpkg.cfg.d does not exclude /usr/share/locale; coreutils, git, gnupg-l10n"
            " and iso-codes have many"
        )
    return splits


def _messages(path: Path) -> Iterator[tuple[str, str]]:
    """(English, translation) of a catalogue; of plural forms the first; nothing if it is broken."""
    try:
        with path.open("rb") as file:
            # There is no public way to list what a catalogue holds.
            catalogue = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
    except (OSError, UnicodeDecodeError, LookupError, ValueError):
        return  # a few are not in the characters that they say they are in
    for key, translation in catalogue.items():
        message, form = key if isinstance(key, tuple) else (key, 0)
        if message and form == 0:
            yield message.split("\x04")[-1], translation  # behind a context


def _split_of(message: str) -> str:
    letters = " ".join(_LETTERS.findall(message)).lower()
    number = int.from_bytes(hashlib.sha256(letters.encode()).digest()[:8], "big")
    return "valid" if number % 100 < _VALIDATION else "train"
