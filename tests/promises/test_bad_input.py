"""Each bad input ends a command with one line and code 2, and harms nothing written."""

import os
import shutil
import signal
from pathlib import Path

import pytest
from conftest import TINY_FLAGS, assert_one_line_error, made_once, vaekit
from damage_helpers import Refused, copy, snapshot
from fork_helpers import FORKS, be_command
from image_helpers import write_noise
from PIL import Image

from vaekit.cli import main
from vaekit.errors import UserError
from vaekit.export import bundle
from vaekit.runs.run import Run

TINY_MODEL = TINY_FLAGS[TINY_FLAGS.index("--model.latent_dim") :]


def train_on(root: Path, run: Path, *more: str) -> None:
    flags = [*TINY_MODEL, "--batch_size", "8", "--data.image_size", "9", *more]
    main(["train", "--data.name", "folder", "--data.root", str(root), *flags, "--run", str(run)])


@pytest.mark.injects(20)
def test_a_missing_set_without_a_network_names_its_files_and_the_set_that_needs_none(
    tmp_path: Path,
) -> None:
    """Bare: MNIST, into data/ and runs/mnist of the folder one stands in."""
    nowhere = "http://127.0.0.1:9"
    result = vaekit("train", cwd=tmp_path, http_proxy=nowhere, https_proxy=nowhere)
    files = ("train-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    words = ("the download failed", "--data.name digits")
    assert_one_line_error(result, "data/MNIST/raw", *files, *words)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--batch_size 97", "--batch_size 97: the training set has 96 images"),
        ("--model.conv_channels [1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "give fewer convolutions"),
        ("--data.name folder --data.root nowhere", "nowhere: no such folder"),
        ("--data.name mnist --data.image_size 32", "leave the flag out"),
        ("--data.holdout 9999", "--data.holdout 9999"),
        ("--data.image_size 40000", "--data.image_size 40000: expected at most 1024"),
        ("--model.latent_dim 1000000000000", "expected at most 65536"),
        ("--mixed_precision fp16", "--mixed_precision fp16: needs a GPU"),
    ],
)
def test_what_can_be_known_beforehand_leaves_no_run_folder(
    flags: str, words: str, refused: Refused, tmp_path: Path
) -> None:
    assert words in refused("train", *TINY_FLAGS, *flags.split(), "--run", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.injects(8)
def test_a_config_edited_behind_the_checkpoints_back_is_refused(
    run: Path, refused: Refused
) -> None:
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 2", "epochs: 4"))
    assert "epochs: 2 -> 4" in refused("train", *TINY_FLAGS, "--epochs", "4", "--run", run)


@pytest.mark.injects(6)
def test_a_file_in_place_of_the_run_folder_is_named(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        assert str(tmp_path / "file") in refused("train", *TINY_FLAGS, "--run", path)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.injects(6)
def test_a_folder_of_something_else_is_left_without_even_a_lock(
    refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert "holds no run" in refused("train", *TINY_FLAGS, "--run", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_reader_that_goes_away_ends_the_command_quietly(run: Path, tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    for index, pixels in enumerate(Run(run).images.test.pixels[:3]):
        Image.fromarray(pixels[0]).save(tmp_path / "digits" / f"{index}.png")
    pipe, errors = tmp_path / "pipe", tmp_path / "errors"
    os.mkfifo(pipe)
    arguments = ["predict", str(run), str(tmp_path / "digits")]
    process = FORKS.Process(
        target=be_command, args=(arguments, tmp_path, dict(os.environ), pipe, errors)
    )
    process.start()
    pipe.open().close()  # as soon as the command has it open, too
    process.join(60)
    assert (process.exitcode, errors.read_text()) == (128 + signal.SIGPIPE, "")


def test_a_diverging_run_names_the_step(refused: Refused, tmp_path: Path) -> None:
    line = refused("train", *TINY_FLAGS, "--learning_rate", "1e25", "--run", tmp_path / "new")
    assert "not finite at step" in line
    assert "there is no checkpoint yet" in line


@pytest.mark.injects(5)
def test_the_command_that_is_named_for_damaged_weights_mends_them(
    run: Path, refused: Refused
) -> None:
    model = run / "model.safetensors"
    whole = model.read_bytes()
    model.write_bytes(whole[:-7])
    line = refused("latents", run)
    assert f"remove it and make it again with `vaekit train --config {run}/config.yaml" in line
    model.unlink()
    assert f"--run {run}`" in refused("latents", run)
    main(["train", "--config", f"{run}/config.yaml", "--run", str(run)])
    assert model.read_bytes() == whole


def train_on_two_classes(place: Path) -> None:
    write_noise(place / "images", "b", "c")
    train_on(place / "images", place / "run")


@pytest.mark.parametrize("change", ["grey", "class before", "class gone", "unlabelled"])
@pytest.mark.injects(8)
def test_images_that_changed_since_training_are_refused(
    change: str, tmp_path_factory: pytest.TempPathFactory, refused: Refused
) -> None:
    place = made_once(tmp_path_factory, "two-classes", train_on_two_classes)
    root, run = place / "images", place / "run"
    if change == "grey":
        write_noise(root, "b", "c", mode="L")
    elif change == "class before":
        write_noise(root, "a")
    elif change == "class gone":
        shutil.rmtree(root / "c")
    else:
        for path in (root / "b").iterdir():
            path.rename(root / path.name)
        shutil.rmtree(root / "b")
        shutil.rmtree(root / "c")
    before = snapshot(run)
    for stage in (["train", "--config", run / "config.yaml", "--run"], ["latents"], ["report"]):
        line = refused(*stage, run, "--data.root", root)
        assert f"--data.root {root}: other images, labels or classes than {run} was" in line
    assert snapshot(run) == before


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", ["mnist", "folder"])
def test_a_stage_whose_images_are_elsewhere_names_both_ways_out_and_makes_nothing(
    name: str, run: Path, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run / "config.yaml"
    text = config.read_text().replace("name: digits", f"name: {name}")
    config.write_text(text)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    (run / "figures" / "tsne.safetensors").unlink()
    for stage in ("latents", "report", "export"):
        line = refused(stage, run)
        assert "data" in line
        assert "put its images back there, or say with --data.root where they lie now" in line
        assert line.count("--") == line.count("--data.root")
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("folder_run", ["labelled"], indirect=True)
def test_every_stage_takes_images_from_where_they_lie_now(
    folder_run: Path, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    def graphs_are_written(*_: object) -> None:
        raise UserError("images are there")  # the rest of an export takes seconds

    moved, run = tmp_path / "moved", copy(folder_run, tmp_path / "run")
    root = Run(run).data.root
    shutil.copytree(root, moved)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(root, str(tmp_path / "gone")))
    shutil.rmtree(run / "latents")
    for stage in ("latents", "report", "export"):
        assert f"--data.root {tmp_path / 'gone'}: no such folder" in refused(stage, run)
        if stage != "export":
            main([stage, str(run), "--data.root", str(moved)])
    monkeypatch.setattr(bundle, "write_graphs", graphs_are_written)
    assert "images are there" in refused("export", run, "--data.root", moved)
    main(["svm", str(run), "--data.root", str(moved)])


def test_one_class_trains_and_only_the_svm_refuses_it(tmp_path: Path, refused: Refused) -> None:
    write_noise(tmp_path / "images", "only")
    train_on(tmp_path / "images", tmp_path / "run", "--warmup_steps", "0")
    main(["latents", str(tmp_path / "run")])
    assert "an SVM needs at least two classes" in refused("svm", tmp_path / "run")
    main(["report", str(tmp_path / "run")])


def test_an_unlabelled_set_goes_through_every_stage_but_the_svm(
    unlabelled_run: Path, tmp_path: Path, refused: Refused
) -> None:
    run = copy(unlabelled_run, tmp_path / "run")
    assert "label" in refused("svm", run)
    main(["report", str(run)])
    main(["generate", str(run), "--output", str(tmp_path / "grid.png")])


def test_generating_refuses_what_makes_no_picture(
    run: Path, tmp_path: Path, refused: Refused
) -> None:
    for flags, words in (
        (["--seed", "-1"], "--seed -1: expected at least 0"),
        (["--count", "100000000000"], "expected from 1 to 10000"),
        (["--count", "0"], "--count 0: expected from 1 to 10000"),
        (["--output", tmp_path / "grid.tiff"], "grid.tiff"),
        (["--output", run / "report.html" / "x.png"], "report.html"),
    ):
        assert words in refused("generate", run, *flags)


def test_prediction_runs_from_the_command_line_for_one_file_and_for_many(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [str(run / "samples" / f"epoch-00{index}.png") for index in range(3)]
    for arguments in (images[:1], images, [*images, "--latents"], ["--latents", *images]):
        capsys.readouterr()
        main(["predict", str(run), *arguments])
        header, *rows = capsys.readouterr().out.splitlines()
        assert len(rows) == len([x for x in arguments if x != "--latents"])
        assert ("z1" in header) == ("--latents" in arguments)
