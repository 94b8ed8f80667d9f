"""Decodes image files to uint8 pixels of a fixed size. Limits formats and pixels first, so files need no trust."""

import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from warnings import catch_warnings

import numpy as np
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, UnidentifiedImageError
from PIL.Image import Resampling
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION

from microstep.errors import ConfigError, DataError

SUFFIX_FORMATS = Image.registered_extensions()
SAFE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF", "AVIF", "JPEG2000", "TGA")
IMAGE_FORMATS = tuple(name for name in SAFE_FORMATS if name in Image.OPEN)  #: PIL has AVIF since 11.3
#: Suffixes of these formats, without that of floating point pixels.
IMAGE_SUFFIXES = frozenset(s for s, name in SUFFIX_FORMATS.items() if name in {*IMAGE_FORMATS, "MPO"}) - {".pfm"}
#: Crops an image to the aspect ratio around its center, puts all of it on black, or distorts it.
FITS: dict[str, Callable[..., Image.Image]] = {"crop": ImageOps.fit, "pad": ImageOps.pad, "squash": Image.Image.resize}
OWN_FIT = "own"  #: that of a data set that decodes its files by code of its own
WHITE = 65535  #: pixel value of 16-bit images
DECODING_VERSION = 2  #: raised if the same files are decoded to other pixels, so that nothing cached before is used
MAX_PIXELS = 40_000_000  #: PIL warns at 89 million and raises an error at 179 million
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY  # one text may be as large as all texts together


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
    fit: str = "crop"  #: one of `FITS`
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
            converted = composite_on_white(to_eight_bits(image)).convert("RGB" if self.channels == 3 else "L")
            upright = turn_upright(converted, image)
            fitted = FITS[self.fit](upright, (self.width, self.height), Resampling.BILINEAR)
        return np.asarray(fitted).reshape(self.height, self.width, self.channels).transpose(2, 0, 1)


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Return an image with 8 bits. One with more is scaled, which PIL's own conversion would clip."""
    if image.mode == "F":
        raise ValueError("its pixels are floating point numbers, whose range is unknown")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    if values.min() < 0 or values.max() > WHITE:
        raise ValueError(f"its pixels go from {values.min():,} to {values.max():,}, in an unknown range")
    tags = getattr(image, "tag_v2", {})
    if tags.get(BITSPERSAMPLE) == (12,):
        values = values.astype(np.int32) * WHITE // 4095
    if tags.get(PHOTOMETRIC_INTERPRETATION) == 0:  # zero is white
        values = WHITE - values
    opaque = values != image.info.get("transparency", -1)
    return Image.fromarray(np.where(opaque, values // 257, 255).astype(np.uint8))


def composite_on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)


def turn_upright(image: Image.Image, opened: Image.Image) -> Image.Image:
    """Turn an image as the EXIF orientation of the opened file says. Nothing else in the metadata matters."""
    image.info.clear()
    with suppress(Exception):  # PIL raises many kinds if EXIF data can't be read
        image.getexif()[ExifTags.Base.Orientation] = opened.getexif()[ExifTags.Base.Orientation]
    return ImageOps.exif_transpose(image)


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
def open_image(file: Path, max_pixels: int) -> Iterator[Image.Image]:
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
    is_tga = SUFFIX_FORMATS.get(file.suffix.lower()) == "TGA"
    return [name for name in IMAGE_FORMATS if is_tga or name != "TGA"]


def unreadable_reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"it is none of {', '.join(IMAGE_FORMATS)}"
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"it can't be read as an image: {reason}"


def check_regular_file(file: Path) -> None:
    """Raise a DataError unless a path is a regular file. Reading a pipe or a device could block forever."""
    if not stat.S_ISREG(file.stat().st_mode):
        raise DataError(str(file), "it is no regular file", "remove it")
