"""Samples that need no storage, for benchmarks and first trials."""

from dataclasses import dataclass, field
from functools import cache

import numpy as np

from ba_dist.data.sources import Allocate, Counters, Image, ImageInfo, new_memory, put
from ba_dist.data.sources.images import decode_image
from ba_dist.rules.keys import combine


@dataclass
class SyntheticSource:
    """Noise that is a function of the sample id. A record is the id.

    Args:
        info: image shape and number of classes.
        count: N, the number of samples.
        seed: of the noise.
    """

    info: ImageInfo
    count: int
    seed: int = 0
    counters: Counters = field(default_factory=Counters)
    stored = False

    def __post_init__(self) -> None:
        self.contents = [f"synthetic-{self.count}-{self.info.image_shape}-{self.seed}"]

    def __len__(self) -> int:
        return self.count

    def read(self, sample_id: int) -> bytes:
        self.counters.add(records_read=1)
        return np.int64(sample_id).tobytes()

    def decode(self, record: bytes, allocate: Allocate = new_memory) -> tuple[Image, int]:
        self.counters.add(records_decoded=1)
        sample_id = int(np.frombuffer(record, np.int64)[0])
        size = int(np.prod(self.info.image_shape))
        noise = combine(self.seed, sample_id, np.arange(-(-size // 8)))
        image = put(noise.view(np.uint8)[:size], self.info.image_shape, allocate)
        return image, sample_id % self.info.classes

    def where(self, sample_id: int) -> str:
        return f"synthetic sample {sample_id}"


@dataclass
class SyntheticColourSource(SyntheticSource):
    """Noise around a colour that tells the class: a network learns it in a few steps.

        pixel of channel k = noise / 4 + 191·((2k + 1)·class mod C) / (C - 1)

    so that flips, crops and masks leave what is to be learned.
    """

    def __post_init__(self) -> None:
        self.contents = [f"synthetic-colour-{self.count}-{self.info.image_shape}-{self.seed}"]

    def decode(self, record: bytes, allocate: Allocate = new_memory) -> tuple[Image, int]:
        image, label = super().decode(record, allocate)
        classes, channels = self.info.classes, np.arange(self.info.image_shape[2])
        colour = 191 * ((2 * channels + 1) * label % classes) // max(1, classes - 1)
        np.add(image // 4, colour.astype(np.uint8), out=image)
        return image, label


TEMPLATES = 24
_HEIGHT, _WIDTH, _QUALITY = 375, 500, 88


def synthetic_image(seed: int, number: int, height: int = _HEIGHT, width: int = _WIDTH) -> Image:
    """Noise whose amplitude falls with frequency (1/f), as in photographs, uint8 [H, W, 3].

    In photographs the channels are mostly alike, so most of the noise is common to all three.

    Args:
        seed: of the noise.
        number: which of the images of a seed.
        height: H in pixels.
        width: W in pixels.
    """
    noise = np.random.default_rng([seed, number])
    vertical, horizontal = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.sqrt(vertical**2 + horizontal**2)
    frequency[0, 0] = 1.0
    common = noise.standard_normal((height, width))
    channels = []
    for _ in range(3):
        white = common + 0.3 * noise.standard_normal((height, width))
        pink = np.fft.irfft2(np.fft.rfft2(white) / frequency, s=(height, width))
        channels.append(128 + 48 * (pink - pink.mean()) / pink.std())
    return np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8)


@cache
def _jpegs(seed: int, count: int) -> list[bytes]:
    import simplejpeg

    return [
        simplejpeg.encode_jpeg(synthetic_image(seed, number), _QUALITY, colorsubsampling="420")
        for number in range(count)
    ]


@dataclass
class SyntheticJpegSource:
    """JPEGs of 500x375 pixels and about 100 kB, as in ImageNet; no file is read.

    A few images are made once, and the id of a sample chooses one of them. A record is the label
    as 8 bytes, then the JPEG.

    Args:
        info: number of classes.
        count: N, the number of samples.
        seed: of the images.
    """

    stored = True

    info: ImageInfo
    count: int
    seed: int = 0
    counters: Counters = field(default_factory=Counters)

    def __post_init__(self) -> None:
        self.contents = [f"synthetic-jpeg-{self.count}-{self.seed}"]
        self._jpegs = _jpegs(self.seed, min(TEMPLATES, self.count))

    def __len__(self) -> int:
        return self.count

    def read(self, sample_id: int) -> bytes:
        jpeg = self._jpegs[int(combine(self.seed, sample_id)) % len(self._jpegs)]
        self.counters.add(records_read=1, bytes_read=len(jpeg))
        return np.int64(sample_id % self.info.classes).tobytes() + jpeg

    def decode(self, record: bytes, allocate: Allocate = new_memory) -> tuple[Image, int]:
        self.counters.add(records_decoded=1)
        label = int(np.frombuffer(record, np.int64, 1)[0])
        return decode_image(memoryview(record)[8:], allocate), label

    def where(self, sample_id: int) -> str:
        return f"synthetic image {sample_id}"
