"""One picture file → uint8 pixels of a fixed size. Nothing is trusted: formats and pixels are limited beforehand."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from warnings import catch_warnings, simplefilter

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from microstep.errors import DataError

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"})
MAX_PIXELS = 40_000_000  #: PIL itself warns at 89 million and refuses at 179


@dataclass(frozen=True)
class Decoder:
    """Turns files into pictures of one size.

    The right way up (EXIF), the middle of the picture in the wanted proportions, resized with antialiasing; what is
    transparent is white. Palettes, grey, CMYK and 16 bits become `channels` channels of 8 bits.
    """

    height: int
    width: int
    channels: int  #: 1 for grey, 3 for RGB
    max_pixels: int = MAX_PIXELS  #: that a file may declare

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return self.channels, self.height, self.width

    def __call__(self, file: Path) -> np.ndarray:
        """Return the file's picture: C × H × W, uint8.

        Raises:
            DataError: naming the file, where it is no picture, is cut short, or declares too many pixels.
        """
        with open_image(file, self.max_pixels) as image:
            image.draft("RGB", (2 * self.width, 2 * self.height))  # a JPEG is decoded at half, a quarter or an eighth
            upright = composite_on_white(to_eight_bits(ImageOps.exif_transpose(image)))
            colours = upright.convert("RGB" if self.channels == 3 else "L")
            fitted = ImageOps.fit(colours, (self.width, self.height), Image.Resampling.BILINEAR)
        return np.asarray(fitted).reshape(self.height, self.width, self.channels).transpose(2, 0, 1)


def read_image_size(file: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return width and height as the file declares them; nothing is decoded."""
    with open_image(file, max_pixels) as image:
        return image.size


@contextmanager
def open_image(file: Path, max_pixels: int) -> Iterator[Image.Image]:
    """Open a picture whose size is acceptable; whatever then fails is the file's fault."""
    try:
        check_regular_file(file)
        with catch_warnings():
            simplefilter("ignore")  # of odd metadata
            with Image.open(file, formats=IMAGE_FORMATS) as image:
                if image.width * image.height > max_pixels:
                    raise decompression_bomb_error(file, f"{image.width:,} × {image.height:,} pixels", max_pixels)
                yield image
    except DataError:
        raise
    except Image.DecompressionBombError:  # PIL's own limit came first
        raise decompression_bomb_error(file, "far too many pixels", max_pixels) from None
    except Exception as error:  # PIL's decoders raise many kinds
        remedy = "replace it or take it away; compute_stats.py lists all such files"
        raise DataError(str(file), unreadable_reason(error), remedy) from None


def decompression_bomb_error(file: Path, declared: str, max_pixels: int) -> DataError:
    remedy = "take it away, or raise the limit: +dataset.max_pixels=…"
    return DataError(str(file), f"it declares {declared}, more than {max_pixels:,}", remedy)


def unreadable_reason(error: Exception) -> str:
    """Return what is wrong with a file."""
    if isinstance(error, UnidentifiedImageError):
        return f"it is none of {', '.join(IMAGE_FORMATS)}"
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"it can't be read as a picture: {reason}"


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Return a picture of 16 bits in 8: PIL's own conversion would clip it.

    Raises:
        ValueError: for floating point numbers, of which nobody knows what is white.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floating point numbers")
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))


def composite_on_white(image: Image.Image) -> Image.Image:
    """Return a picture without transparency."""
    if not image.has_transparency_data:
        return image
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)


def check_regular_file(file: Path) -> None:
    """Refuse what could be waited for or read from for ever: a pipe, a device.

    Raises:
        OSError: where there is nothing.
        DataError: for something else than a file.
    """
    if not stat.S_ISREG(file.stat().st_mode):
        raise DataError(str(file), "it is no regular file", "take it away")
