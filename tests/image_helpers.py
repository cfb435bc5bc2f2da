"""What the tests of image sets share."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vaekit.config import DataConfig, ImageSetName
from vaekit.errors import UserError
from vaekit.images.image_set import Images, ImageSet
from vaekit.images.sets import load_images


def load(root: Path, name: ImageSetName = "folder", seed: int = 0, **settings: Any) -> Images:
    return load_images(DataConfig(name=name, root=str(root), **settings), seed)


def fault(root: Path, name: ImageSetName = "folder", **settings: Any) -> str:
    """The one line that loading gives."""
    with pytest.raises(UserError) as error:
        load(root, name, **settings)
    line = str(error.value)
    assert "\n" not in line
    return line


def flat(value: int, size: int = 8) -> NDArray[np.uint8]:
    return np.full((size, size), value, np.uint8)


def write(path: Path, pixels: NDArray[Any], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def values(image_set: ImageSet) -> list[int]:
    """The value of each flat image."""
    return image_set.pixels[:, 0, 0, 0].tolist()


def write_pets(root: Path) -> Path:
    """Cats are darker than 100, dogs are not; the tens say train or test."""
    for i in range(6):
        write(root / "train" / "cat" / f"{i}.png", flat(i))
        write(root / "train" / "dog" / "more" / f"{i}.PNG", flat(100 + i))
    for i in range(3):
        write(root / "test" / "cat" / f"{i}.bmp", flat(10 + i))
        write(root / "test" / "dog" / f"{i}.tiff", flat(110 + i))
    return root


def flip_a_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
