"""What the manifest says of the images: their layout, and how one gets there."""

from typing import Any

from vaekit.config import DataConfig, parse_value_range
from vaekit.images.pixels import ImageShape
from vaekit.images.preparation import FITS
from vaekit.images.sets import IMAGE_SETS

ANTIALIASED = (
    "Bilinear is antialiased, as in Pillow: where an image shrinks, a new pixel is a mean over two "
    "of its own widths, weighted by a triangle."
)
GREY = "Colour becomes grey as 0.299 red + 0.587 green + 0.114 blue."
COLOUR = "Grey becomes a colour of three equal channels."

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
    size = {"height": height, "width": width}
    text = prepared.text.format(fit=FITS[data.fit].format(**size), **size)
    return {
        "set": data.name,
        "channels": CHANNELS[channels],
        "height": height,
        "width": width,
        "value_range": [0, 255],
        "polarity": prepared.polarity,
        "resize_filter": prepared.resize_filter,
        "antialias": prepared.resize_filter is not None,
        "centring": centring and {"box": centring.box or height, "by": centring.by},
        **_of_files(data, channels),
        "preparation": " ".join(
            [
                text,
                *([] if prepared.resize_filter is None else [ANTIALIASED]),
                *_sentences(data, channels),
            ]
        ),
    }


def _of_files(data: DataConfig, channels: int) -> dict[str, Any]:
    """What was done to files, where the images are one's own and that was settled."""
    if "auto" in (data.background, data.value_range):
        return {}
    return {
        "fit": data.fit,
        "background": None if _keeps_alpha(data, channels) else data.background,
        "file_value_range": list(parse_value_range(data.value_range)),
    }


def _sentences(data: DataConfig, channels: int) -> list[str]:
    if "auto" in (data.background, data.value_range):
        return []
    low, high = parse_value_range(data.value_range)
    ground = f"Transparent images are composited on {data.background} first."
    deep = f"Of more than 8 bits a pixel, {low:g} to {high:g} become 0 to 255; beyond is clipped."
    dropped = "Transparency is dropped: hidden colours show."
    if channels in (2, 4):
        alpha = []
    else:
        alpha = [dropped if data.background == "none" else ground]
    return [*alpha, GREY if channels < 3 else COLOUR, deep]


def _keeps_alpha(data: DataConfig, channels: int) -> bool:
    """Whether transparency is a channel, or dropped."""
    return data.background == "none" or channels in (2, 4)
