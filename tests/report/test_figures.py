import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from vaekit.images.pictures import image_grid
from vaekit.report import figures
from vaekit.report.figures import (
    BLUE,
    CLASS_COLOURS,
    ORANGE,
    confusion_counts,
    latent_map,
    latent_traversal,
    loss_curve,
)


def is_like(image: Image.Image, colour: str) -> np.ndarray:
    """Which pixels [H, W] have nearly this colour."""
    distance = np.abs(np.asarray(image.convert("RGB")) - 255 * np.array(to_rgb(colour)))
    return distance.max(axis=-1) < 8.5


def pixels_like(image: Image.Image, colour: str) -> int:
    return int(is_like(image, colour).sum())


def loss_rows() -> list[dict[str, float | None]]:
    untrained = {"epoch": 0, "train_loss": None, "test_loss": 540.0}
    return [untrained] + [
        {"epoch": epoch, "train_loss": 100 + 9 / epoch, "test_loss": 102 + 5 / epoch}
        for epoch in (1, 2, 3)
    ]


def test_loss_curves_are_those_of_training_and_test_from_the_first_epoch_on() -> None:
    rows = loss_rows()
    picture = loss_curve(rows, "loss")
    assert pixels_like(picture, ORANGE) > 500
    assert pixels_like(picture, BLUE) > 500
    assert picture == loss_curve(rows[1:], "loss")
    assert picture != loss_curve(rows, "loss", reference=101.55)


def test_a_bad_first_epoch_does_not_flatten_the_others() -> None:
    first = {f"{split}_loss": 1e6 for split in ("train", "test")}
    rows = [{"epoch": 1, **first}]
    rows += [{"epoch": e, "train_loss": 100 - e, "test_loss": 101 - e} for e in range(2, 11)]
    is_blue = is_like(loss_curve(rows, "loss"), BLUE)
    assert np.ptp(np.flatnonzero(is_blue.any(axis=1))) > 0.6 * len(is_blue)


def test_a_single_epoch_is_drawn() -> None:
    assert pixels_like(loss_curve(loss_rows()[:2], "loss"), BLUE) > 20


@pytest.mark.slow
def test_every_class_of_a_map_is_drawn_in_its_colour() -> None:
    labels = np.arange(200) % 10
    points = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    picture = latent_map(points, labels, tuple("0123456789")).image
    for colour in CLASS_COLOURS:
        assert pixels_like(picture, colour) > 100


def test_a_name_on_the_map_stands_in_the_larger_cluster_of_its_class() -> None:
    generator = np.random.default_rng(0)
    clusters = generator.normal((0, 0), 1, (70, 2)), generator.normal((50, 50), 1, (60, 2))
    heart = figures._heart(np.concatenate(clusters).astype(np.float32))
    assert np.linalg.norm(heart) < 2
    assert figures._heart(np.ones((1, 2), np.float32)).tolist() == [1, 1]


@pytest.mark.parametrize("labels", [None, np.array([0, 1, 1])])
def test_a_point_lies_where_the_map_says(labels: np.ndarray | None) -> None:
    points = np.array([[0, 0], [4, 1], [1, 3]], np.float32)
    picture, places = latent_map(points, labels, ("alpha", "beta"))
    for index, (x, y) in enumerate(places):
        colour = picture.convert("RGB").getpixel(
            (round(x * picture.width), round(y * picture.height))
        )
        expected = to_rgb(CLASS_COLOURS[0 if labels is None else labels[index]])
        assert np.abs(np.array(colour) / 255 - expected).max() < 0.4


def test_a_thousand_classes_are_a_map_without_a_legend() -> None:
    points = np.random.default_rng(0).normal(size=(2000, 2)).astype(np.float32)
    names = [f"class number {label}" for label in range(1000)]
    picture = latent_map(points, np.arange(2000) % 1000, names).image
    assert picture.height < 2 * picture.width


@pytest.mark.slow
def test_any_class_names_can_be_drawn() -> None:
    names = ["$x_1$", "", "猫", "_hidden", "a name that is much longer than a legend", "\\frac{"]
    labels = np.arange(60) % len(names)
    points = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    latent_map(points, labels, names)
    confusion_counts(np.eye(len(names), dtype=np.int64), names)


@pytest.mark.slow
def test_more_classes_than_colours_differ_by_their_markers() -> None:
    points = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    labels = np.full(60, 1)
    names = [f"{label}" for label in range(21)]
    pictures = [latent_map(points, labels + more, names).image for more in (0, 10)]
    assert pictures[0] != pictures[1]


def test_class_colours_stay_apart_whatever_the_colour_vision() -> None:
    # Full protanopia, deuteranopia, tritanopia: Machado, Oliveira and Fernandes (2009).
    visions = np.array(
        [
            np.eye(3),
            [
                [0.152286, 1.052583, -0.204868],
                [0.114503, 0.786281, 0.099216],
                [-0.003882, -0.048116, 1.051998],
            ],
            [
                [0.367322, 0.860646, -0.227968],
                [0.280085, 0.672501, 0.047413],
                [-0.011820, 0.042940, 0.968881],
            ],
            [
                [1.255528, -0.076749, -0.178779],
                [-0.078411, 0.930809, 0.147602],
                [0.004733, 0.691367, 0.303900],
            ],
        ]
    )
    # OKLab, from linear sRGB: B. Ottosson (2020).
    to_lms = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    rgb = np.array([to_rgb(colour) for colour in CLASS_COLOURS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    for vision in visions:
        lab = np.cbrt(np.clip(linear @ vision.T, 0, 1) @ to_lms.T) @ to_lab.T
        distances = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
        assert distances[np.triu_indices(len(lab), k=1)].min() > 0.13


def test_a_traversal_shows_its_images_pixel_for_pixel_under_its_labels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 1, 28, 28), dtype=np.uint8)
    picture = latent_traversal(images, ["z1", "z2", "z3"], ["-2", "-1", "0", "+1", "+2"])
    sheet = np.asarray(image_grid(images.reshape(15, 1, 28, 28), columns=5).convert("RGB"))
    height, width = sheet.shape[:2]
    drawn = np.asarray(picture)
    np.testing.assert_array_equal(drawn[-height:, -width:], sheet)
    assert drawn[:-height].min() < 100
    assert drawn[-height:, :-width].min() < 100


@pytest.mark.slow
def test_what_is_right_is_blue_and_what_is_wrong_is_orange() -> None:
    perfect = confusion_counts(np.array([[9, 0], [0, 9]]), ["cat", "dog"])
    assert pixels_like(perfect, ORANGE) == 0
    inverted = confusion_counts(np.array([[0, 9], [9, 0]]), ["cat", "dog"])
    assert pixels_like(inverted, ORANGE) > 100_000


@pytest.mark.slow
@pytest.mark.parametrize(("num_classes", "legible"), [(2, True), (10, True), (50, False)])
def test_counts_are_in_the_cells_where_they_are_legible(num_classes: int, legible: bool) -> None:
    names = [str(label) for label in range(num_classes)]
    # The same shares, and so the same colours: only the counts tell these two apart.
    some, more = (
        confusion_counts(times * np.eye(num_classes, dtype=np.int64), names) for times in (1, 7)
    )
    assert (some != more) == legible
