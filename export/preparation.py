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
    antialiased = [] if prepared.resize_filter is None else [ANTIALIASED]
    of_files, sentences = _of_files(data, channels)
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
        **of_files,
        "preparation": " ".join([text, *antialiased, *sentences]),
    }


def _of_files(data: DataConfig, channels: int) -> tuple[dict[str, Any], list[str]]:
    """What was done to files, and sentences of it, where they are one's own and it was settled."""
    if "auto" in (data.background, data.value_range):
        return {}, []
    low, high = parse_value_range(data.value_range)
    background = None if data.background == "none" or channels in (2, 4) else data.background
    sentences = []
    if background is not None:
        sentences.append(f"Transparent images are composited on {background} first.")
    elif channels not in (2, 4):
        sentences.append("Transparency is dropped: hidden colours show.")
    sentences += [
        GREY if channels < 3 else COLOUR,
        f"Of more than 8 bits a pixel, {low:g} to {high:g} become 0 to 255; beyond is clipped.",
    ]
    facts = {"fit": data.fit, "background": background, "file_value_range": [low, high]}
    return facts, sentences
