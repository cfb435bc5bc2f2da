"""Every file that a stage reads, damaged in every way: named in one line, and nothing harmed."""

import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from conftest import TINY_FLAGS
from damage_helpers import (
    DAMAGES,
    Damage,
    Refused,
    data_flipped,
    deleted,
    emptied,
    flip,
    header_flipped,
    made_a_dangling_link,
    made_a_pipe,
    snapshot,
    truncated,
)

from vaekit.cli import main
from vaekit.config import TrainConfig, trajectory_differences
from vaekit.errors import UserError
from vaekit.runs.run import Run
from vaekit.settings import read_config

# The quickest stage that reads a file, and then the others.
READERS = {
    "config.yaml": ["generate", "svm", "latents", "report", "export"],
    "model.safetensors": ["generate", "svm", "latents", "report", "export"],
    "metrics.jsonl": ["report", "export"],
    "environment.json": ["report"],
    "baselines/baselines.json": ["svm", "report"],
    "baselines/train_scores.npy": ["svm"],
    "baselines/test_scores.npy": ["svm"],
    "latents/latents.json": ["svm", "report", "export"],
    "latents/train_latents.npy": ["svm", "report", "export"],
    "latents/train_labels.npy": ["svm", "report", "export"],
    "latents/test_latents.npy": ["svm", "report", "export"],
    "latents/test_labels.npy": ["svm", "report", "export"],
    "latents/index.parquet": ["svm", "report", "export"],
    "svm/svm.safetensors": ["predict", "report", "export"],
    "svm/metrics.json": ["report", "export"],
    "evaluation/evaluation.json": ["report"],
    "samples/epoch-001.png": ["report"],
    "figures/tsne.safetensors": ["report", "export"],
}

# What a stage can do without, or makes anew.
NO_HARM = {
    *(("metrics.jsonl", damage) for damage in (deleted, emptied, made_a_dangling_link)),
    ("environment.json", deleted),
    ("environment.json", made_a_dangling_link),
    *(("baselines/baselines.json", damage) for damage in (deleted, made_a_dangling_link)),
    *(("evaluation/evaluation.json", damage) for damage in (deleted, made_a_dangling_link)),
    ("samples/epoch-001.png", deleted),
    ("samples/epoch-001.png", made_a_dangling_link),
    *(("figures/tsne.safetensors", damage) for damage in (deleted, made_a_dangling_link)),
    ("figures/tsne.safetensors", made_a_pipe),
}

# What an SVM takes for latents that were never made to their end, and makes.
REMADE = {("latents/latents.json", "svm", damage) for damage in (deleted, made_a_dangling_link)}


def cases() -> Iterator[object]:
    """A report takes a second or two, so few of the quick ones are on it."""
    for name, stages in READERS.items():
        for stage, damage in product(stages, DAMAGES):
            if (name, damage) in NO_HARM or (name, stage, damage) in REMADE:
                continue
            is_quick = stage == stages[0] and (
                stage != "report" or damage in (truncated, data_flipped)
            )
            marks = [] if is_quick else [pytest.mark.faults]
            yield pytest.param(
                name, stage, damage, marks=marks, id=f"{name}-{stage}-{damage.__name__}"
            )


@pytest.mark.parametrize(("name", "stage", "damage"), [*cases()])
@pytest.mark.injects(5)
def test_a_damaged_file_is_named_and_the_rest_is_as_it_was(
    name: str, stage: str, damage: Damage, run: Path, tmp_path: Path, refused: Refused
) -> None:
    image = tmp_path / "image.png"
    shutil.copy(run / "samples" / "epoch-000.png", image)
    damage(run / name)
    before = snapshot(run)
    more = {"predict": [image], "generate": ["--output", tmp_path / "grid.png"]}
    line = refused(stage, run, *more.get(stage, []))
    assert Path(name).name in line or str((run / name).parent) in line
    assert snapshot(run) == before
    assert not (tmp_path / "grid.png").exists()


@pytest.mark.parametrize("damage", [deleted, made_a_dangling_link], ids=lambda each: each.__name__)
@pytest.mark.injects(5)
def test_what_a_report_can_do_without_stops_no_report(damage: Damage, run: Path) -> None:
    for name in sorted({name for name, each in NO_HARM if each is damage}):
        damage(run / name)
    main(["report", str(run)])
    assert (run / "figures" / "tsne.safetensors").is_file()


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize(
    "name", ["manifest.json", "golden.json", "encoder.onnx", "classifier.onnx", "README.md"]
)
@pytest.mark.injects(5)
def test_a_damaged_bundle_is_refused_and_left_as_it_is(
    name: str, damage: Damage, bundle: Path, refused: Refused
) -> None:
    damage(bundle / name)
    before = snapshot(bundle)
    assert str(bundle) in refused("export", bundle, "--check")
    assert snapshot(bundle) == before


@pytest.mark.parametrize(
    "damage",
    [truncated, emptied, header_flipped, data_flipped, deleted, made_a_dangling_link],
    ids=lambda damage: damage.__name__,
)
@pytest.mark.injects(5)
def test_training_goes_on_from_the_checkpoint_before_a_damaged_one_and_says_so(
    damage: Damage, finished_run: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, newest = sorted((run / "checkpoints").iterdir())
    damage(newest)
    main(["train", *TINY_FLAGS, "--run", str(run)])
    said = capsys.readouterr()
    if damage is not deleted:
        (warning,) = [line for line in said.err.splitlines() if "warning" in line]
        assert newest.name in warning
        assert "resuming from the one before" in warning
    assert f"{int(before.stem.removeprefix('step-'))} of them done" in said.out
    assert (run / "model.safetensors").read_bytes() == (
        finished_run / "model.safetensors"
    ).read_bytes()


@pytest.mark.injects(5)
def test_where_every_checkpoint_is_damaged_training_stops_and_touches_none(
    run: Path, refused: Refused
) -> None:
    for path in (run / "checkpoints").iterdir():
        data_flipped(path)
    before = snapshot(run)
    line = refused("train", *TINY_FLAGS, "--run", run)
    assert "none of the 2 checkpoints can be read" in line
    assert snapshot(run) == before


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.faults)])
@pytest.mark.injects(5)
def test_any_flipped_bit_of_a_config_is_refused_or_seen_by_training(
    stride: int, finished_run: Path, tmp_path: Path
) -> None:
    """It is a file for people, without a hash: the checkpoints hold what it must say."""
    path, whole = tmp_path / "config.yaml", (finished_run / "config.yaml").read_bytes()
    path.write_bytes(whole)
    config = read_config(TrainConfig, path)
    harmless = (b"run:", b"  root:", b"sample_every:", b"checkpoint_every:", b"tracker:")
    offset = 0
    for line in whole.splitlines(keepends=True):
        for index in range(0, len(line), stride):
            if line.startswith(harmless):
                continue
            path.write_bytes(whole)
            flip(path, offset + index, bit=index % 7)
            try:
                found = read_config(TrainConfig, path)
            except UserError:
                continue
            changed = found != config
            assert bool(trajectory_differences(config, found)) == changed
        offset += len(line)


@pytest.mark.injects(6)
def test_stray_files_links_and_folders_in_a_run_are_left_alone(run: Path) -> None:
    for folder in (run, *(path for path in run.iterdir() if path.is_dir())):
        (folder / "notes ü.txt").write_text("mine")
        (folder / "loop").symlink_to(".")
        (folder / "empty").mkdir()
    main(["svm", str(run)])
    main(["report", str(run)])
    for folder in (run, *(path for path in run.iterdir() if path.is_dir())):
        if folder.name in ("empty", "loop"):
            continue
        assert (folder / "notes ü.txt").read_text() == "mine"
        assert (folder / "loop").is_symlink()
        assert (folder / "empty").is_dir()


@pytest.mark.injects(6)
def test_no_stage_writes_through_a_link_that_lies_where_it_writes(
    run: Path, tmp_path: Path
) -> None:
    """As in a run folder of a stranger, who wants a file of ours overwritten."""
    target = tmp_path / "of mine"
    target.write_text("precious")
    places = [path for path in run.rglob("*") if path.parent.name in ("latents", "svm")]
    for path in places:
        temporary = path.with_name(f".tmp-{path.name}")
        temporary.symlink_to(target)
    (run / "latents" / ".parts-train_latents.npy").symlink_to(tmp_path)
    before = sorted(tmp_path.iterdir())
    main(["latents", str(run)])
    main(["svm", str(run)])
    assert target.read_text() == "precious"
    assert sorted(tmp_path.iterdir()) == before
    assert Run(run).weights.class_names[0] == "0"
