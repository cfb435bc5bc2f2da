"""vaekit as a program imports it: train on arrays, and go on with what that left."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from conftest import run_command, tiny_config
from damage_helpers import Refused

import vaekit
from vaekit.config import DataConfig, TrainConfig
from vaekit.errors import UserError
from vaekit.images.digits import read_digits

pytestmark = pytest.mark.usefixtures("in_python")


@pytest.fixture(scope="module")
def digits() -> tuple[Any, Any]:
    pixels, labels, _ = read_digits((28, 28))
    return pixels[:120, 0], labels[:120]


def memory_config(run: Path, **changes: object) -> TrainConfig:
    return tiny_config(run, data=DataConfig(), epochs=1, **changes)


@pytest.fixture(scope="module")
def path(digits: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of arrays in memory; tests must not change it."""
    run = tmp_path_factory.mktemp("memory") / "run"
    vaekit.train(memory_config(run), *digits)
    return run


def test_arrays_are_trained_on_and_go_through_every_stage(
    digits: tuple[Any, Any], tmp_path: Path
) -> None:
    run = vaekit.train(memory_config(tmp_path / "run"), images=digits[0], labels=digits[1])
    vaekit.extract_latents(run)
    vaekit.fit_svm(run, vaekit.SvmConfig())
    assert run.config.data.name == "arrays"
    assert len(run.latents.train) == 108
    assert len(run.latents.test) == 12
    assert set(run.predict(digits[0]).names) <= {*"0123456789"}
    page = run._repr_html_()
    assert page.count("data:image/png;base64,") == 2
    assert "epoch 1 of 1, test loss" in page
    assert "SVM accuracy" in page


@pytest.mark.slow
def test_a_run_of_arrays_is_that_of_the_same_arrays_in_a_file(
    path: Path, digits: tuple[Any, Any], tmp_path: Path
) -> None:
    np.savez(tmp_path / "set.npz", images=digits[0], labels=digits[1])
    data = DataConfig(name="arrays", root=str(tmp_path / "set.npz"))
    vaekit.train(tiny_config(tmp_path / "run", data=data, epochs=1))
    for name in ("model.safetensors", "images.json"):
        assert (tmp_path / "run" / name).read_bytes() == (path / name).read_bytes(), name
    assert len(vaekit.Run(path, tmp_path / "set.npz").images.train.pixels) == 108


@pytest.mark.slow
def test_who_needs_the_images_is_told_how_to_pass_them(
    path: Path, digits: tuple[Any, Any], refused: Refused
) -> None:
    with pytest.raises(UserError) as error:
        vaekit.extract_latents(vaekit.Run(path))
    assert "trained on arrays in memory; give them again, as vaekit.Run(" in str(error.value)
    assert "say where with data.root set.npz" in str(error.value)
    assert "and say where with --data.root set.npz" in refused("latents", path)
    again = refused("train", "--config", path / "config.yaml")
    assert "the images were arrays in memory; give them to vaekit.train again" in again
    with pytest.raises(UserError, match="images: other images, labels or classes"):
        vaekit.Run(path, images=digits[0][::-1].copy(), labels=digits[1]).images
    run = vaekit.Run(path, images=digits[0], labels=digits[1].tolist())
    assert len(run.images.test.pixels) == 12


def test_a_run_of_arrays_goes_on_where_it_stopped(
    path: Path, digits: tuple[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    vaekit.train(memory_config(path), *digits)
    assert "6 in all, 6 of them done" in capsys.readouterr().out
    with pytest.raises(UserError, match="other images, labels or classes"):
        vaekit.train(memory_config(path), 255 - digits[0], digits[1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, y: (x / 255, y), "float64 from 0 to 1, expected uint8"),
        (lambda x, y: (x[0, 0], y), r"has the shape \[28\], expected \[N, H, W\]"),
        (lambda x, y: (x[:0], y), "holds none; give one or more"),
        (lambda x, y: (list(x), y), "of the type list, expected a NumPy array"),
        (lambda x, y: (x, y[:5]), "expected one label for each of 120 images"),
        (lambda x, y: (x, y / 2), "labels is float64, expected whole numbers or words"),
        (lambda x, y: (x[:, :4, :4], y), "data.image_size 4: expected at least 8"),
    ],
    ids=["floats", "no images", "none", "list", "few labels", "half labels", "tiny"],
)
def test_arrays_that_are_no_images_are_refused_and_nothing_is_written(
    digits: tuple[Any, Any], tmp_path: Path, change: Any, words: str
) -> None:
    with pytest.raises(UserError, match=words) as error:
        vaekit.train(memory_config(tmp_path / "run"), *change(*digits))
    assert "--" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_images_of_a_set_and_arrays_are_not_both_taken(
    digits: tuple[Any, Any], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"^data\.name digits: images are given as arrays"):
        vaekit.train(tiny_config(tmp_path / "run"), *digits)


@pytest.mark.slow
@pytest.mark.parametrize("is_labelled", [True, False], ids=["labelled", "unlabelled"])
@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])
def test_every_method_takes_every_kind_of_set(
    channels: int, is_labelled: bool, tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 12, channels), np.uint8)
    labels = np.arange(60) % 3 if is_labelled else None
    config = memory_config(tmp_path / "run", model=vaekit.ModelConfig(width=2))
    run = vaekit.train(config, images, labels)
    vaekit.extract_latents(run)
    shape = (channels, 8, 12)
    assert run.encode(images).mean.shape == (60, run.weights.vae.latent_dim)
    assert run.reconstruct(images[:2]).shape == (2, *shape)
    assert run.interpolate(images[0], images[1], steps=3).shape == (3, *shape)
    assert run.decode(run.encode(images[:2]).mean).shape == run.sample(2).shape == (2, *shape)
    assert run.score(images).distance.shape == (60,)
    assert run.neighbours(images[:2], k=3).indices.shape == (2, 3)
    assert run.evaluate(samples=2, images=2)["likelihood"]["num_images"] == 2
    frame = run.latents.to_pandas()
    assert len(frame) == 60
    assert ("label" in frame) == is_labelled
    if is_labelled:
        vaekit.fit_svm(run, vaekit.SvmConfig())
        assert set(run.predict(images).names) <= {"0", "1", "2"}
        assert len(run.suspect_labels().rows) == 60
    else:
        with pytest.raises(UserError, match="without labels"):
            run.predict(images)
        with pytest.raises(UserError, match="no labels"):
            run.suspect_labels()
    assert run._repr_html_().count("data:image/png;base64,") >= 2


def test_a_run_is_evaluated_as_by_the_command_and_nothing_is_written(finished_run: Path) -> None:
    run = vaekit.Run(finished_run)
    before = sorted(path.stat().st_mtime_ns for path in finished_run.rglob("*"))
    measured = run.evaluate(samples=3, images=10)
    assert sorted(path.stat().st_mtime_ns for path in finished_run.rglob("*")) == before
    assert measured["probes"] == run.evaluation["probes"]
    assert measured["likelihood"] == pytest.approx(run.evaluation["likelihood"])
    with pytest.raises(UserError, match="samples 0: expected at least 1"):
        run.evaluate(samples=0)


def test_latents_are_a_data_frame(finished_run: Path) -> None:
    latents = vaekit.Run(finished_run).latents
    frame = latents.to_pandas(log_variances=True)
    assert [*frame] == [
        *("split", "row", "label", "class_name", "z1", "z2", "z3"),
        *(f"z{number}_log_variance" for number in (1, 2, 3)),
    ]
    train = frame[frame.split == "train"]
    np.testing.assert_array_equal(train.iloc[:, -6:].to_numpy(), latents.train)
    assert train.label.tolist() == train.class_name.astype(int).tolist()
    assert train.label.tolist() == latents.train_labels.tolist()  # type: ignore[union-attr]
    old = latents._replace(rows=())
    pandas.testing.assert_frame_equal(old.to_pandas(), latents.to_pandas())


@pytest.mark.slow
def test_pandas_is_wanted_for_a_frame_alone_and_named_where_it_is_missing(
    finished_run: Path,
) -> None:
    code = (
        f"import sys, vaekit; sys.modules['pandas'] = None; "
        f"vaekit.Run({str(finished_run)!r}).latents.to_pandas()"
    )
    result = run_command([sys.executable, "-c", code])
    assert "UserError: to_pandas: pandas is not installed; `pip install pandas`" in result.stderr


def test_a_notebook_shows_pictures_and_what_there_is_to_say_in_any_state(
    finished_run: Path, tmp_path: Path
) -> None:
    page = vaekit.Run(finished_run)._repr_html_()
    assert page.count("data:image/png;base64,") == 5
    assert "epoch 2 of 2" in page
    nowhere = vaekit.Run(tmp_path / "<no run>")._repr_html_()
    assert "&lt;no run&gt;" in nowhere
    assert "not a run folder" in nowhere


@pytest.mark.parametrize("name", vaekit.__all__)
def test_every_public_name_says_what_it_is(name: str) -> None:
    public = getattr(vaekit, name)
    assert callable(public)
    assert (public.__doc__ or "").strip()
    if inspect.isclass(public):
        members = (value for key, value in vars(public).items() if not key.startswith("_"))
        assert all(inspect.getdoc(value) for value in members if inspect.isfunction(value))


def test_settings_are_made_and_refused_without_torch() -> None:
    code = (
        "import sys, vaekit; vaekit.TrainConfig(data=vaekit.DataConfig(), epochs=3); "
        "assert 'torch' not in sys.modules; vaekit.ModelConfig(latent_dim=0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.stderr.splitlines()[-1].endswith(
        "UserError: model.latent_dim 0: expected at least 1"
    )


def test_train_is_a_function_however_it_was_imported() -> None:
    import vaekit.train as module

    assert callable(vaekit.train)
    assert callable(module)
