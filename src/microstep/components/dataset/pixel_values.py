"""Converts opened images of any mode to 8 bits without transparency."""

import numpy as np
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION

WHITE = 65535


def match_transparency(image: ImageFile.ImageFile) -> None:
    """Scale the transparent color of a PNG as PIL scales its pixels. Call it before the pixels are loaded."""
    raw_mode, color = image.tile[0][3] if image.tile else None, image.info.get("transparency")
    if raw_mode in ("L;2", "L;4") and color is not None:
        image.info["transparency"] = color * 255 // (2 ** int(raw_mode[-1]) - 1)
    if raw_mode == "RGB;16B" and color is not None:
        image.info["transparency"] = tuple(value >> 8 for value in color)


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
    if tags.get(PHOTOMETRIC_INTERPRETATION) == 0:
        values = WHITE - values
    opaque = values != image.info.get("transparency", -1)
    return Image.fromarray(np.where(opaque, values // 257, 255).astype(np.uint8))


def composite_on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
