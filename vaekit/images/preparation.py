"""How the images of a set were prepared, so that others can prepare theirs alike."""

from dataclasses import dataclass
from typing import Literal

RESIZE_FILTER = "bilinear"  # of whatever is resized here: Pillow's, which is antialiased


@dataclass(frozen=True)
class Centring:
    """Where the ink of a drawing is placed."""

    box: int | None  # pixels of the longer side of the ink; None: as many as the image has
    by: Literal["centre of mass", "bounding box"]


@dataclass(frozen=True)
class Preparation:
    """What an image of a set went through; nothing has a default, so that each set says its own."""

    polarity: Literal["light on dark", "as in the files"]
    resize_filter: str | None  # None: not resized
    centring: Centring | None
    text: str  # sentences for people, with {height} and {width} in pixels, and {fit}


FITS = {
    "stretch": "whole, to {height}x{width} pixels; its aspect is not kept",
    "pad": "until it fits into {height}x{width} pixels, its aspect kept, and padded",
    "crop": "until it fills {height}x{width} pixels, its aspect kept; its middle is used",
}
