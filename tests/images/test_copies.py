"""Equal images: on one side of vaekit's own split; counted where the user made it."""

from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_FLAGS
from image_helpers import load, write
from scipy.sparse.csgraph import connected_components

from vaekit.cli import main
from vaekit.images.collect import permute
from vaekit.images.copies import groups_of
from vaekit.images.sets import count
from vaekit.images.splits import split, split_groups

GENERATOR = np.random.default_rng(0)


def noise(count: int) -> list[np.ndarray]:
    return list(GENERATOR.integers(0, 256, (count, 8, 8), dtype=np.uint8))


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("labelled", [True, False])
def test_copies_lie_on_one_side_of_a_split_and_their_number_is_said(
    links: bool, labelled: bool, tmp_path: Path
) -> None:
    for index, image in enumerate(noise(60)):
        folder = tmp_path / ("ab"[index % 2] if labelled else "")
        first = write(folder / f"{index}.png", image)
        for copy in range(3):
            if links:
                (folder / f"{index}-{copy}.png").symlink_to(first)
            else:  # other bytes, equal pixels
                write(folder / f"{index}-{copy}.png", image, compress_level=copy)
    images = load(tmp_path, image_size=8)
    reading = count(images)
    train = {pixels.tobytes() for pixels in images.train.pixels}
    test = {pixels.tobytes() for pixels in images.test.pixels}
    assert not train & test
    assert len(images.test.pixels) == pytest.approx(24, abs=4)
    assert reading.num_copies == 180
    assert reading.num_test_in_train == 0
    held = load(tmp_path, image_size=8, holdout=20, validation=0.2)
    assert held.validation is not None
    sides = [
        {pixels.tobytes() for pixels in side.pixels}
        for side in (held.train, held.validation, held.test)
    ]
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]


def test_where_the_user_made_the_split_the_overlap_is_counted(tmp_path: Path) -> None:
    images = noise(12)
    for index, image in enumerate(images):
        write(tmp_path / "train" / "ab"[index % 2] / f"{index}.png", image)
    for index, image in enumerate(images[:5]):
        write(tmp_path / "test" / "ab"[index % 2] / f"{index}.png", image)
    for index, image in enumerate(images[5:7]):
        write(tmp_path / "val" / "ba"[(index + 5) % 2] / f"{index}.png", image)
    write(tmp_path / "test" / "a" / "new.png", noise(1)[0])
    reading = count(load(tmp_path, image_size=8))
    assert reading.num_test_in_train == 5
    assert reading.num_validation_in_train == 2
    assert reading.num_in_two_classes == 4
    assert "5 test images that equal a training image" in "\n".join(reading.deviations())


@pytest.mark.slow
def test_the_overlap_stands_beside_the_accuracy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "images"
    for index, image in enumerate(noise(20)):
        write(root / "train" / "ab"[index % 2] / f"{index}.png", image)
        if index % 4 == 0:  # of the first class alone
            write(root / "test" / "ab"[index % 2] / f"{index}.png", image)
    run = str(tmp_path / "run")
    model = TINY_FLAGS[TINY_FLAGS.index("--model.latent_dim") :]
    size = ["--batch_size", "8", "--data.image_size", "9", "--run", run]
    main(["train", "--data.name", "folder", "--data.root", str(root), *model, *size])
    main(["svm", run])
    said = capsys.readouterr().out
    assert "5 of 5 test images equal a training image" in said
    assert "no test images of b" in said
    main(["report", run])
    page = (tmp_path / "run" / "report.html").read_text()
    assert "5 of 5 test images were trained on" in page
    assert 'colspan="3">no test images</td>' in page


@pytest.mark.slow
def test_a_class_keeps_an_image_to_train_on_and_those_without_test_images_are_named(
    tmp_path: Path,
) -> None:
    sizes = {"one": 1, "two": 2, "many": 60}
    for name, size in sizes.items():
        for index, image in enumerate(noise(size)):
            write(tmp_path / name / f"{index}.png", image)
    for seed in range(12):
        images = load(tmp_path, seed=seed, image_size=8)
        assert images.train.labels is not None
        assert {*images.train.labels.tolist()} == {0, 1, 2}
        assert "one" in count(images).classes_without_test
        assert count(images).classes_without_train == ()


def test_a_split_of_groups_is_the_split_where_each_item_is_its_own_group() -> None:
    labels = np.repeat([0, 1, 2], [40, 50, 60])
    for seed in range(5):
        expected = split(labels, 15, seed)
        found = split_groups(labels, np.arange(150), 15, seed)
        assert found.held_out.tolist() == expected.held_out.tolist()
        assert found.kept.tolist() == expected.kept.tolist()


@pytest.mark.parametrize(
    ("halves", "files", "expected"),
    [
        ([], [], []),
        ([5, 9, 5, 9, 7], [0, 1, 2, 3, 4], [0, 1, 0, 1, 2]),  # equal images
        ([1, 2, 3, 4, 5], [0, 0, 1, 2, 2], [0, 0, 1, 2, 2]),  # pages of a file
        ([1, 2, 3, 2, 4], [0, 0, 1, 1, 2], [0, 0, 0, 0, 1]),  # a file to another by an equal page
        ([4, 3, 2, 3, 2, 1], [0, 1, 2, 0, 1, 3], [0, 0, 0, 0, 0, 1]),
    ],
)
@pytest.mark.parametrize("other_half", [0, 1])
def test_equal_images_and_pages_of_a_file_are_of_one_group(
    other_half: int, halves: list[int], files: list[int], expected: list[int]
) -> None:
    digests = np.ones((len(halves), 2), np.uint64)
    digests[:, 1 - other_half] = halves  # the other one is the same of all
    assert groups_of(digests, np.array(files, np.int64)).tolist() == expected


def test_groups_are_what_hangs_together() -> None:
    generator = np.random.default_rng(0)
    for _ in range(100):
        images, files = generator.integers(0, 40, (2, 50))
        digests = np.stack([images, images], axis=1).astype(np.uint64)
        groups = groups_of(digests, files)
        linked = (images[:, None] == images) | (files[:, None] == files)
        number, components = connected_components(linked)
        assert len({*zip(groups.tolist(), components.tolist(), strict=True)}) == number
        assert {*groups.tolist()} == {*range(number)}


def test_images_are_put_in_order_in_their_place() -> None:
    pixels = np.arange(50)[:, None] * np.ones((1, 3), int)
    order = np.random.default_rng(0).permutation(50)
    expected = pixels[order]
    permute(pixels, order)
    np.testing.assert_array_equal(pixels, expected)
