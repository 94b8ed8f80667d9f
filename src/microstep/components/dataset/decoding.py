"""Decodes image files to uint8 pixels of a fixed size. Limits formats and pixels first, so files need no trust."""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from warnings import catch_warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from microstep.errors import DataError

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"})
MAX_PIXELS = 40_000_000  #: PIL warns at 89 million and raises an error at 179 million


@dataclass(frozen=True)
class Decoder:
    """Decodes files to images of one size.

    Rotates an image as its EXIF data say, puts it on white if it is transparent, crops its center to the aspect ratio
    and resizes it with antialiasing. Palette, gray, CMYK and 16-bit images become `channels` channels of 8 bits.
    """

    height: int  #: pixels
    width: int  #: pixels
    channels: int  #: 1 for gray, 3 for RGB
    max_pixels: int = MAX_PIXELS  #: most pixels that a file may declare

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width

    def __call__(self, file: Path) -> np.ndarray:
        """Return the image of a file: C × H × W, uint8. See `open_image` for errors."""
        with open_image(file, self.max_pixels) as image:
            image.draft("RGB", (2 * self.width, 2 * self.height))  # decodes a JPEG at 1/2, 1/4 or 1/8
            upright = composite_on_white(to_eight_bits(ImageOps.exif_transpose(image)))
            converted = upright.convert("RGB" if self.channels == 3 else "L")
            fitted = ImageOps.fit(converted, (self.width, self.height), Image.Resampling.BILINEAR)
        return np.asarray(fitted).reshape(self.height, self.width, self.channels).transpose(2, 0, 1)


def read_image_size(file: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return width and height that a file declares, in pixels, without decoding it."""
    with open_image(file, max_pixels) as image:
        return image.size


@contextmanager
def open_image(file: Path, max_pixels: int) -> Iterator[Image.Image]:
    """Open an image file; raise a DataError that names it if it is too large or can't be decoded in the block."""
    declared = "far too many"  # if PIL's own limit is exceeded
    try:
        check_regular_file(file)
        with catch_warnings(action="ignore"), Image.open(file, formats=IMAGE_FORMATS) as image:  # odd metadata
            declared = f"{image.width:,} × {image.height:,}"
            if image.width * image.height > max_pixels:
                raise Image.DecompressionBombError
            yield image
    except DataError:
        raise
    except Image.DecompressionBombError:
        reason = f"it declares {declared} pixels, more than {max_pixels:,}"
        raise DataError(str(file), reason, "remove it, or raise the limit: +dataset.max_pixels=…") from None
    except Exception as error:  # PIL's decoders raise many kinds
        remedy = "replace or remove it; compute_stats.py lists all such files"
        raise DataError(str(file), unreadable_reason(error), remedy) from None


def unreadable_reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"it is none of {', '.join(IMAGE_FORMATS)}"
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"it can't be read as an image: {reason}"


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Return a 16-bit image scaled to 8 bits, which PIL's own conversion would clip."""
    if image.mode == "F":  # the range is unknown
        raise ValueError("its pixels are floating point numbers")
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))


def composite_on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)


def check_regular_file(file: Path) -> None:
    """Raise a DataError unless a path is a regular file. Reading a pipe or a device could block forever."""
    if not stat.S_ISREG(file.stat().st_mode):
        raise DataError(str(file), "it is no regular file", "remove it")
