"""Pictures are decoded to the same pixels as by TensorFlow, whatever they are; or refused."""

import io
import struct
import zlib

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from ba_dist.data.sources.images import MAX_PIXELS, decode_image
from ba_dist.errors import CorruptRecord

from ..pictures import crop

PHOTOGRAPH = crop(1)


def encoded(picture, form="JPEG", **options):
    """The bytes of a picture of Pillow's."""
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


JPEGS = {
    "4:2:0": {"quality": 90},
    "4:2:2": {"subsampling": 1},
    "4:4:4": {"subsampling": 0},
    "progressive": {"progressive": True},
    "worst": {"quality": 5},
    "best": {"quality": 100},
    "RGB": {"keep_rgb": True},
}


@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
def test_jpegs_equal_tensorflows_bit_for_bit(options):
    import tensorflow as tf

    for seed in range(3):
        jpeg = encoded(Image.fromarray(crop(seed)), **options)
        expected = tf.io.decode_jpeg(
            jpeg, channels=3, dct_method="INTEGER_ACCURATE", fancy_upscaling=True
        ).numpy()
        assert np.array_equal(decode_image(jpeg), expected)
        assert np.array_equal(decode_image(memoryview(jpeg)), expected)


def test_grey_jpegs_have_three_equal_channels():
    jpeg = encoded(Image.fromarray(PHOTOGRAPH).convert("L"))
    expected = np.asarray(Image.open(io.BytesIO(jpeg)))
    assert np.array_equal(decode_image(jpeg), np.repeat(expected[..., None], 3, axis=2))


def test_cmyk_jpegs_look_like_the_photograph():
    """ImageNet has 22 of them; decoded without Adobe's inversion they would be negatives."""
    picture = Image.fromarray(PHOTOGRAPH).convert("CMYK")
    found = decode_image(encoded(picture, quality=95)).astype(int)
    assert np.abs(found - PHOTOGRAPH).mean() < 5


@pytest.mark.parametrize("form", ["PNG", "BMP", "GIF", "WEBP"])
def test_other_formats_in_disguise(form):
    picture = Image.fromarray(PHOTOGRAPH)
    data = encoded(picture.quantize(64) if form == "GIF" else picture, form)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    found = decode_image(data)
    assert found.dtype == np.uint8 and np.array_equal(found, expected)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1"])
def test_every_kind_of_png_becomes_rgb(mode):
    picture = Image.fromarray(PHOTOGRAPH).convert(mode)
    assert np.array_equal(decode_image(encoded(picture, "PNG")), np.asarray(picture.convert("RGB")))


def test_pngs_of_16_bits_keep_their_upper_half():
    """As in TensorFlow, which strips the lower one."""
    import tensorflow as tf

    values = np.random.default_rng(0).integers(0, 2**16, (9, 11), np.uint16)
    png = encoded(Image.fromarray(values), "PNG")
    assert np.array_equal(decode_image(png), np.repeat((values >> 8)[..., None], 3, axis=2))
    assert np.array_equal(decode_image(png), tf.io.decode_png(png, channels=3).numpy())


@pytest.mark.parametrize(
    ("form", "options"), [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {})]
)
def test_every_cut_is_refused(form, options):
    data = encoded(Image.fromarray(crop(2, 16, 20)), form, **options)
    # What follows the end of a PNG's last pixels holds nothing that would be missed.
    for length in range(len(data) - (24 if form == "PNG" else 0)):
        with pytest.raises(CorruptRecord):
            decode_image(data[:length])


def test_what_is_no_picture_is_shown():
    for data in (b"", b"GIF", b"<html><body>404 Not Found", b"\0" * 100):
        with pytest.raises(CorruptRecord, match=f"{len(data)} bytes are no image .*JPEG, PNG"):
            decode_image(data)


def test_formats_that_nobody_needs_are_refused():
    with pytest.raises(CorruptRecord, match="no image that is known"):
        decode_image(encoded(Image.fromarray(PHOTOGRAPH), "TIFF"))


def png_of(width, height):
    """A few hundred bytes that claim to be of this size."""

    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 10_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def jpeg_of(width, height):
    """A real JPEG whose header claims to be of this size."""
    jpeg = bytearray(simplejpeg.encode_jpeg(PHOTOGRAPH))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(jpeg)


@pytest.mark.parametrize("make", [png_of, jpeg_of])
@pytest.mark.parametrize("side", [10_000, 65_000])
def test_bombs_are_refused_before_memory_is_asked_for(make, side):
    """Pillow refuses by itself what is more than twice too large."""
    asked = []
    expected = f"claims {side}x{side} pixels; at most {MAX_PIXELS}|{side**2} pixels. exceeds limit"
    with pytest.raises(CorruptRecord, match=expected):
        decode_image(make(side, side), lambda size: asked.append(size))
    assert not asked


def test_pixels_go_straight_to_their_place():
    memory = np.zeros(PHOTOGRAPH.nbytes, np.uint8)
    for data in (simplejpeg.encode_jpeg(PHOTOGRAPH), encoded(Image.fromarray(PHOTOGRAPH), "PNG")):
        memory[:] = 0
        found = decode_image(data, lambda size: memory[:size])
        assert np.shares_memory(found, memory) and found.shape == PHOTOGRAPH.shape
        assert memory.any()
