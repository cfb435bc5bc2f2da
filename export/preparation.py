"""What the manifest says of the images: their layout, and how one gets there."""

from typing import Any

from vaekit.config import DataConfig
from vaekit.images.pixels import ImageShape
from vaekit.images.sets import IMAGE_SETS

# The names of the channels, by their number.
CHANNELS = {
    1: ["grey"],
    2: ["grey", "alpha"],
    3: ["red", "green", "blue"],
    4: ["red", "green", "blue", "alpha"],
}


def preparation(data: DataConfig, image_shape: ImageShape) -> dict[str, Any]:
    """How images of `image_shape` of the set `data` were prepared, so that others can be alike."""
    channels, height, width = image_shape
    prepared = IMAGE_SETS[data.name].preparation
    centring = prepared.centring
    return {
        "set": data.name,
        "channels": CHANNELS[channels],
        "height": height,
        "width": width,
        "value_range": [0, 255],
        "polarity": prepared.polarity,
        "resize_filter": prepared.resize_filter,
        "centring": centring and {"box": centring.box or height, "by": centring.by},
        "preparation": prepared.text.format(height=height, width=width),
    }
