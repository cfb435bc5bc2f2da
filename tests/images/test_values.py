"""Files of more than 8 bits a pixel: the bits in use, floats and signed ones, what lies beyond."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_helpers import as_prepared, fault, load, write
from numpy.typing import NDArray

from vaekit.config import DataConfig
from vaekit.errors import UserError
from vaekit.images.decode import prepare_readable
from vaekit.images.image_set import Images

RAMP = np.arange(64).reshape(8, 8)  # 0 to 63


def folder_of(root: Path, arrays: list[NDArray[Any]], suffix: str = ".tif") -> Path:
    for index, array in enumerate(arrays):
        write(root / "train" / "ab"[index % 2] / f"{index}{suffix}", array)
        write(root / "test" / "ab"[index % 2] / f"{index}{suffix}", array[::-1].copy())
    return root


def levels(images: Images) -> list[int]:
    return sorted({*images.train.pixels.ravel().tolist()})


@pytest.mark.parametrize(
    ("array", "value_range"),
    [
        ((RAMP * 16).astype(np.uint16), "0,1023"),
        ((RAMP * 65).astype(np.uint16), "0,4095"),
        ((RAMP * 1040).astype(np.uint16), "0,65535"),
        ((RAMP * 4).astype(np.uint16), "0,255"),
        ((RAMP * 1000).astype(np.int32), "0,65535"),
        ((RAMP * 65 - 1000).astype(np.int32), "-1000,3095"),
        ((RAMP / 63).astype(np.float32), "0,1"),
        ((RAMP / 63 * 80 - 40).astype(np.float32), "-40,40"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.dtype.name,
)
def test_the_values_in_use_fill_the_greys_and_the_range_is_said_and_kept(
    array: NDArray[Any], value_range: str, tmp_path: Path
) -> None:
    images = load(folder_of(tmp_path, [array, array.T.copy()]), image_size=8)
    assert images.data is not None
    assert images.data.value_range == value_range
    low, high = map(float, value_range.split(","))
    expected = np.rint((array.astype(float) - low) * (255 / (high - low)))
    assert levels(images) == sorted({*expected.ravel().tolist()})
    (remark,) = images.reading.remarks
    assert "4 of 4 images have more than 8 bits" in remark
    assert images.reading.deviations() == []
    path = next((tmp_path / "train").rglob("0.tif"))
    np.testing.assert_array_equal(as_prepared([path], images.shape, images.data)[0, 0], expected)


def test_the_range_is_that_of_the_training_set_and_what_lies_beyond_is_counted(
    tmp_path: Path,
) -> None:
    root = folder_of(tmp_path, [(RAMP * 65).astype(np.uint16)] * 2)
    write(root / "test" / "a" / "bright.png", (RAMP * 1000).astype(np.uint16))
    images = load(root, image_size=8)
    assert images.data is not None
    assert images.data.value_range == "0,4095"
    (tally,) = images.reading.used_otherwise
    assert tally.what == "images with values beyond 0 to 4095, clipped"
    assert tally.examples == ("test/a/bright.png",)
    later = prepare_readable([root / "test" / "a" / "bright.png"], (1, 8, 8), images.data)
    assert "beyond 0 to 4095" in later.used_otherwise[0].what


def test_a_range_that_is_given_wins_and_one_that_nothing_needs_is_said(tmp_path: Path) -> None:
    deep = folder_of(tmp_path / "deep", [(RAMP * 65).astype(np.uint16)] * 2)
    assert max(levels(load(deep, image_size=8, value_range="0,65535"))) < 20
    shallow = folder_of(tmp_path / "shallow", [RAMP.astype(np.uint8)] * 2, ".png")
    said = load(shallow, image_size=8, value_range="0,63").reading.deviations()
    assert said == ["--data.value_range 0,63 is not used: no file has more than 8 bits a pixel"]


def test_files_of_8_bits_beside_deeper_ones_keep_their_greys(tmp_path: Path) -> None:
    root = folder_of(tmp_path, [RAMP.astype(np.uint8), (RAMP * 65).astype(np.uint16)])
    assert {*range(64)} <= {*levels(load(root, image_size=8))}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused_by_name(value: float, tmp_path: Path) -> None:
    spoilt = RAMP.astype(np.float32)
    spoilt[3, 3] = value
    root = folder_of(tmp_path, [RAMP.astype(np.float32)] * 2)
    path = write(root / "train" / "a" / "spoilt.tif", spoilt)
    assert "train/a/spoilt.tif (holds NaN or infinite values)" in fault(root)
    kept = load(root, image_size=8, skip_unreadable=True)
    assert "1 not used: unreadable: holds NaN" in kept.reading.deviations()[0]
    assert "holds NaN" in prepare_readable([path], (1, 8, 8), kept.data).unreadable[0]


@pytest.mark.parametrize("text", ["5,5", "9,1", "1", "a,b", "nan,1", "0,inf", "1.2.3,4", ""])
def test_a_senseless_range_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="expected LOW,HIGH"):
        DataConfig(value_range=text)
