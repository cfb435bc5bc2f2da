"""How the images of each set were prepared, so that applications can prepare theirs alike."""

from typing import Any

from vaekit.config import DataConfig
from vaekit.images.decode import RESIZE_FILTER
from vaekit.images.pixels import ImageShape

# The names of the channels, by their number.
CHANNELS = {
    1: ["grey"],
    2: ["grey", "alpha"],
    3: ["red", "green", "blue"],
    4: ["red", "green", "blue", "alpha"],
}

MNIST_BOX = 20  # pixels of the longer side of a digit; LeCun et al., The MNIST database


def preparation(data: DataConfig, image_shape: ImageShape) -> dict[str, Any]:
    """What the manifest says of the images: layout, polarity, and how one gets there."""
    channels, height, width = image_shape
    facts = {
        "set": data.name,
        "channels": CHANNELS[channels],
        "height": height,
        "width": width,
        "value_range": [0, 255],
        "polarity": "light on dark",
        "resize_filter": None,
        "centring": None,
    }
    if data.name == "mnist":
        centring = {"box": MNIST_BOX, "by": "centre of mass"}
        text = (
            f"Light strokes on black. The ink is scaled, its aspect kept and its edges smoothed, "
            f"until its longer side has {MNIST_BOX} pixels, and placed so that its centre of mass "
            f"lies in pixel ({height // 2}, {width // 2}) of {height}x{width}, counted from 0."
        )
        return {**facts, "centring": centring, "preparation": text}
    if data.name == "digits":
        centring = {"box": height, "by": "bounding box"}
        text = (
            f"Light strokes on black. The ink is scaled, its aspect kept, until its longer side "
            f"has {height} pixels, and centred. The set's own images have 8x8 pixels (each the "
            f"ink in a 4x4 block of a bitmap) and were resized to {height}x{width}."
        )
        return {
            **facts,
            "resize_filter": RESIZE_FILTER,
            "centring": centring,
            "preparation": text,
        }
    if data.name == "folder":
        text = (
            f"The whole image, turned as its EXIF orientation says, is resized to {height}x{width} "
            f"pixels with a {RESIZE_FILTER} filter; its aspect is not kept."
        )
        return {
            **facts,
            "polarity": "as in the files",
            "resize_filter": RESIZE_FILTER,
            "preparation": text,
        }
    text = f"Light on black, {height}x{width} pixels, as the set's authors prepared them."
    return {**facts, "preparation": text}
