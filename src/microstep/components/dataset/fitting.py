"""Fits images of any aspect ratio into one size."""

from PIL import Image, ImageOps
from PIL.Image import Resampling

FITS = ("crop", "pad", "squash")


def fit_image(image: Image.Image, size: tuple[int, int], fit: str) -> Image.Image:
    """Resize an image to a width and height with antialiasing.

    Args:
        fit: `crop` cuts the image to the aspect ratio around its center, `pad` centers the whole image on black,
            `squash` distorts it.
    """
    if fit == "crop":
        return ImageOps.fit(image, size, Resampling.BILINEAR)
    scale = min(size[0] / image.width, size[1] / image.height)
    width, height = size if fit == "squash" else (max(1, round(scale * side)) for side in image.size)
    canvas = Image.new(image.mode, size)
    canvas.paste(image.resize((width, height), Resampling.BILINEAR), ((size[0] - width) // 2, (size[1] - height) // 2))
    return canvas
