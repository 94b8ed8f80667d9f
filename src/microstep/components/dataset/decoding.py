"""Decodes image files to uint8 pixels of a fixed size. Limits formats and pixels first, so files need no trust."""

import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from warnings import catch_warnings

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError

from microstep.components.dataset.fitting import FITS, fit_image
from microstep.components.dataset.pixel_values import composite_on_white, match_transparency, to_eight_bits
from microstep.errors import ConfigError, DataError

SUFFIX_FORMATS = Image.registered_extensions()
SAFE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF", "AVIF", "JPEG2000", "TGA")
IMAGE_FORMATS = tuple(name for name in SAFE_FORMATS if name in Image.OPEN)  #: PIL has AVIF since 11.3
#: Suffixes of these formats, without that of floating point pixels.
IMAGE_SUFFIXES = frozenset(s for s, name in SUFFIX_FORMATS.items() if name in {*IMAGE_FORMATS, "MPO"}) - {".pfm"}
OWN_FIT = "own"  #: that of a data set that decodes its files by code of its own
MAX_PIXELS = 40_000_000  #: PIL warns at 89 million and raises an error at 179 million
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY  # one text may be as large as all texts together


class JpegFile(JpegImagePlugin.JpegImageFile):
    """A JPEG file whose resolution is not read: PIL can't open a file if that has an unexpected type."""

    def _read_dpi_from_exif(self) -> None:
        pass


Image.register_open("MICROSTEP_JPEG", JpegFile, lambda prefix: prefix.startswith(b"\xff\xd8\xff"))


@dataclass(frozen=True)
class Decoder:
    """Decodes files to images of one size.

    Rotates an image as its EXIF data say, puts it on white if it is transparent, and fits it into the size with
    antialiasing. Palette, gray, CMYK and 16-bit images become `channels` channels of 8 bits.
    """

    height: int  #: pixels
    width: int  #: pixels
    channels: int  #: 1 for gray, 3 for RGB
    max_pixels: int = MAX_PIXELS  #: most pixels that a file may declare
    fit: str = "crop"  #: see `fit_image`
    scale: ClassVar[float] = 255.0  #: pixel value that means 1.0

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise ConfigError(f"dataset.fit={self.fit}", "no such option", f"the options are {', '.join(FITS)}")

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width

    def __call__(self, file: Path) -> np.ndarray:
        """Return the image of a file: C × H × W, uint8. See `open_image` for errors."""
        with open_image(file, self.max_pixels) as image:
            image.draft("RGB", (2 * self.width, 2 * self.height))  # decodes a JPEG at 1/2, 1/4 or 1/8
            match_transparency(image)
            converted = composite_on_white(to_eight_bits(image)).convert("RGB" if self.channels == 3 else "L")
            converted.info.clear()  # PIL fails to turn images with some odd metadata
            converted.getexif()[ExifTags.Base.Orientation] = read_orientation(image)
        ImageOps.exif_transpose(converted, in_place=True)
        fitted = fit_image(converted, (self.width, self.height), self.fit)
        return np.asarray(fitted).reshape(self.height, self.width, self.channels).transpose(2, 0, 1)


def read_orientation(image: Image.Image) -> Any:
    """Return the EXIF orientation of a loaded image; 1, upright, if its EXIF data have none or can't be read."""
    with suppress(Exception):  # PIL raises many kinds
        return image.getexif()[ExifTags.Base.Orientation]
    return 1


@dataclass(frozen=True)
class OwnDecoder:
    """Decodes files by a function of the user's data set, whose pixels are uint8 of one shape."""

    decode: Callable[[Path], np.ndarray]
    shape: tuple[int, int, int]  #: channels, height, width
    scale: float  #: pixel value that means 1.0
    max_pixels: ClassVar[int] = MAX_PIXELS
    fit: ClassVar[str] = OWN_FIT

    def __call__(self, file: Path) -> np.ndarray:
        try:
            pixels = self.decode(file)
            if pixels.shape != self.shape or pixels.dtype != np.uint8:
                raise ValueError(f"its decoder returns {pixels.dtype} of {pixels.shape}, not uint8 of {self.shape}")
            return pixels
        except Exception as error:  # the user's code raises any kind
            raise DataError(str(file), unreadable_reason(error), "replace it, or correct the decoder") from None


def read_image_size(file: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return width and height that a file declares, in pixels, without decoding it."""
    with open_image(file, max_pixels) as image:
        return image.size


@contextmanager
def open_image(file: Path, max_pixels: int) -> Iterator[ImageFile.ImageFile]:
    """Open an image file; raise a DataError that names it if it is too large or can't be decoded in the block."""
    declared = "far too many"  # if PIL's own limit is exceeded
    try:
        check_regular_file(file)
        with catch_warnings(action="ignore"), Image.open(file, formats=list_formats(file)) as image:  # odd metadata
            declared = f"{image.width:,} × {image.height:,}"
            if image.width * image.height > max_pixels:
                raise Image.DecompressionBombError
            yield image
    except DataError:
        raise
    except Image.DecompressionBombError:
        reason = f"it declares {declared} pixels, more than {max_pixels:,}"
        raise DataError(str(file), reason, "remove it, or raise the limit: ++dataset.max_pixels=…") from None
    except Exception as error:  # PIL's decoders raise many kinds
        remedy = "replace or remove it; compute_stats.py lists all such files"
        raise DataError(str(file), unreadable_reason(error), remedy) from None


def list_formats(file: Path) -> list[str]:
    """Return the formats that a file may have. Only its suffix tells a TGA file, because that has no signature."""
    formats = ["MICROSTEP_JPEG", *IMAGE_FORMATS[1:]]
    return formats if SUFFIX_FORMATS.get(file.suffix.lower()) == "TGA" else formats[:-1]


def unreadable_reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"it is none of {', '.join(IMAGE_FORMATS)}"
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"it can't be read as an image: {reason}"


def check_regular_file(file: Path) -> None:
    """Raise a DataError unless a path is a regular file. Reading a pipe or a device could block forever."""
    if not stat.S_ISREG(file.stat().st_mode):
        raise DataError(str(file), "it is no regular file", "remove it")
