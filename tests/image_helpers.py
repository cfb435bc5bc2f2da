"""What the tests of image sets share."""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vaekit.config import DataConfig, ImageSetName
from vaekit.errors import UserError
from vaekit.images.decode import prepare_readable
from vaekit.images.image_set import Images, ImageSet
from vaekit.images.pixels import ImageShape
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


def as_prepared(
    paths: Sequence[Path], shape: ImageShape, data: DataConfig | None = None
) -> NDArray[np.uint8]:
    """Files, all of which can be read, as [N, C, H, W] for a model of `shape`."""
    found = prepare_readable(paths, shape, data or DataConfig())
    assert not found.unreadable
    return found.pixels


def flat(value: int, size: int = 8) -> NDArray[np.uint8]:
    return np.full((size, size), value, np.uint8)


def write(path: Path, pixels: NDArray[Any], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def idx(array: NDArray[Any]) -> bytes:
    """The IDX file of an array of bytes or of integers of 32 bits."""
    code = {"u1": 0x08, "i4": 0x0C}[array.dtype.str[1:]]
    header = struct.pack(f">{1 + array.ndim}I", 0x100 * code + array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_noise(root: Path, *classes: str, mode: str = "RGB", count: int = 12) -> None:
    """So many images of 9x9 pixels for each class."""
    generator = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels = generator.integers(0, 256, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(root / name / f"{index}.png")


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
