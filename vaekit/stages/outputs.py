"""Images that leave vaekit: one picture of all, an array, or a file each."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vaekit.errors import UserError
from vaekit.images.pictures import single_image, write_image
from vaekit.storage.arrays import write_array


def require_place(output: Path) -> None:
    """Raise `UserError` for a name that says neither a picture, nor an array, nor a folder."""
    if _is_folder(output):
        if output.exists() and not output.is_dir():
            raise UserError(
                f"--output {output}: a file, expected a folder; give another name, or one that "
                f"ends in .png or .npy"
            )
    elif output.suffix.lower() not in (".png", ".npy"):
        raise UserError(
            f"--output {output}: expected a name that ends in .png, for one picture, or in .npy, "
            f"or the name of a folder, for a file each"
        )


def write_images(
    output: Path,
    images: NDArray[np.uint8],
    names: Sequence[str],
    picture: Callable[[], Image.Image],
) -> None:
    """Write `images` [N, C, H, W] to a place that `require_place` took.

    A .npy file holds them as they are, a folder a PNG each, called by `names` and with alpha
    where they have it, and a .png file the `picture`.
    """
    if _is_folder(output):
        output.mkdir(parents=True, exist_ok=True)
        for name, image in zip(names, images, strict=True):
            write_image(output / f"{name}.png", single_image(image))
    elif output.suffix.lower() == ".npy":
        write_array(output, images)
    else:
        write_image(output, picture())


def numbered(count: int) -> list[str]:
    """Names of files that sort in order."""
    digits = max(4, len(str(count - 1)))
    return [f"{index:0{digits}d}" for index in range(count)]


def _is_folder(output: Path) -> bool:
    return output.is_dir() or not output.suffix
