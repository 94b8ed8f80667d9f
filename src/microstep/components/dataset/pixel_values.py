"""Converts opened images of any mode to 8 bits without transparency."""

import numpy as np
from PIL import Image


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
