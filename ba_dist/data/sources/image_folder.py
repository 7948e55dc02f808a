"""Images in one folder per class: DIR/train/CLASS/*.JPEG and DIR/val/CLASS/*.

A listing of ImageNet's 1.28 million files takes 34 MB as bytes and offsets; as Python strings it
would take 107 MB. Rank 0 lists once, and the ranks of a node share the arrays.
"""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ba_dist.data.sources import Allocate, Counters, Image, ImageInfo, new_memory
from ba_dist.data.sources.files import FileDescriptor, unreadable
from ba_dist.data.sources.images import decode_image
from ba_dist.errors import DataError

SUFFIXES = (b".jpeg", b".jpg", b".png")
_LISTERS = 16  # folders listed at a time: a file server answers many requests at once


@dataclass(frozen=True)
class Listing:
    """The images of a split, by class, then by name.

    Args:
        folder: the folder that has a folder for each class.
        classes: names of the classes, sorted; the label of a class is its position here.
        names: uint8 [bytes], the file names, one after the other.
        ends: int64 [N], where each name ends in `names`.
        class_ends: int64 [classes], the number of files in this class and all before it.
        ignored: number of files that are not images.
    """

    folder: Path
    classes: list[str]
    names: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int64]
    class_ends: npt.NDArray[np.int64]
    ignored: int = 0

    def file(self, sample_id: int) -> tuple[int, bytes]:
        """Label and file name of a sample."""
        begin = int(self.ends[sample_id - 1]) if sample_id else 0
        name = self.names[begin : int(self.ends[sample_id])].tobytes()
        return int(np.searchsorted(self.class_ends, sample_id, side="right")), name

    def name(self, sample_id: int) -> str:
        """CLASS/NAME of a sample."""
        label, name = self.file(sample_id)
        return f"{self.classes[label]}/{os.fsdecode(name)}"

    def contents(self) -> list[str]:
        """A line a class and one for all names, to tell whether two listings are the same."""
        # These words are part of the digest of the data in config.json and in checkpoints: a run
        # that was begun with others would be refused.
        counts = np.diff(self.class_ends, prepend=0).tolist()
        lines = [f"{name}: {n} pictures" for name, n in zip(self.classes, counts, strict=True)]
        digest = hashlib.sha256(self.names.data)
        digest.update(self.ends.data)
        return [*lines, f"names of all pictures: {digest.hexdigest()}"]


def list_classes(folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted, links to folders included, hidden ones not."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())


def list_images(folder: Path, classes: list[str]) -> Listing:
    """Lists a split.

    Args:
        folder: the folder of the split.
        classes: names of the classes in order of their labels; one without a folder has no images.

    Raises:
        DataError: when it has no images, or a folder that is not a class.
    """
    try:
        here = list_classes(folder)
        if unknown := sorted(set(here) - set(classes)):
            raise DataError(
                f"{folder} has {len(unknown)} classes that {folder.parent / 'train'} lacks:"
                f" {', '.join(unknown[:5])}{' …' * (len(unknown) > 5)}; a network has outputs for"
                " the classes of training only"
            )
        with ThreadPoolExecutor(_LISTERS, "list") as pool:
            wanted = [folder / name if name in set(here) else None for name in classes]
            parts = list(pool.map(_list_class, wanted))
    except OSError as error:
        raise DataError(f"{error.filename} cannot be listed: {error.strerror}") from None
    lengths = np.concatenate([lengths for _, lengths, _ in parts] or [np.zeros(0, np.int64)])
    if not len(lengths):
        raise DataError(_nothing_in(folder))
    return Listing(
        folder,
        classes,
        np.frombuffer(b"".join(joined for joined, _, _ in parts), np.uint8),
        np.cumsum(lengths),
        np.cumsum([len(lengths) for _, lengths, _ in parts]),
        sum(ignored for _, _, ignored in parts),
    )


def _list_class(folder: Path | None) -> tuple[bytes, npt.NDArray[np.int64], int]:
    """The names joined, their lengths, and how many files are no images."""
    if folder is None:
        return b"", np.zeros(0, np.int64), 0
    names, ignored = [], 0
    # Files are not examined beyond the listing: on a file server each would be a request.
    with os.scandir(os.fsencode(folder)) as entries:
        for entry in entries:
            if entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith(b"."):
                names.append(entry.name)
            else:
                ignored += 1
    names.sort()
    return b"".join(names), np.array([len(name) for name in names], np.int64), ignored


def _nothing_in(folder: Path) -> str:
    expected = f"expected {folder}/CLASS/NAME with {', '.join(s.decode() for s in SUFFIXES)}"
    with os.scandir(folder) as entries:
        flat = sum(os.fsencode(entry.name).lower().endswith(SUFFIXES) for entry in entries)
    if flat:
        return (
            f"{folder} holds {flat} images that are in no folder of a class; {expected}."
            " For ImageNet's validation images there are scripts that sort them, e.g. valprep.sh"
        )
    return f"{folder} holds no images; {expected}"


class ImageFolderSource:
    """Samples in files of their own. A record is the label as 8 bytes, then the file.

    Args:
        info: facts of the dataset.
        listing: the files of the split.
    """

    stored = True

    def __init__(self, info: ImageInfo, listing: Listing):
        self.info = info
        self.counters = Counters()
        self.contents = listing.contents()
        self._listing = listing
        self._folders = [os.fsencode(listing.folder / name) + b"/" for name in listing.classes]

    def __len__(self) -> int:
        return len(self._listing.ends)

    def read(self, sample_id: int) -> bytes:
        label, path = self._find(sample_id)
        try:
            file = FileDescriptor(path)
            data = file.read(0, file.size())
        except OSError as error:
            raise unreadable(error) from None
        self.counters.add(records_read=1, bytes_read=len(data), files_opened=1)
        return np.int64(label).tobytes() + data

    def decode(self, record: bytes, allocate: Allocate = new_memory) -> tuple[Image, int]:
        self.counters.add(records_decoded=1)
        label = int(np.frombuffer(record, np.int64, 1)[0])
        return decode_image(memoryview(record)[8:], allocate), label

    def where(self, sample_id: int) -> str:
        return os.fsdecode(self._find(sample_id)[1])

    def _find(self, sample_id: int) -> tuple[int, bytes]:
        """Label and path of a sample."""
        label, name = self._listing.file(sample_id)
        return label, self._folders[label] + name
