"""copies.png of a run: a few samples in rows, each before its augmented copies."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ba_dist.data.copies import Copies
from ba_dist.storage import whole_file

NAME = "copies.png"
_SIDE = 96  # pixels that an image has at most, so that the page stays small
_GAP = 2
_LABELS = "ba_dist samples"  # where the file keeps what its rows are


def write(path: Path, samples: Sequence[Copies]) -> None:
    """Writes originals and copies; larger images are made smaller.

    Args:
        path: of the file.
        samples: one for each row, with as many copies each.
    """
    import io

    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    rows = [[_tile(s.original), *(_tile(255 * copy) for copy in s.copies)] for s in samples]
    height = max(tile.shape[0] for row in rows for tile in row)
    width = max(tile.shape[1] for row in rows for tile in row)
    page = np.full((len(rows) * (height + _GAP), len(rows[0]) * (width + _GAP), 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            top, left = i * (height + _GAP), j * (width + _GAP)
            page[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    told = PngInfo()
    labels = [f"sample {s.sample}, {s.label}" for s in samples]
    told.add_itxt(_LABELS, json.dumps(labels))
    buffer = io.BytesIO()
    Image.fromarray(page).save(buffer, "png", pnginfo=told)
    whole_file.write(path, buffer.getvalue())


def read(path: Path) -> list[tuple[str, npt.NDArray[np.uint8]]]:
    """(what it is, uint8 [H, W, 3]) of each row of a copies.png; empty where there is none."""
    from PIL import Image

    with contextlib.suppress(OSError, ValueError, KeyError, TypeError), Image.open(path) as image:
        # Only a PNG has `text`, and Pillow types what it opens as any image.
        labels = json.loads(image.text[_LABELS])  # type: ignore[attr-defined]
        pixels = np.asarray(image.convert("RGB"))
        rows = np.split(pixels, len(labels))
        return [(f"{label}", row[:-_GAP, :-_GAP]) for label, row in zip(labels, rows, strict=True)]
    return []


def _tile(image: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """uint8 [h, w, 3] of an image [H, W, C] with values up to 255, no side above `_SIDE`."""
    from PIL import Image

    pixels = np.asarray(image).round().astype(np.uint8)
    colours = pixels if pixels.shape[2] == 3 else np.repeat(pixels[..., :1], 3, 2)
    shown = Image.fromarray(colours)
    shown.thumbnail((_SIDE, _SIDE))
    return np.asarray(shown)
