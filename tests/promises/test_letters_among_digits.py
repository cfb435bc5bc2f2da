"""What docs/scores.md promises of digits: letters are told from them, and wrong labels found."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from sklearn.metrics import precision_recall_curve, roc_auc_score

from vaekit.config import ModelConfig, TrainConfig
from vaekit.images.digits import read_digits
from vaekit.runs.run import Run
from vaekit.stages.latents import extract_latents
from vaekit.train import train

pytestmark = pytest.mark.slow

CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SIDE = 28
WRONG_SHARE = 0.05


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small model of the digits, one label in twenty made wrong, briefly trained."""
    pixels, labels, _ = read_digits((SIDE, SIDE))
    config = TrainConfig(
        run=str(tmp_path_factory.mktemp("digits") / "run"),
        model=ModelConfig(latent_dim=16, width=8),
        epochs=16,
        batch_size=32,
        mixed_precision="no",
    )
    run = train(config, pixels, _with_wrong_ones(labels))
    extract_latents(run)
    return run


def test_letters_among_digits_reach_an_auc_of_99_percent(run: Run) -> None:
    digits, letters = (run.score(images) for images in (run.images.test.pixels, _letters()))
    is_letter = np.repeat([0, 1], [len(digits.mse), len(letters.mse)])
    score = np.concatenate([digits.strangeness, letters.strangeness])
    assert roc_auc_score(is_letter, score) >= 0.99
    assert letters.is_strange.mean() > 0.6
    assert digits.is_strange.mean() < 0.05


def test_planted_wrong_labels_are_found_with_precision_80_at_recall_50_percent(run: Run) -> None:
    pixels, labels, _ = read_digits((SIDE, SIDE))
    right = {image.tobytes(): label for image, label in zip(pixels, labels, strict=True)}
    images, latents = run.images, run.latents
    assert latents.train_labels is not None
    assert latents.test_labels is not None
    every = [*images.train.pixels, *images.test.pixels]
    given = np.concatenate([latents.train_labels, latents.test_labels])
    is_wrong = given != [right[image.tobytes()] for image in every]
    assert is_wrong.mean() == pytest.approx(WRONG_SHARE, abs=0.002)
    found = run.suspect_labels()
    precision, recall, _ = precision_recall_curve(is_wrong[found.rows], found.suspicion)
    assert precision[recall >= 0.5].max() >= 0.8


def _with_wrong_ones(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    generator = np.random.default_rng(0)
    chosen = generator.choice(len(labels), round(WRONG_SHARE * len(labels)), replace=False)
    planted = labels.copy()
    planted[chosen] = (labels[chosen] + generator.integers(1, 10, len(chosen))) % 10
    return planted


def _letters() -> NDArray[np.uint8]:
    """Capitals of the text fonts that come with matplotlib, [N, SIDE, SIDE].

    They are drawn at 8x8 and enlarged, as the digits were.
    """
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    names = [f"DejaVu{family}{style}" for family in ("Sans", "Serif") for style in ("", "-Bold")]
    names += [f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")]
    names += ["cmr10", "cmss10", "cmtt10", "cmb10"]
    fonts = [ImageFont.truetype(str(folder / f"{name}.ttf"), 48) for name in names]
    return np.stack([_letter(font, capital) for font in fonts for capital in CAPITALS])


def _letter(font: ImageFont.FreeTypeFont, capital: str) -> NDArray[np.uint8]:
    sheet = Image.new("L", (96, 96))
    ImageDraw.Draw(sheet).text((48, 48), capital, 255, font, anchor="mm")
    ink = sheet.crop(sheet.getbbox())
    square = Image.new("L", (max(ink.size),) * 2)
    square.paste(ink, tuple((square.width - side) // 2 for side in ink.size))
    small = square.resize((8, 8), Image.Resampling.BOX)
    return np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
