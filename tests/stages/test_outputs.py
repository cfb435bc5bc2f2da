"""Images are written as one picture, as an array, or as a file each, with what they have."""

from pathlib import Path

import numpy as np
import pytest
from image_helpers import write
from PIL import Image

from vaekit.config import DataConfig
from vaekit.errors import UserError
from vaekit.runs.run import Run
from vaekit.stages.generate import generate, interpolate, reconstruct
from vaekit.stages.outputs import require_place, write_images

GENERATOR = np.random.default_rng(0)


@pytest.fixture
def files(finished_run: Path, tmp_path: Path) -> list[Path]:
    images = Run(finished_run).images.test.pixels[:3]
    return [write(tmp_path / f"{i}.png", image[0]) for i, image in enumerate(images)]


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_generated_images_are_the_same_in_files_and_in_an_array(
    finished_run: Path, tmp_path: Path
) -> None:
    run = Run(finished_run)
    generate(run, 5, tmp_path / "each", seed=1)
    generate(run, 5, tmp_path / "all.npy", seed=1)
    every = np.load(tmp_path / "all.npy")
    np.testing.assert_array_equal(every, run.sample(5, 1))
    paths = sorted((tmp_path / "each").iterdir())
    assert [path.name for path in paths] == [f"000{i}.png" for i in range(5)]
    np.testing.assert_array_equal(np.stack([read(path) for path in paths]), every[:, 0])


def test_reconstructions_are_those_of_the_run(
    finished_run: Path, files: list[Path], tmp_path: Path
) -> None:
    run = Run(finished_run)
    expected = run.reconstruct(files)
    reconstruct(run, files, tmp_path / "all.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "all.npy"), expected)
    reconstruct(run, files, tmp_path / "each")
    np.testing.assert_array_equal(read(tmp_path / "each" / "0001-1.png"), expected[1, 0])
    reconstruct(run, files, tmp_path / "all.png")
    picture = read(tmp_path / "all.png")
    np.testing.assert_array_equal(picture[:56:2, :56:2], run.inputs(files).pixels[0, 0])
    np.testing.assert_array_equal(picture[58::2, :56:2], expected[0, 0])


def test_an_interpolation_goes_from_one_reconstruction_to_the_other(
    finished_run: Path, files: list[Path], tmp_path: Path
) -> None:
    run = Run(finished_run)
    interpolate(run, files[0], files[2], 4, tmp_path / "line.npy")
    line = np.load(tmp_path / "line.npy")
    np.testing.assert_array_equal(line[[0, -1]], run.reconstruct([files[0], files[2]]))
    interpolate(run, files[0], files[2], 4, tmp_path / "line.png")
    assert read(tmp_path / "line.png").shape == (56, 4 * 58 - 2)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_files_have_the_channels_of_the_images(tmp_path: Path, channels: int, mode: str) -> None:
    images = GENERATOR.integers(0, 256, (2, channels, 5, 6), dtype=np.uint8)
    write_images(tmp_path / "each", images, ["a", "b"], lambda: Image.new("L", (1, 1)))
    with Image.open(tmp_path / "each" / "b.png") as image:
        assert image.mode == mode
        np.testing.assert_array_equal(
            np.asarray(image).reshape(5, 6, channels), images[1].transpose(1, 2, 0)
        )


def test_a_grid_keeps_the_alpha_of_images(tmp_path: Path) -> None:
    from conftest import tiny_config

    from vaekit.train import train

    for index in range(12):
        pixels = GENERATOR.integers(0, 256, (8, 8, 4), dtype=np.uint8)
        write(tmp_path / "icons" / f"{index}.png", pixels)
    data = DataConfig(name="folder", root=str(tmp_path / "icons"), image_size=8, channels=4)
    train(tiny_config(tmp_path / "run", data=data, batch_size=4, epochs=1, warmup_steps=1))
    generate(Run(tmp_path / "run"), 4, tmp_path / "grid.png", seed=0)
    picture = read(tmp_path / "grid.png")
    assert picture.shape[2] == 4
    assert picture[0, 56, 3] == 0  # between two images
    assert 0 < picture[0, 0, 3] < 255


@pytest.mark.parametrize("name", ["a.jpg", "a.gif", "taken"])
def test_a_place_that_images_cannot_go_to_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match=r"\.png"):
        require_place(tmp_path / name)


def test_a_line_of_one_image_or_between_several_is_refused(
    finished_run: Path, files: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="--steps 1: expected from 2"):
        interpolate(Run(finished_run), files[0], files[1], 1, tmp_path / "line.png")
    with pytest.raises(UserError, match="3 images; give one"):
        interpolate(Run(finished_run), files[0].parent, files[1], 3, tmp_path / "line.png")
    assert not (tmp_path / "line.png").exists()
