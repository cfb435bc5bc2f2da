"""What every stage refuses of a run, in one line that says what to do; it harms nothing."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_FLAGS
from damage_helpers import Refused, snapshot

from vaekit.config import SvmConfig
from vaekit.doctor.runs import examine_run
from vaekit.errors import UserError
from vaekit.report.page import measure_missing_baselines
from vaekit.runs.folder import RunFolder
from vaekit.runs.products import BASELINES, PRODUCTS
from vaekit.runs.run import Run
from vaekit.runs.weights import write_weights
from vaekit.stages.latents import extract_latents
from vaekit.stages.svm import fit_svm
from vaekit.storage.files import file_sha256, read_json
from vaekit.storage.sealed import write_sealed

WRITERS = ("latents", "svm", "report", "evaluate", "export")


@pytest.mark.parametrize("stage", [*WRITERS, "generate", "encode", "publish --to new"])
def test_a_folder_that_is_no_run_is_not_made(stage: str, refused: Refused, tmp_path: Path) -> None:
    verb, *more = stage.split()
    line = refused(verb, tmp_path / "none", *more)
    assert "none: not a run folder (no config.yaml); make one with `vaekit train --run" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stage", ["train", *WRITERS])
@pytest.mark.injects(7)
def test_a_run_folder_in_use_is_left_to_who_writes_to_it(
    stage: str, run: Path, refused: Refused
) -> None:
    arguments = [*TINY_FLAGS, "--run", run] if stage == "train" else [run]
    before = snapshot(run)
    with RunFolder(run).lock():
        line = refused(stage, *arguments)
    assert f"{run}: another process is writing to this run folder" in line
    assert snapshot(run) == before


FILES = {
    "weights": "model.safetensors",
    "latents": "latents/latents.json",
    "svm": "svm/svm.safetensors",
    "svm_metrics": "svm/metrics.json",
    "evaluation": "evaluation/evaluation.json",
}
TRAIN = "no weights yet; make them with `vaekit train --config {run}/config.yaml --run {run}`"
LATENTS, FIT = "make them with `vaekit latents {run}`", "make it with `vaekit svm {run}`"
EVALUATE = "not evaluated yet; do it with `vaekit evaluate {run}`"


def refusals(refused: Refused, stages: str, run: Path) -> Iterator[str]:
    """What each of these stages says."""
    for stage in stages.split():
        images = [run / "samples" / "epoch-000.png"] if stage == "predict" else []
        yield refused(stage, run, *images)


@pytest.mark.parametrize(
    ("part", "stages", "remedy"),
    [
        ("weights", "latents report generate export", TRAIN),
        ("latents", "encode", LATENTS),
        ("svm", "predict", FIT),
        ("svm_metrics", "", FIT),
        ("evaluation", "", EVALUATE),
    ],
)
def test_what_is_not_there_yet_is_named_with_the_command_that_makes_it(
    part: str, stages: str, remedy: str, run: Path, refused: Refused
) -> None:
    (run / FILES[part]).unlink()
    before, words = snapshot(run), remedy.format(run=run)
    with pytest.raises(UserError, match=re.escape(words)):
        getattr(Run(run), part)
    assert all(words in line for line in refusals(refused, stages, run))
    assert snapshot(run) == before


def other_weights(path: Path) -> None:
    run = Run(path)
    weights = run.weights
    torch.nn.init.zeros_(weights.vae.enc.mu.bias)
    write_weights(run.folder, weights.vae, weights.class_names, weights.images_sha256)
    measure_missing_baselines(Run(path))  # which a report would do, before it reads the rest


def other_weights_with_their_latents(path: Path) -> None:
    other_weights(path)
    extract_latents(Run(path))


def other_latents(path: Path) -> None:
    array, metadata = path / "latents" / "test_latents.npy", path / "latents" / "latents.json"
    np.save(array, np.load(array)[::-1])
    recorded = read_json(metadata)
    recorded["files"][array.name] = file_sha256(array)
    write_sealed(metadata, recorded)


def another_svm(path: Path) -> None:
    metrics = (path / "svm" / "metrics.json").read_bytes()
    fit_svm(Run(path), SvmConfig(C=1.0))
    (path / "svm" / "metrics.json").write_bytes(metrics)


FIT_AGAIN, MEASURE = "make it again with `vaekit svm {run}`", "measure anew with `vaekit svm {run}`"
ENCODE_AND_FIT = "make it again with `vaekit latents {run}` and `vaekit svm {run}`"
EVALUATE_AGAIN = "measure anew with `vaekit evaluate {run}`"
# What is made of what; how that becomes another one; the stages that read it before all else that
# was made of it; and the remedy.
MADE_OF_OTHERS = [
    ("latents", "weights", other_weights, "svm report encode", LATENTS),
    ("svm", "weights", other_weights_with_their_latents, "predict export", ENCODE_AND_FIT),
    ("svm", "latents", other_latents, "", FIT_AGAIN),
    ("svm_metrics", "svm", another_svm, "report", MEASURE),
    ("svm_metrics", "latents", other_latents, "report", MEASURE),
    ("evaluation", "weights", other_weights_with_their_latents, "", EVALUATE_AGAIN),
    ("evaluation", "latents", other_latents, "", EVALUATE_AGAIN),
]


def test_all_that_is_made_of_something_is_in_the_table() -> None:
    """But baselines: those of other weights are measured anew."""
    assert {(FILES[part], origin) for part, origin, *_ in MADE_OF_OTHERS} == {
        (product.files, origin)
        for product in PRODUCTS
        for origin in product.made_of
        if product is not BASELINES
    }


@pytest.mark.parametrize(("part", "origin", "change", "stages", "remedy"), MADE_OF_OTHERS)
@pytest.mark.injects(8)
def test_what_was_made_of_another_is_refused_by_the_run_its_stages_and_the_doctor(
    part: str,
    origin: str,
    change: Callable[[Path], None],
    stages: str,
    remedy: str,
    run: Path,
    refused: Refused,
) -> None:
    change(run)
    before = snapshot(run)
    other = "another SVM" if origin == "svm" else f"other {origin}"
    words = f"made from {other} than the run has now; {remedy.format(run=run)}"
    if (part, origin) != ("svm", "latents"):  # it is of use without them, as in a published run
        with pytest.raises(UserError, match=re.escape(words)):
            getattr(Run(run), part)
    assert all(words in line for line in refusals(refused, stages, run))
    (found,) = [each for each in examine_run(run) if each.subject == FILES[part]]
    assert (found.verdict, found.text) == ("problem", words)
    assert snapshot(run) == before
