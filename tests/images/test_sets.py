"""Image sets as a run sees them: the table, held-out images, a limit, and their hash."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from image_helpers import fault, flat, load, values, write

from vaekit.config import ImageSetName
from vaekit.images.image_set import Images, ImageSet
from vaekit.images.sets import IMAGE_SETS


def test_the_sets_that_can_be_named_are_those_of_the_table() -> None:
    assert set(get_args(ImageSetName)) == set(IMAGE_SETS)


def test_held_out_images_come_from_the_training_set_in_proportion(tmp_path: Path) -> None:
    whole = load(tmp_path, "digits", image_size=8)
    held = load(tmp_path, "digits", image_size=8, holdout=300, seed=5)
    assert len(held.test.pixels) == 300
    assert held.train.labels is not None
    assert held.test.labels is not None
    counts = np.bincount(held.test.labels), np.bincount(held.train.labels)
    share = 300 / len(whole.train.pixels)
    assert np.abs(counts[0] - share * (counts[0] + counts[1])).max() <= 1

    def rows(*sets: ImageSet) -> list[bytes]:
        return sorted(p.tobytes() for image_set in sets for p in image_set.pixels)

    assert rows(held.train, held.test) == rows(whole.train)
    again = load(tmp_path, "digits", image_size=8, holdout=300, seed=6)
    assert again.sha256() == held.sha256()


@pytest.mark.parametrize(("validation", "expected"), [(200, 200), (0.1, 114), (0.0001, 1)])
def test_a_validation_set_is_held_out_of_what_is_left_to_train_on(
    validation: float, expected: int, tmp_path: Path
) -> None:
    whole = load(tmp_path, "digits", image_size=8, holdout=300)
    held = load(tmp_path, "digits", image_size=8, holdout=300, validation=validation)
    assert held.validation is not None
    assert len(held.validation.pixels) == expected
    np.testing.assert_array_equal(held.test.pixels, whole.test.pixels)
    rows = np.concatenate([held.train.pixels, held.validation.pixels]).reshape(-1, 64)
    expected_rows = whole.train.pixels.reshape(-1, 64)
    for each in (rows, expected_rows):
        each[:] = each[np.lexsort(each.T)]
    np.testing.assert_array_equal(rows, expected_rows)
    limited = load(tmp_path, "digits", image_size=8, holdout=300, validation=validation, limit=9)
    assert limited.validation is not None
    np.testing.assert_array_equal(limited.validation.pixels, held.validation.pixels[:9])
    assert len({each.sha256() for each in (whole, held, limited)}) == 3
    assert "at most 1437" in fault(tmp_path, "digits", image_size=8, validation=1438)


def test_images_without_labels_can_be_held_out(tmp_path: Path) -> None:
    for i in range(20):
        write(tmp_path / "train" / f"{i}.png", flat(i))
    write(tmp_path / "test" / "0.png", flat(99))
    whole = load(tmp_path, image_size=8)
    assert values(whole.test) == [99]
    assert whole.class_names == ()
    held = load(tmp_path, image_size=8, holdout=5)
    assert sorted(values(held.train) + values(held.test)) == list(range(20))
    assert len(held.test.pixels) == 5
    assert held.test.labels is None


def test_something_must_be_left_to_train_on(tmp_path: Path) -> None:
    load(tmp_path, "digits", image_size=8, holdout=1437)
    line = fault(tmp_path, "digits", image_size=8, holdout=1438)
    assert "--data.holdout 1438" in line
    assert "at most 1437" in line


def test_a_limit_keeps_the_first_images_of_both_sets_and_comes_last(tmp_path: Path) -> None:
    held = load(tmp_path, "digits", image_size=8, holdout=300)
    limited = load(tmp_path, "digits", image_size=8, holdout=300, limit=40)
    for few, all_of_them in ((limited.train, held.train), (limited.test, held.test)):
        assert few.labels is not None
        assert all_of_them.labels is not None
        np.testing.assert_array_equal(few.pixels, all_of_them.pixels[:40])
        np.testing.assert_array_equal(few.labels, all_of_them.labels[:40])


@pytest.mark.parametrize("settings", [{}, {"limit": 3}, {"holdout": 4}, {"holdout": 4, "limit": 2}])
def test_each_image_keeps_the_name_of_its_file(settings: dict[str, int], tmp_path: Path) -> None:
    for i in range(20):
        write(tmp_path / "ab"[i % 2] / f"{i}.png", flat(i))
    loaded = load(tmp_path, image_size=8, **settings)
    for image_set in (loaded.train, loaded.test):
        names = [f"{'ab'[i % 2]}/{i}.png" for i in values(image_set)]
        assert image_set.files == tuple(names)


def test_the_hash_tells_pixels_labels_order_and_sets_apart() -> None:
    pixels = np.arange(2 * 8 * 8, dtype=np.uint8).reshape(2, 1, 8, 8)
    labels = np.array([0, 1])
    train, test = ImageSet(pixels, labels), ImageSet(pixels[:1], labels[:1])
    changed = pixels.copy()
    changed[1, 0, 7, 7] ^= 1
    variants = [
        Images(train, test, ("a", "b")),
        Images(test, train, ("a", "b")),
        Images(ImageSet(changed, labels), test, ("a", "b")),
        Images(ImageSet(pixels, labels[::-1]), test, ("a", "b")),
        Images(ImageSet(pixels[::-1], labels), test, ("a", "b")),
        Images(ImageSet(pixels, None), ImageSet(pixels[:1], None), ()),
        Images(train, test, ("a", "b"), validation=test),
        Images(train, test, ("a", "b"), validation=train),
    ]
    assert len({variant.sha256() for variant in variants}) == len(variants)
    copied = Images(ImageSet(pixels.copy(), labels.copy(), ("x", "y")), test, ("a", "b"))
    assert copied.sha256() == variants[0].sha256()
