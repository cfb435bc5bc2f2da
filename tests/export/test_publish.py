"""What is published is read back bit for bit, and says nothing of the machine."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from damage_helpers import Refused
from huggingface_hub import ModelCard
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

import vaekit
from vaekit.errors import UserError
from vaekit.export import publish as module
from vaekit.export.publish import publish
from vaekit.export.verify import verify
from vaekit.runs import hub
from vaekit.runs.run import Run

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def published(exported_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run, folder = tmp_path_factory.mktemp("run") / "run", tmp_path_factory.mktemp("hub") / "digits"
    shutil.copytree(exported_run, run)
    for stray in ("onnx/mine.pkl", "svm/mine.pkl", "mine.pkl"):  # beside what vaekit made
        (run / stray).write_bytes(b"secret")
    publish(Run(run), str(folder))
    return folder


def test_a_published_run_is_read_back_bit_for_bit(published: Path, exported_run: Path) -> None:
    run, original = vaekit.Run.from_hub(str(published)), Run(exported_run)
    images = original.images.test.pixels
    for name, tensor in original.weights.vae.state_dict().items():
        assert run.weights.vae.state_dict()[name].equal(tensor), name
    for found, expected in zip(run.encode(images), original.encode(images), strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(run.predict(images).scores, original.predict(images).scores)
    np.testing.assert_array_equal(run.sample(4), original.sample(4))
    assert run.metrics == original.metrics
    assert run.config.model == original.config.model
    assert "test loss" in run._repr_html_()


def test_its_layout_is_what_the_hub_knows(published: Path) -> None:
    names = {path.relative_to(published).as_posix() for path in published.rglob("*")}
    assert {
        *("README.md", "config.json", "preprocessor_config.json", "model.safetensors"),
        *("config.yaml", "onnx/encoder.onnx", "onnx/manifest.json", "svm/svm.safetensors"),
        *("samples/epoch-002.png", "reconstructions/epoch-002.png", "figures/tsne.png"),
    } <= names
    assert not [name for name in names if name.endswith((".pkl", ".pt", ".bin", ".npy"))]
    settings = json.loads((published / "config.json").read_text())
    assert settings["id2label"]["3"] == "3"
    assert settings["image_size"] == [28, 28]
    preparation = json.loads((published / "preprocessor_config.json").read_text())
    assert preparation["size"] == {"height": 28, "width": 28}
    verify(published / "onnx")


def test_nothing_published_names_a_place_of_the_machine(published: Path) -> None:
    for path in published.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for place in (str(published.parent), str(Path.home()), "/tmp/", "pytest-of"):
                assert place.encode() not in content, (path, place)


def test_the_card_shows_figures_pictures_and_use(published: Path, exported_run: Path) -> None:
    card = ModelCard.load(published / "README.md")
    assert card.data.library_name == "vaekit"
    accuracy = Run(exported_run).svm_metrics["accuracy"]
    assert card.data.eval_results[0].metric_value == pytest.approx(accuracy)
    assert f"{accuracy:.4f}" in card.text
    assert "vaekit.Run.from_hub(" in card.text
    for link in ("samples/epoch-002.png", "figures/confusion.png", "onnx/README.md"):
        assert f"]({link})" in card.text
        assert (published / link).exists()


def test_an_unlabelled_run_is_published_without_classes(
    unlabelled_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: Path
) -> None:
    """By the facts of its own, and the bundle of another: making one takes a while."""
    monkeypatch.setattr(module, "require_bundle", lambda run: bundle)
    publish(Run(unlabelled_run), str(tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["id2label"] == {}
    assert not (tmp_path / "out" / "svm").exists()
    assert vaekit.Run.from_hub(str(tmp_path / "out")).encode(Run(unlabelled_run).images.test.pixels)


class Api:
    """A Hub in a folder."""

    def __init__(self, place: Path, error: Exception | None = None) -> None:
        self.place, self.error, self.calls = place, error, 0

    def __call__(self, **_: object) -> "Api":
        return self

    def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> None:
        self.calls += 1
        if self.error is not None:
            raise self.error
        assert private
        (self.place / name).mkdir(parents=True)

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> Any:
        shutil.copytree(folder_path, self.place / repo_id / COMMIT)
        return SimpleNamespace(oid=COMMIT, repo_url=f"https://hub/{repo_id}")


def test_nothing_leaves_the_machine_that_is_not_listed_and_asked_for(
    exported_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    api = Api(tmp_path)
    monkeypatch.setattr(module, "HfApi", api)
    publish(Run(exported_run), "somebody/digits")
    listed = capsys.readouterr().out
    assert "  onnx/encoder.onnx\n" in listed
    assert "nothing was uploaded" in listed
    assert api.calls == 0
    publish(Run(exported_run), "somebody/digits", upload=True)
    assert f"revision='{COMMIT}'" in capsys.readouterr().out
    assert not list(exported_run.glob(".tmp*"))
    files = [line.split()[1] for line in listed.splitlines() if line.startswith(" ")]
    place = tmp_path / "somebody" / "digits" / COMMIT
    assert files == sorted(
        path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()
    )

    def snapshot_download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        assert (name, revision) == ("somebody/digits", COMMIT)
        assert not any(pattern.endswith(("pkl", "bin", "pt")) for pattern in allow_patterns)
        return str(place)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    run = vaekit.Run.from_hub("somebody/digits", revision=COMMIT)
    np.testing.assert_array_equal(run.sample(2), Run(exported_run).sample(2))


@pytest.mark.slow
def test_what_the_hub_refuses_is_one_line(
    exported_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    response: Any = SimpleNamespace(headers={}, request=None, status_code=401)
    error = HfHubHTTPError("401 Unauthorized\nlog in", response=response)
    monkeypatch.setattr(module, "HfApi", Api(tmp_path, error))
    line = refused("publish", exported_run, "--to", "somebody/digits", "--upload")
    assert "--to somebody/digits: the Hub did not take it (401 Unauthorized log in); log in" in line
    assert not list(exported_run.glob(".tmp*"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "somebody/nothing",
            r"somebody/nothing: no such folder, and the Hub does not give it \(no",
        ),
        ("not a name", "not a name: no such folder, and the Hub does not give it"),
    ],
)
def test_a_name_that_is_not_there_and_no_network_are_one_line(
    name: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def snapshot_download(name: str, **_: object) -> str:
        raise LocalEntryNotFoundError("no network,\nand nothing cached")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(UserError, match=words):
        vaekit.Run.from_hub(name)


def test_what_is_fetched_can_hold_no_code() -> None:
    assert not {"*", "*.pkl", "*.pt", "*.bin", "*.py", "*.npy", "*.ckpt"} & {*hub.FILES}


@pytest.mark.slow
def test_what_is_not_whole_is_not_published(
    exported_run: Path, tmp_path: Path, refused: Refused
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(exported_run, run)
    (run / "onnx" / "encoder.onnx").write_bytes(b"another")
    assert "encoder.onnx" in refused("publish", run, "--to", out)
    shutil.rmtree(run / "onnx")
    assert "no bundle yet" in refused("publish", run, "--to", out)
    assert not out.exists()
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    assert "it is there already" in refused("publish", exported_run, "--to", out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
