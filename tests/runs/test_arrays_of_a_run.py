"""A run encodes, decodes and predicts arrays and files, as a notebook asks it to."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import made_once, tiny_config
from image_helpers import write
from numpy.typing import NDArray
from PIL import Image

import vaekit
from vaekit.config import DataConfig, ModelConfig, SvmConfig
from vaekit.errors import UserError
from vaekit.images.pictures import image_grid
from vaekit.runs.run import Run
from vaekit.stages.generate import generate
from vaekit.stages.latents import extract_latents
from vaekit.stages.svm import fit_svm
from vaekit.svm.table import predict
from vaekit.train import train


def make_colour_run(place: Path) -> None:
    """Of a folder in colour, 12 wide and 8 high, with classes, latents and an SVM."""
    generator = np.random.default_rng(0)
    for index in range(40):
        for name, channel in (("blue", 2), ("red", 0)):
            pixels = generator.integers(0, 60, (8, 12, 3), dtype=np.uint8)
            pixels[..., channel] += 150
            write(place / "images" / name / f"{index}.png", pixels)
    data = DataConfig(name="folder", root=str(place / "images"), image_size="8,12")
    model = ModelConfig(latent_dim=3, width=2)
    train(tiny_config(place / "run", data=data, model=model, epochs=1))
    extract_latents(Run(place / "run"))
    fit_svm(Run(place / "run"), SvmConfig())


@pytest.fixture(scope="session")
def colour_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "colour", make_colour_run) / "run"


@pytest.fixture(params=["grey", "colour", "unlabelled"])
def run(request: pytest.FixtureRequest) -> Run:
    names = {"grey": "finished_run", "colour": "colour_run", "unlabelled": "unlabelled_run"}
    return vaekit.Run(request.getfixturevalue(names[request.param]))


def layouts(pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """[N, C, H, W] in every layout that is taken."""
    grey = [pixels[:, 0]] if pixels.shape[1] == 1 else []
    return [pixels, pixels.transpose(0, 2, 3, 1), *grey]


def test_images_are_encoded_as_the_stage_does_in_every_layout(run: Run) -> None:
    pixels, latent_dim = run.images.test.pixels, run.weights.vae.latent_dim
    for images in layouts(pixels):
        before = images.copy()
        mean, log_variance = run.encode(images)
        assert mean.dtype == log_variance.dtype == np.float32
        np.testing.assert_allclose(mean, run.latents.test[:, :latent_dim], atol=1e-5)
        np.testing.assert_allclose(log_variance, run.latents.test[:, latent_dim:], atol=1e-5)
        np.testing.assert_array_equal(images, before)


def test_a_file_a_list_of_files_and_a_folder_give_what_their_arrays_give(
    run: Run, tmp_path: Path
) -> None:
    pixels = run.images.test.pixels[:3]
    for index, image in enumerate(pixels):
        write(tmp_path / f"{index}.png", image.transpose(1, 2, 0).squeeze())
    expected = run.encode(pixels)
    files = sorted(tmp_path.iterdir())
    for given in (files, [str(file) for file in files], tmp_path, str(tmp_path)):
        for found, wanted in zip(run.encode(given), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)
    np.testing.assert_allclose(run.encode(files[1]).mean[0], expected.mean[1], atol=1e-5)


def test_a_reconstruction_is_decoded_from_the_mean_and_can_be_encoded_again(run: Run) -> None:
    pixels = run.images.test.pixels
    images = run.reconstruct(pixels)
    assert (images.dtype, images.shape) == (np.uint8, pixels.shape)
    np.testing.assert_array_equal(run.decode(run.encode(pixels).mean), images)
    assert np.isfinite(run.encode(images).mean).all()


def test_samples_follow_the_seed_and_are_those_that_are_generated(run: Run, tmp_path: Path) -> None:
    generate(run, 9, tmp_path / "generated.png", seed=2)
    picture = image_grid(run.sample(9, seed=2))
    assert picture.tobytes() == Image.open(tmp_path / "generated.png").tobytes()
    assert run.sample(9).shape == (9, *run.weights.vae.image_shape)
    assert (run.sample(9) != run.sample(9, seed=2)).any()


def test_an_interpolation_leads_from_one_reconstruction_to_the_other(run: Run) -> None:
    pixels = run.images.test.pixels
    images = run.interpolate(pixels[0], pixels[1:2], steps=5)
    assert len(images) == 5
    np.testing.assert_array_equal(images[[0, -1]], run.reconstruct(pixels[:2]))
    middle = run.encode(pixels[:2]).mean.mean(axis=0, keepdims=True)
    np.testing.assert_allclose(images[2].astype(int), run.decode(middle)[0], atol=1)
    with pytest.raises(UserError, match="first: 2 images; give one"):
        run.interpolate(pixels[:2], pixels[0])
    with pytest.raises(UserError, match="steps 1: expected at least 2"):
        run.interpolate(pixels[0], pixels[1], steps=1)


@pytest.mark.parametrize("name", ["finished_run", "colour_run"])
def test_predictions_are_those_of_the_svm_with_names(
    name: str, request: pytest.FixtureRequest
) -> None:
    run = vaekit.Run(request.getfixturevalue(name))
    prediction = run.predict(run.images.test.pixels)
    expected = predict(run.svm.table, run.latents.test)
    assert prediction.labels.tolist() == expected.labels.tolist()
    np.testing.assert_allclose(prediction.scores, expected.scores, rtol=1e-3, atol=1e-3)
    names = run.svm.class_names
    assert prediction.names == tuple(names[label] for label in prediction.labels)
    best = prediction.scores.argmax(axis=1)
    assert prediction.names == tuple(prediction.classes[column] for column in best)


FLOATS = np.linspace(0, 1, 2 * 28 * 28, dtype=np.float32).reshape(2, 28, 28)
BYTES = (255 * FLOATS).round().astype(np.uint8)
REFUSED = {
    "floats to 1": (FLOATS, r"float32 from 0 to 1, .*\(255 \* images\)\.round\(\)"),
    "floats to 255": (255 * FLOATS, r"from 0 to 255, .*give images\.round\(\)\.astype\('uint8'\)"),
    "floats beyond": (2 * FLOATS - 1, r"from -1 to 1, .*black is 0 and white is 255"),
    "whole numbers": (BYTES.astype(np.int64), r"int64 from 0 .*give images\.astype\('uint8'\)"),
    "deep": (BYTES.astype(np.uint16) * 257, r"uint16 from 0 to 65535, .*black is 0"),
    "yes and no": (FLOATS > 0.5, r"bool, .*255 \* images\.astype"),
    "words": (np.array([["a"]]), "<U1, expected uint8"),
    "not a number": (np.where(FLOATS > 0.5, np.nan, FLOATS), "NaN or infinite values"),
    "another size": (BYTES[:, :20, :20], r"\[2, 20, 20\], expected \[N, 28, 28\]"),
    "colour": (np.stack([BYTES] * 3, axis=-1), r"\[2, 28, 28, 3\], expected .*\[N, 1, 28, 28\]"),
    "a single image": (BYTES[0], r"of a single one, .*give images\[None\]"),
    "none of an array": (BYTES[:0], r"\[0, 28, 28\] holds none"),
    "none of a list": ([], "none were given"),
    "a list of arrays": ([*BYTES], r"2 of 2 are of the type ndarray, .*numpy\.stack\(images\)"),
    "another type": (7, "of the type int, expected a NumPy array, paths"),
    "a file that is not there": ("nowhere.png", r"can't read nowhere\.png"),
}


@pytest.mark.parametrize(("images", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_image_of_the_model_is_refused_with_what_to_pass(
    finished_run: Path, images: Any, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        vaekit.Run(finished_run).encode(images)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda z: z.mean[:, :2], r"shape \[5, 2\], expected numbers \[N, 3\]"),
        (lambda z: z.mean[0], r"give latents\[None\] for a single one"),
        (lambda z: z.mean[:0], r"shape \[0, 3\]"),
        (lambda z: z.mean * np.inf, "that are finite"),
        (lambda z: z.mean.astype(str), "<U32, expected numbers"),
        (lambda z: z, "an encoding, .*give its mean"),
    ],
    ids=["narrow", "single", "none", "infinite", "words", "encoding"],
)
def test_what_is_no_latent_of_the_model_is_refused(
    finished_run: Path, change: Any, words: str
) -> None:
    run = vaekit.Run(finished_run)
    with pytest.raises(UserError, match=words):
        run.decode(change(run.encode(run.images.test.pixels[:5])))


@pytest.mark.parametrize(("count", "seed"), [(0, 0), (1, -1)])
def test_bad_samples_are_refused(finished_run: Path, count: int, seed: int) -> None:
    with pytest.raises(UserError, match="expected at least"):
        vaekit.Run(finished_run).sample(count, seed)
