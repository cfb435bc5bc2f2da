import base64
import html
import io
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from image_helpers import write
from PIL import Image

from vaekit.config import DataConfig, ModelConfig, SvmConfig, TrainConfig
from vaekit.images.pictures import image_grid, write_image
from vaekit.images.sets import load_images
from vaekit.models.vae import VAE
from vaekit.report.circumstances import commands, settings
from vaekit.report.drawings import read_samples
from vaekit.report.page import write_report
from vaekit.report.tables import commonest_confusions
from vaekit.runs.environment import append_environment
from vaekit.runs.folder import RunFolder
from vaekit.runs.metrics import write_metrics
from vaekit.runs.reference import REFERENCE_MNIST
from vaekit.runs.run import Run
from vaekit.runs.weights import write_weights
from vaekit.settings import write_config
from vaekit.stages.evaluate import evaluate
from vaekit.stages.latents import extract_latents
from vaekit.stages.svm import fit_svm
from vaekit.storage.sealed import write_sealed

CLASSES = ("<b>cat&", "dog")
SIZE = 12


class Page(HTMLParser):
    """The images, links and text of a page, as a browser would see them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.source = path.read_text(encoding="utf-8")
        self.text = ""
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data

    def alts(self) -> list[str]:
        return [str(image["alt"]) for image in self.images]


def make_images(folder: Path, classes: tuple[str, ...]) -> None:
    """Coloured noise, darker in the first class; loose images where there are no classes."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 8)):
        for label, name in enumerate(classes or ("",)):
            for index in range(count):
                pixels = generator.integers(0, 100, (SIZE, SIZE, 3)) + 120 * label
                write(folder / split / name / f"{index}.png", pixels.astype(np.uint8))


def make_run(folder: Path, classes: tuple[str, ...] = CLASSES) -> Path:
    """What `vaekit train` leaves behind, with untrained weights and made-up losses."""
    make_images(folder / "images", classes)
    config = TrainConfig(
        run=str(folder / "run"),
        data=DataConfig(name="folder", root=str(folder / "images"), image_size=SIZE),
        model=ModelConfig(latent_dim=3, conv_channels=(2,), hidden_dims=(8,)),
        epochs=2,
        batch_size=128,
        learning_rate=1e-3,
        temperature=0.6,
        augment=True,
        augment_share=1.0,
        augment_until=1.0,
    )
    run = RunFolder(folder / "run")
    run.path.mkdir()
    write_config(run.config, config)
    torch.manual_seed(0)
    images = load_images(config.data, config.seed)
    write_weights(run, VAE(config.model, images.shape), images.class_names, images.sha256())
    losses = ("loss", "reconstruction", "kl")
    rows = [
        {
            "epoch": epoch,
            "step": 10 * epoch,
            **{f"train_{name}": 120.5 - epoch if epoch else None for name in losses},
            **{f"test_{name}": 110.25 - epoch for name in losses},
            "learning_rate": 0.001,
            "images_per_second": 400.0 if epoch else None,
            "seconds": 61.0 if epoch else None,
        }
        for epoch in range(3)
    ]
    rows[-1] |= {f"final_train_{name}": 97.0 for name in losses}
    write_metrics(run.metrics, rows)
    append_environment(
        run.environment, {"device": "cpu", "versions": {"torch": "2.15.0"}, "num_processes": 2}
    )
    for epoch in (0, 2):
        write_image(run.samples(epoch), image_grid(np.zeros((4, 3, SIZE, SIZE), np.uint8)))
    return run.path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every stage done and its report written; tests must not change it."""
    run = make_run(tmp_path_factory.mktemp("finished"))
    extract_latents(Run(run))
    fit_svm(Run(run), SvmConfig(C=3, gamma=0.5, max_train=20))
    write_report(Run(run))
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """The finished run again, for a test to change, without its report."""
    copy = tmp_path / "a run"
    shutil.copytree(finished, copy)
    shutil.rmtree(copy / "figures")
    (copy / "report.html").unlink()
    return copy


def test_the_page_is_one_file_that_asks_for_nothing_else(finished: Path) -> None:
    page = Page(finished / "report.html")
    others = [address for address in page.addresses if not address.startswith("data:")]
    assert others == ["http://127.0.0.1:8000/"]  # the explorer, a link
    assert not page.tags & {"iframe", "object", "embed"}
    assert not re.search(r"https?:(?!//127\.0\.0\.1)|url\((?!\$\{sheet\})|@import", page.source)
    assert not re.search(r"fetch|XMLHttpRequest|import\(|<script[^>]* src", page.source)


def test_the_map_has_an_image_for_each_point_whatever_its_class_is_called(finished: Path) -> None:
    source = (finished / "report.html").read_text()
    found = re.search(r'<script id="thumbnails" type="application/json">(.*?)</script>', source)
    assert found is not None
    assert "<b>" not in found[1]
    held = json.loads(found[1])
    assert len(held["names"]) == 16
    assert held["names"][0].startswith("<b>cat& · ")
    assert 0 <= min(held["places"]) <= max(held["places"]) <= held["grain"]
    with Image.open(io.BytesIO(base64.b64decode(held["sheet"].split(",")[1]))) as sheet:
        assert sheet.size == (16 * SIZE, SIZE)


def test_what_stands_out_is_shown(finished: Path) -> None:
    page = Page(finished / "report.html")
    assert "The strangest test images" in page.text
    assert sum(alt.endswith("png, and its reconstruction") for alt in page.alts()) == 12
    assert "Likely mislabelled" in page.text
    assert "What the latents are worth" not in page.text


@pytest.mark.slow
def test_latents_that_are_all_equal_are_a_page(tmp_path: Path) -> None:
    path = make_run(tmp_path)
    weights = Run(path).weights
    with torch.no_grad():
        for parameter in weights.vae.enc.parameters():
            parameter.zero_()
    write_weights(RunFolder(path), weights.vae, weights.class_names, weights.images_sha256)
    extract_latents(Run(path))
    evaluate(Run(path), num_samples=2, num_images=2)
    write_report(Run(path))
    text = Page(path / "report.html").text
    assert "0 of 3 are" in text
    assert text.count("distance 0.00") == 12


@pytest.mark.slow
def test_what_was_evaluated_is_shown_with_how_to_read_it(run: Path) -> None:
    evaluate(Run(run), num_samples=2, num_images=4)
    write_report(Run(run))
    text = " ".join(Page(run / "report.html").text.split())
    evaluation = Run(run).evaluation
    for name in ("latents", "PCA", "pixels"):
        assert f"{name} " in text
    assert f"{evaluation['likelihood']['nats']:.2f} ±" in text
    assert "By 2 importance-weighted samples of 4 test images" in text
    assert "lower is better, between models of the same likelihood" in text


def test_every_picture_in_the_page_is_whole_and_has_a_text(finished: Path) -> None:
    page = Page(finished / "report.html")
    cards = [alt for alt in page.alts() if alt.endswith(".png") or "its reconstruction" in alt]
    assert len(page.images) - len(cards) == 10  # two of them generated images
    for image in page.images:
        kind, data = str(image["src"]).split(",")
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            picture.load()
            assert picture.size == (int(str(image["width"])), int(str(image["height"])))
        assert image["alt"]


def test_the_figures_are_files_of_their_own(finished: Path) -> None:
    pictures = sorted(path.name for path in (finished / "figures").glob("*.png"))
    assert pictures == [
        "confusion.png",
        "loss-kl.png",
        "loss-reconstruction.png",
        "loss.png",
        "originals.png",
        "reconstructions.png",
        "traversal.png",
        "tsne.png",
    ]
    for name in pictures:
        with Image.open(finished / "figures" / name) as picture:
            picture.load()


def test_generated_images_are_shown_epoch_by_epoch(finished: Path) -> None:
    page = Page(finished / "report.html")
    generated = [alt for alt in page.alts() if alt.startswith("Generated")]
    assert generated == ["Generated images before training", "Generated images after epoch 2"]
    assert "before training" in page.text
    assert "epoch 2" in page.text


def test_many_generated_pictures_are_thinned_out_evenly(run: Path) -> None:
    for epoch in range(1, 100):
        shutil.copy(run / "samples" / "epoch-000.png", RunFolder(run).samples(epoch))
    rows = Run(run).metrics
    write_metrics(RunFolder(run).metrics, [rows[-1] | {"epoch": epoch} for epoch in range(100)])
    samples = read_samples(Run(run))
    assert [sample.epoch for sample in samples] == [0, 9, 18, 27, 36, 45, 54, 63, 72, 81, 90, 99]


def test_the_figures_are_shown_as_measured(finished: Path) -> None:
    text = Page(finished / "report.html").text
    metrics = json.loads((finished / "svm" / "metrics.json").read_text(encoding="utf-8"))
    for value in (108.25, 118.5, 97.0):  # test, train while training, train
        assert f"{value:.2f}" in text
    for name in ("accuracy", "precision", "recall", "f1"):
        assert f"{metrics[name]:.4f}" in text
    for each in metrics["per_class"]:
        assert f"{each['recall']:.3f}" in text
    assert "reference" not in text


@pytest.mark.slow
def test_beside_the_reference_each_figure_is_marked_better_or_worse(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics_path = run / "svm" / "metrics.json"
    metrics = json.loads(metrics_path.read_text(encoding="utf-8"))
    del metrics["sha256"]
    write_sealed(metrics_path, metrics | {"accuracy": 0.97, "precision": 0.93161, "recall": 0.5})
    for module in ("page", "tables", "drawings"):
        name = f"vaekit.report.{module}.reference_for"
        monkeypatch.setattr(name, lambda config: REFERENCE_MNIST)
    source = Page(write_report(Run(run))).source
    rows = re.findall(r"<tr.*?</tr>", source, flags=re.DOTALL)

    def row_of(name: str) -> str:
        (row,) = [row for row in rows if f">{name}</th>" in row]
        return row

    for name, reference, verdict in (
        ("Test loss", "101.55", "worse"),
        ("Train loss", "97.41", "better"),
        ("SVM accuracy", "0.9316", "better"),
        ("SVM precision", "0.9316", "equal"),  # as printed
        ("SVM recall", "0.9310", "worse"),
    ):
        assert reference in row_of(name)
        assert verdict in row_of(name)


def test_what_was_run_is_told(finished: Path) -> None:
    text = Page(finished / "report.html").text
    for fact in (
        "folder: 24 to train on, 16 to test on; 12x12 pixels, RGB, 2 classes",
        "2 of 2 epochs, batches of 128",
        "with a cosine, images rotated, scaled and shifted a little, ",
        "of weights on the move, on augmented images;",
        ", temperature 0.6, ",
        "24 x 6 to train on, 16 x 6 to test on",
        "C 3, gamma 0.5, a draw of 20 of 24 latents",
        "2 min 02 s",
        "cpu, 2 processes",
        "torch 2.15.0",
    ):
        assert fact in text


@pytest.mark.parametrize(
    ("changes", "settings_told", "loss_told"),
    [
        (
            {"augment_share": 0.25, "augment_until": 0.75},
            "rotated, scaled and shifted a little (25 % of them, until 75 % of the run), ",
            "the move, on augmented images (25 % of them, until 75 % of the run);",
        ),
        ({"augment": False}, "with a cosine, weight decay", "of weights on the move;"),
    ],
)
def test_whether_images_were_augmented_is_told(
    changes: dict[str, float], settings_told: str, loss_told: str, run: Path
) -> None:
    write_config(run / "config.yaml", replace(Run(run).config, **changes))
    text = Page(write_report(Run(run))).text
    assert settings_told in text
    assert loss_told in text


@pytest.mark.parametrize("environment", [None, "[]", "[{}]", '[{"versions": {}}]'])
def test_facts_that_were_not_recorded_are_left_out(run: Path, environment: str | None) -> None:
    path = RunFolder(run).environment
    path.unlink()
    if environment is not None:
        path.write_text(environment, encoding="utf-8")
    names = [fact.name for fact in settings(Run(run))]
    assert names == ["Images", "Model", "Training", "Latents", "SVM", "Time to train"]


def test_class_names_are_text_and_never_markup(finished: Path) -> None:
    page = Page(finished / "report.html")
    assert CLASSES[0] in page.text
    assert CLASSES[0] not in page.source
    assert html.escape(CLASSES[0]) in page.source


def test_the_commonest_errors_are_told_with_their_counts(run: Path) -> None:
    path = run / "svm" / "metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8"))
    del metrics["sha256"]
    write_sealed(path, metrics | {"confusion_matrix": [[5, 3], [0, 8]]})
    assert commonest_confusions(Run(run)) == [f"{CLASSES[0]} taken for dog: 3"]


def test_the_commands_make_an_equal_run_beside_this_one(run: Path) -> None:
    lines = commands(Run(run)).splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        f"vaekit train --config '{run}/config.yaml' --run '{run}-again'",
        f"vaekit latents '{run}-again'",
        f"vaekit svm '{run}-again' --C 3 --gamma 0.5 --log_variances 0.5 --max_train 20",
        f"vaekit report '{run}-again'",
    ]


def test_the_page_holds_the_commands_and_every_setting(finished: Path) -> None:
    text = Page(finished / "report.html").text
    assert commands(Run(finished)) in text
    assert (finished / "config.yaml").read_text(encoding="utf-8") in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gone", "verb", "not_drawn", "drawn"),
    [(["svm"], "svm", "Confusion", "Map"), (["svm", "latents"], "latents", "Map", "Decoded")],
    ids=["no SVM", "no latents"],
)
def test_of_what_is_not_made_yet_the_page_names_the_command_that_makes_it(
    gone: list[str], verb: str, not_drawn: str, drawn: str, run: Path
) -> None:
    for name in gone:
        shutil.rmtree(run / name)
    page = Page(write_report(Run(run)))
    assert f"vaekit {verb} '{run}'" in page.text
    assert not any(not_drawn in alt for alt in page.alts())
    assert any(drawn in alt for alt in page.alts())


@pytest.mark.slow
def test_before_the_first_epoch_the_page_names_the_command_that_goes_on(run: Path) -> None:
    folder = RunFolder(run)
    write_metrics(folder.metrics, Run(folder.path).metrics[:1])
    page = Page(write_report(Run(run)))
    assert f"vaekit train --config '{run}/config.yaml' --run '{run}'" in page.text
    assert not any("Curves" in alt for alt in page.alts())


@pytest.mark.slow
def test_images_without_labels_have_a_map_but_no_confusion(tmp_path: Path) -> None:
    run = make_run(tmp_path, classes=())
    extract_latents(Run(run))
    page = Page(write_report(Run(run)))
    assert any("Map" in alt for alt in page.alts())
    assert not any("Confusion" in alt for alt in page.alts())
    assert "no labels" in page.text
    assert "vaekit svm" not in commands(Run(run))
