"""An image file becomes C × H × W bytes; a file that can't be decoded is a one-line error that names it."""

from __future__ import annotations

import os
import resource
import signal
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter, PngImagePlugin

from microstep.components.dataset.decoding import FITS, IMAGE_FORMATS, IMAGE_SUFFIXES, Decoder, read_image_size
from microstep.errors import DataError

RGB, GREY = Decoder(8, 8, 3), Decoder(8, 8, 1)
COLOUR = (200, 30, 60)
CUT = ["x.jpg", "x.png", "x.webp", "x.gif", "x.tif", "x.bmp", "x.ppm", "x.avif", "x.jp2", "x.tga"]
MODES = ["RGB", "L", "1", "P", "LA", "RGBA", "CMYK", "YCbCr", "I;16"]


def saved(directory: Path, image: Image.Image, name: str = "x.png", **options) -> Path:
    """Write an image."""
    image.save(directory / name, **options)
    return directory / name


def colour(file: Path, decoder: Decoder = RGB) -> list[int]:
    """Return the one color that all of a file's pixels must have."""
    pixels = decoder(file)
    assert pixels.dtype == np.uint8
    assert pixels.shape == decoder.shape
    first = pixels[:, 0, 0]
    assert (pixels == first[:, None, None]).all()
    return first.tolist()


def refusal(file: Path, decoder: Decoder = RGB) -> str:
    """Return the line that a file is refused with, without its own name."""
    with pytest.raises(DataError) as caught:
        decoder(file)
    assert caught.value.exit_code == 2
    line = str(caught.value)
    assert "\n" not in line
    name = str(file).encode(errors="backslashreplace").decode()
    assert line.startswith(" ".join(f"{name}: ".split()))
    return line.removeprefix(f"{name}: ")


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def declaring(file: Path, width: int, height: int) -> Path:
    """Write a small PNG that declares so many pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b""))
    return file


def test_a_picture_of_the_wanted_size_comes_back_bit_by_bit(tmp_path):
    """An image that already has the size is not resampled."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(RGB(saved(tmp_path, Image.fromarray(pixels))), pixels.transpose(2, 0, 1))
    np.testing.assert_array_equal(GREY(saved(tmp_path, Image.fromarray(pixels[..., 0]))), pixels[None, ..., 0])


@pytest.mark.parametrize("size", [(8, 8), (1, 1), (300, 20), (20, 300), (1, 900), (7, 9)])
@pytest.mark.parametrize(("decoder", "expected"), [(RGB, [200, 30, 60]), (GREY, [84])], ids=["rgb", "grey"])
def test_every_size_becomes_the_one_asked_for(tmp_path, size, decoder, expected):
    """Large or small, flat or tall: an image of one color stays so; gray is its luminance (ITU-R 601)."""
    assert colour(saved(tmp_path, Image.new("RGB", size, COLOUR)), decoder) == expected


@given(
    mode=st.sampled_from(MODES),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    channels=st.sampled_from([1, 3]),
)
@settings(deadline=None, max_examples=60)
def test_every_mode_becomes_bytes(tmp_path_factory, mode, size, channels):
    """Whatever PIL can open, of whatever size, comes out with the wanted shape."""
    file = saved(tmp_path_factory.mktemp("modes"), Image.new(mode, size), "x.tif" if mode != "RGBA" else "x.png")
    assert Decoder(5, 6, channels)(file).shape == (channels, 5, 6)


def transparent_palette() -> Image.Image:
    image = Image.new("P", (20, 20), 7)
    image.putpalette([0, 0, 0] * 256)
    image.info["transparency"] = 7
    return image


@pytest.mark.parametrize(
    ("image", "name"),
    [
        (Image.new("RGBA", (20, 20), (9, 9, 9, 0)), "x.png"),
        (Image.new("RGBA", (20, 20), (9, 9, 9, 0)), "x.webp"),
        (Image.new("LA", (20, 20), (9, 0)), "x.png"),
        (transparent_palette(), "x.png"),
        (transparent_palette(), "x.gif"),
    ],
    ids=["rgba", "webp", "grey", "palette", "gif"],
)
def test_what_is_transparent_is_white(tmp_path, image, name):
    """Transparent pixels become white, whatever their hidden color."""
    assert colour(saved(tmp_path, image, name)) == [255, 255, 255]


def test_what_is_half_transparent_is_half_white(tmp_path):
    """Black at half its strength over white is gray."""
    (level,) = {*colour(saved(tmp_path, Image.new("RGBA", (9, 9), (0, 0, 0, 128))))}
    assert abs(level - 127) <= 1


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_16_bits_are_scaled_not_clipped(tmp_path, name):
    """65535 is white and 32768 a middle gray; PIL's own conversion makes both white."""
    levels = {value: colour(saved(tmp_path, Image.new("I;16", (9, 9), value), name)) for value in (0, 32768, 65535)}
    assert levels == {0: [0] * 3, 32768: [127] * 3, 65535: [255] * 3}


def test_a_cmyk_jpeg_is_not_inverted(tmp_path):
    """CMYK is converted to RGB without inversion."""
    file = saved(tmp_path, Image.new("CMYK", (64, 64), (255, 0, 0, 0)), "x.jpg", quality=95)
    np.testing.assert_allclose(colour(file), [0, 255, 255], atol=3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_upright(tmp_path, orientation):
    """All eight EXIF orientations of one photograph are one image: bright at the top left, black opposite."""
    upright = np.zeros((8, 8), np.uint8)
    upright[:4, :4], upright[:4, 4:], upright[4:, :4] = 250, 170, 90
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # PIL.Image.Transpose that the camera would have made
    image = Image.fromarray(upright).resize((64, 64), Image.Resampling.NEAREST)
    stored = image if orientation == 1 else image.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = saved(tmp_path, stored, "x.jpg", exif=exif, quality=95)
    np.testing.assert_allclose(GREY(file)[0, 1::4, 1::4], [[250, 170], [90, 0]], atol=6)


def test_a_large_exif_block_or_a_broken_one_is_no_matter(tmp_path):
    """Odd metadata of cameras and editors do not prevent reading an image."""
    exif = Image.Exif()
    exif[0x010E] = "x" * 60_000
    file = saved(tmp_path, Image.new("L", (64, 64), 90), "x.jpg", exif=exif)
    assert colour(file, GREY) == [90]
    plain = saved(tmp_path, Image.new("L", (64, 64), 90), "x.jpg").read_bytes()
    for block in (
        b"garbage",
        b"II*\0\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03\0\0\0\x01" * 9,
        b"",
    ):
        segment = b"\xff\xe1" + struct.pack(">H", len(block) + 8) + b"Exif\0\0" + block
        file.write_bytes(plain[:2] + segment + plain[2:])
        assert colour(file, GREY) == [90]


ODD_TAGS = {
    "resolution unit of -2": (0x0128, 8, struct.pack("<h", -2)),
    "resolution as text": (0x011A, 2, b"abc\0"),
    "resolution of NaN": (0x011A, 11, struct.pack("<f", float("nan"))),
    "width as text": (0x0100, 2, b"64\0"),
    "description as a fraction": (0x010E, 5, struct.pack("<2L", 1, 0)),
}


def exif_of(tag: int, kind: int, value: bytes) -> bytes:
    """Return EXIF data with orientation 6, a resolution unit, and a tag of this type."""
    count = len(value) // {2: 1, 5: 8, 8: 2, 11: 4}[kind]
    short = {0x0112: (3, 1, struct.pack("<HH", 6, 0)), 0x0128: (3, 1, struct.pack("<HH", 2, 0))}
    place = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<L", 8 + 2 + 3 * 12 + 4)
    entries = sorted((short | {tag: (kind, count, place)}).items())
    fields = b"".join(struct.pack("<HHL", tag, kind, count) + place for tag, (kind, count, place) in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + fields.ljust(3 * 12 + 4, b"\0") + value


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.webp"])
@pytest.mark.parametrize("tag", ODD_TAGS.values(), ids=ODD_TAGS)
def test_of_the_metadata_only_the_orientation_matters(tmp_path, name, tag):
    """A photograph is turned upright although another tag has a type that the standard doesn't allow."""
    halves = Image.fromarray(np.repeat(np.array([[250] * 64, [0] * 64], np.uint8), 32, 0)).convert("RGB")
    file = saved(tmp_path, halves, name, exif=exif_of(*tag))
    if name == "x.jpg":  # the resolution of EXIF data counts if there is no JFIF header
        content = file.read_bytes()
        file.write_bytes(content[:2] + content[4 + int.from_bytes(content[4:6]) :])
    np.testing.assert_allclose(GREY(file)[0, 0, [0, 1, 6, 7]], [0, 0, 250, 250], atol=6)


@pytest.mark.parametrize("name", ["x.png", "x.webp"])
def test_exif_data_that_can_not_be_read_are_none(tmp_path, name):
    """An image with a broken EXIF block is read as it lies in the file."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    file = saved(tmp_path, Image.fromarray(pixels), name, exif=b"Exif\0\0garbage", lossless=True)
    np.testing.assert_array_equal(RGB(file), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("after", [False, True], ids=["before the pixels", "after them"])
def test_a_long_text_in_a_png_is_no_matter(tmp_path, after):
    """A compressed text of 3 MiB, such as the description of how an image was made, doesn't prevent reading it."""
    info = PngImagePlugin.PngInfo()
    info.add(b"zTXt", b"workflow\0\0" + zlib.compress(bytes(3 * 2**20)), after_idat=after)
    assert colour(saved(tmp_path, Image.new("RGB", (9, 9), COLOUR), pnginfo=info)) == [200, 30, 60]


def test_a_text_that_is_a_decompression_bomb_is_refused(tmp_path):
    """A PNG whose text would need more than 64 MiB is refused, without the memory that the text would need."""
    info = PngImagePlugin.PngInfo()
    info.add(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**28), 1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    file = saved(tmp_path, Image.new("L", (9, 9)), pnginfo=info)
    assert "too large" in refusal(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KiB; zlib.compress took 262,144


def test_the_middle_is_kept_in_its_proportions(tmp_path):
    """A wide image loses its sides, a tall one its ends; nothing is squeezed."""
    wide = np.zeros((20, 60), np.uint8)
    wide[:, 17:43] = 200  # a little more than the middle: filters reach over the edge
    assert colour(saved(tmp_path, Image.fromarray(wide)), GREY) == [200]
    assert colour(saved(tmp_path, Image.fromarray(wide.T)), GREY) == [200]


@pytest.mark.parametrize("size", [(48, 16), (16, 48)])
def test_a_padded_image_is_whole_on_black(tmp_path, size):
    """`fit=pad` centers the whole image between two black bars."""
    pixels = Decoder(12, 12, 1, fit="pad")(saved(tmp_path, Image.new("RGB", size, "white")))[0]
    bars = pixels if size[0] > size[1] else pixels.T
    np.testing.assert_array_equal(bars[:, 0], [0] * 4 + [255] * 4 + [0] * 4)
    assert (bars == bars[:, :1]).all()


def test_a_squashed_image_is_whole(tmp_path):
    """`fit=squash` shows an image from edge to edge on both axes."""
    halves = np.repeat(np.array([[0] * 30 + [200] * 30], np.uint8), 20, 0)
    pixels = Decoder(8, 8, 1, fit="squash")(saved(tmp_path, Image.fromarray(halves)))[0]
    np.testing.assert_array_equal(pixels[:, [0, 1, 2, 5, 6, 7]], [[0, 0, 0, 200, 200, 200]] * 8)


@pytest.mark.parametrize("side", [3, 8, 31])
def test_of_a_square_every_fit_is_the_same(tmp_path, side):
    """An image of the wanted aspect ratio has the same pixels however it is fitted."""
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = saved(tmp_path, Image.fromarray(noise))
    for fit in FITS:
        np.testing.assert_array_equal(Decoder(8, 8, 3, fit=fit)(file), RGB(file))


def test_fine_patterns_are_averaged_not_sampled(tmp_path):
    """Antialiased: a checkerboard of single pixels, made small, is an even gray."""
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    np.testing.assert_allclose(GREY(saved(tmp_path, Image.fromarray(board))), 127, atol=2)


def test_a_jpeg_decoded_small_is_nearly_the_whole_one(tmp_path):
    """Decoding at a smaller power of two, which is several times as fast, changes no pixel by more than a little."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((256, 256), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(2))
    fast = Decoder(64, 64, 3)(saved(tmp_path, image, "x.jpg", quality=95)).astype(int)
    whole = Decoder(64, 64, 3)(saved(tmp_path, Image.open(tmp_path / "x.jpg"), "x.png")).astype(int)
    assert np.abs(fast - whole).mean() < 1.5


@pytest.mark.parametrize("name", CUT)
def test_a_file_cut_short_is_named(tmp_path, name):
    """A truncated file of any format is a DataError or the same image, never half an image."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    file = saved(tmp_path, noise, name)
    content, whole = file.read_bytes(), RGB(file)
    for share in (0.0, 0.02, 0.3, 0.6, 0.9, 0.97):
        file.write_bytes(content[: int(share * len(content))])
        try:
            np.testing.assert_array_equal(RGB(file), whole)
        except DataError as error:
            assert str(error).startswith(f"{file}: it ")
        else:
            assert share > 0.9


@pytest.mark.parametrize("content", [b"", b"\0", b"<html>no such page</html>", b"\xff\xd8\xff" + bytes(99)])
def test_what_is_no_picture_is_named(tmp_path, content):
    """Empty files, saved error pages and bytes that only begin well are each a line with what to do."""
    (tmp_path / "x.jpg").write_bytes(content)
    line = refusal(tmp_path / "x.jpg")
    assert line.startswith(f"it is none of {', '.join(IMAGE_FORMATS)}")
    assert "replace or remove it" in line


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_a_file_of_each_suffix_is_read(tmp_path, suffix):
    """A suffix counts as that of an image only if the format that Pillow knows by it can be read."""
    file = tmp_path / f"x{suffix.upper()}"
    Image.new("RGB", (16, 16), "white").save(file, Image.registered_extensions()[suffix])
    assert min(colour(file)) >= 250


def test_only_its_suffix_makes_a_tga(tmp_path):
    """TGA has no signature, so bytes that could be one are none unless the file is named so."""
    file = saved(tmp_path, Image.new("RGB", (9, 9), COLOUR), "x.tga")
    assert colour(file) == [200, 30, 60]
    assert "it is none of" in refusal(file.rename(tmp_path / "x.jpg"))


def test_a_format_that_is_not_listed_is_refused(tmp_path):
    """EPS runs programs of its own to be drawn: its name doesn't let it in, and neither does another's."""
    file = saved(tmp_path, Image.new("RGB", (9, 9)), "x.eps")
    assert "it is none of" in refusal(file.rename(tmp_path / "x.jpg"))
    assert not {".eps", ".svg", ".pdf", ".psd"} & IMAGE_SUFFIXES


@pytest.mark.parametrize(("transparent", "level"), [(300, 255), (301, 1)])
def test_a_transparent_gray_of_16_bits_is_white(tmp_path, transparent, level):
    """Pixels of a PNG's transparent gray become white, and other pixels keep their gray, also if that is near."""
    file = saved(tmp_path, Image.new("I;16", (9, 9), 300), transparency=transparent)
    assert colour(file, GREY) == [level]


def tiff_of_bits(bits: int, photometric: int, content: bytes, sample_format: int = 1) -> bytes:
    """Return a gray TIFF of 8 × 8 pixels; a photometric interpretation of 0 means that zero is white."""
    tags = {256: 8, 257: 8, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 8, 279: len(content)}
    entries = [struct.pack("<HHLL", tag, 4, 1, value) for tag, value in (tags | {339: sample_format}).items()]
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<L", 8 + len(content)) + content + directory


@pytest.mark.parametrize(
    ("bits", "photometric", "content", "level"),
    [
        (16, 1, struct.pack("<H", 60_000) * 64, 233),
        (16, 0, struct.pack("<H", 60_000) * 64, 21),
        (12, 1, b"\xff" * 96, 255),
        (32, 1, struct.pack("<L", 60_000) * 64, 233),
    ],
    ids=["zero is black", "zero is white", "12 bits", "32 bits"],
)
def test_a_tiff_of_many_bits_keeps_its_gray(tmp_path, bits, photometric, content, level):
    """16 bits are scaled to 8, and turned if zero means white. 32 bits are read if the values need only 16."""
    (tmp_path / "x.tif").write_bytes(tiff_of_bits(bits, photometric, content))
    assert colour(tmp_path / "x.tif", GREY) == [level]


@pytest.mark.parametrize(
    ("bits", "content", "sample_format"),
    [(32, struct.pack("<L", 70_000), 1), (32, struct.pack("<l", -3), 2), (16, struct.pack("<h", -3), 2)],
)
def test_values_of_an_unknown_range_are_refused(tmp_path, bits, content, sample_format):
    """Values below 0 or above 65,535 are refused, not clipped, because nothing tells which value is white."""
    (tmp_path / "x.tif").write_bytes(tiff_of_bits(bits, 1, content * 64, sample_format))
    assert "unknown range" in refusal(tmp_path / "x.tif")


def test_floating_point_pixels_are_refused(tmp_path):
    """Floating point images are refused, because their range is unknown; a suffix of theirs makes no image."""
    assert "floating point" in refusal(saved(tmp_path, Image.new("F", (9, 9), 0.5), "x.tif"))
    assert ".pfm" not in IMAGE_SUFFIXES


@pytest.mark.parametrize(("side", "declared"), [(7000, "7,000 × 7,000 pixels"), (50_000, "far too many pixels")])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path, side, declared):
    """A small file that declares gigabytes is known by its header: nothing grows, and the limit can be raised."""
    file = declaring(tmp_path / "x.png", side, side)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert refusal(file) == (
        f"it declares {declared}, more than 40,000,000; remove it, or raise the limit: ++dataset.max_pixels=…"
    )
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB; it declares 140,000 at least
    with pytest.raises(DataError):
        read_image_size(file)


def test_the_limit_is_the_deciders(tmp_path):
    """An image of exactly as many pixels is read, one more is refused."""
    file = saved(tmp_path, Image.new("L", (100, 10)))
    assert Decoder(8, 8, 1, max_pixels=1000)(file).shape == (1, 8, 8)
    assert "it declares 100 × 10 pixels, more than 999" in refusal(file, Decoder(8, 8, 1, max_pixels=999))


def test_the_declared_size_is_had_without_decoding(tmp_path):
    """Width and height come from the header, even of a file whose pixels are missing."""
    assert read_image_size(declaring(tmp_path / "x.png", 300, 200)) == (300, 200)


def test_a_pipe_or_a_device_is_refused_at_once(tmp_path):
    """Pipes and devices are refused, because reading them could block forever."""

    def hung(*_):
        raise TimeoutError

    signal.signal(signal.SIGALRM, hung)
    signal.alarm(20)
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    for name in ("pipe.jpg", "zero.jpg"):
        assert refusal(tmp_path / name) == "it is no regular file; remove it"
    signal.alarm(0)


def test_a_link_to_nothing_and_a_directory_are_named(tmp_path):
    """A dangling link and a directory are refused by name."""
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    (tmp_path / "inner.jpg").mkdir()
    assert "No such file or directory" in refusal(tmp_path / "gone.jpg")
    assert "it is no regular file" in refusal(tmp_path / "inner.jpg")


@pytest.mark.parametrize("name", [b"a\nb.jpg", b"\xff\xfe.jpg", "图片 1, a=b.jpg".encode()])
def test_any_file_name_is_read_and_named(tmp_path, name):
    """Line breaks, bytes that are no UTF-8, spaces, commas and equals signs: read like any other, named in a line."""
    file = saved(tmp_path, Image.new("L", (9, 9), 50), "x.png").rename(tmp_path / os.fsdecode(name))
    assert colour(file, GREY) == [50]
    file.write_bytes(b"")
    assert "it is none of" in refusal(file)
