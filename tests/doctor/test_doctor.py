"""The doctor finds what is wrong with a run or a machine, names a remedy, and touches nothing."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import yaml
from conftest import assert_one_line_error, tiny_config, vaekit
from cuml_helpers import UnusableSVC, play_cuml
from damage_helpers import (
    data_flipped,
    emptied,
    made_a_dangling_link,
    made_a_folder,
    snapshot,
    truncated,
)
from image_helpers import flip_a_bit, write_pets
from rank_helpers import run_ranks

from vaekit.cli import main
from vaekit.config import DataConfig
from vaekit.doctor.findings import Finding, as_lines
from vaekit.doctor.runs import examine_run
from vaekit.errors import UserError
from vaekit.export.manifest import MANIFEST
from vaekit.images.sets import load_images
from vaekit.runs.checkpoints import load_checkpoint, save_checkpoint
from vaekit.runs.folder import RunFolder
from vaekit.runs.run import Run
from vaekit.runs.svm import read_table, write_table
from vaekit.runs.weights import write_weights
from vaekit.stages.latents import extract_latents
from vaekit.storage.arrays import write_array
from vaekit.storage.files import file_sha256, read_json
from vaekit.storage.sealed import write_sealed

# What nothing can be checked without: other files are judged by what these say.
ROOTS = {
    *("config.yaml", "baselines/baselines.json", "latents/latents.json"),
    *("onnx/manifest.json", "onnx-fp16/manifest.json"),
}
NOT_NEEDED = {"environment.json", "report.html"}  # and pictures: a run is whole without them


class Told(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(exported_run: Path, tmp_path: Path) -> Path:
    """A run with every stage done, which a test may damage."""
    shutil.copytree(exported_run, tmp_path / "run")
    shutil.copytree(exported_run / "onnx", tmp_path / "run" / "onnx-fp16")  # a bundle as well
    return tmp_path / "run"


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    """`vaekit doctor ARGUMENTS`."""

    def tell(*arguments: object) -> Told:
        capsys.readouterr()
        code = 0
        try:
            main(["doctor", *map(str, arguments)])
        except SystemExit as stop:
            code = int(str(stop.code))
        return Told(code, *capsys.readouterr())

    return tell


def of(findings: list[Finding], subject: str) -> Finding:
    """The one finding on `subject`."""
    (finding,) = [each for each in findings if each.subject == subject]
    return finding


def by_verdict(findings: list[Finding], verdict: str) -> set[str]:
    return {each.subject for each in findings if each.verdict == verdict}


def files_of(run: Path) -> dict[str, Path]:
    """Every file that belongs to the run, by the name the doctor gives it."""
    found = {str(path.relative_to(run)): path for path in run.rglob("*") if path.is_file()}
    del found[".lock"]
    return found


def state_of(folder: Path) -> dict[Path, tuple[int, int, bytes]]:
    return {
        path: (path.lstat().st_mode, path.lstat().st_mtime_ns, content_of(path))
        for path in folder.rglob("*")
    }


def content_of(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() and not path.is_symlink() else b""


DAMAGES = [truncated, data_flipped, emptied, made_a_folder, made_a_dangling_link]


def test_a_whole_run_is_told_file_by_file_and_in_one_line(
    run: Path, doctor: Callable[..., Told]
) -> None:
    findings = examine_run(run)
    assert by_verdict(findings, "ok") == set(files_of(run))
    assert len(findings) == len(files_of(run))
    told = doctor(run)
    assert (told.code, told.err) == (0, "")
    *lines, last = told.out.splitlines()
    assert last == f"{run}: all {len(findings)} files are whole"
    assert lines == as_lines(findings)


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.injects(5)
def test_every_damaged_file_is_listed_and_nothing_is_touched(
    damage: Callable[[Path], None], run: Path, doctor: Callable[..., Told]
) -> None:
    files = {name: path for name, path in files_of(run).items() if name not in ROOTS}
    if damage is data_flipped:  # in text that has no hash it may well be a valid letter
        files = {name: path for name, path in files.items() if name not in NOT_NEEDED}
    for path in files.values():
        damage(path)
    before = state_of(run)
    told = doctor(run)
    findings = examine_run(run)
    assert by_verdict(findings, "problem") >= set(files)
    assert all(f in by_verdict(findings, "ok") for f in ROOTS)
    assert told.code == 2
    assert [line for line in told.out.splitlines() if line] == as_lines(findings)
    (line,) = told.err.splitlines()
    assert line.startswith(f"vaekit: error: {run}: {len(files)} problems")
    assert state_of(run) == before


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.injects(5)
def test_damage_to_what_the_others_are_judged_by_is_listed_too(
    damage: Callable[[Path], None], run: Path
) -> None:
    for name in ROOTS:
        damage(run / name)
    findings = examine_run(run)
    assert by_verdict(findings, "problem") >= ROOTS
    assert "not examined" in of(findings, "latents/train_latents.npy").text
    assert "not examined" in of(findings, "onnx/encoder.onnx").text
    assert of(findings, "svm/svm.safetensors").verdict == "ok"


def test_every_missing_file_is_listed_with_what_makes_it_again(run: Path) -> None:
    kept = ROOTS | {name for name in files_of(run) if name.startswith("checkpoints")}
    for name, path in files_of(run).items():
        if name not in kept:
            path.unlink()
    findings = examine_run(run)
    train = RunFolder(run).train_again
    for name, remedy in {
        "metrics.jsonl": f"make it again with `{train}`",
        "model.safetensors": f"make it again with `{train}`",
        "latents/train_latents.npy": f"`vaekit latents {run}`",
        "latents/test_labels.npy": f"`vaekit latents {run}`",
        "onnx/encoder.onnx": f"`vaekit export {run}`",
        "onnx-fp16/golden.json": f"`vaekit export {run} --weights fp16`",
    }.items():
        finding = of(findings, name)
        assert finding.verdict == "problem"
        assert finding.text.startswith("missing; ")
        assert remedy in finding.text


def test_a_run_without_its_config_is_still_examined(run: Path) -> None:
    (run / "config.yaml").unlink()
    data_flipped(run / "model.safetensors")
    findings = examine_run(run)
    assert by_verdict(findings, "problem") == {"config.yaml", "model.safetensors"}
    assert "put a good copy there" in of(findings, "config.yaml").text


@pytest.mark.slow
def test_each_stage_refuses_what_is_called_a_problem(run: Path) -> None:
    folder = RunFolder(run)
    for name, read in {
        "config.yaml": folder.require_config,
        "metrics.jsonl": lambda: Run(folder.path).metrics,
        "environment.json": lambda: Run(folder.path).environment,
        "model.safetensors": lambda: Run(folder.path).weights,
        "latents/test_latents.npy": lambda: Run(folder.path).latents,
        "latents/latents.json": lambda: Run(folder.path).latents,
        "svm/svm.safetensors": lambda: Run(folder.path).svm,
        "svm/metrics.json": lambda: Run(folder.path).svm_metrics,
    }.items():
        content = (run / name).read_bytes()
        truncated(run / name)
        finding = of(examine_run(run), name)
        assert finding.verdict == "problem"
        with pytest.raises(UserError, match=re.escape(finding.text)):
            read()
        (run / name).write_bytes(content)
    assert not by_verdict(examine_run(run), "problem")


def test_a_damaged_checkpoint_names_the_one_from_which_training_goes_on(run: Path) -> None:
    older, newer = sorted((run / "checkpoints").iterdir())
    data_flipped(newer)
    findings = examine_run(run)
    assert of(findings, f"checkpoints/{older.name}").verdict == "ok"
    damaged = of(findings, f"checkpoints/{newer.name}")
    assert damaged.verdict == "problem"
    assert f"`{RunFolder(run).train_again}` goes on from step 6" in damaged.text
    data_flipped(older)
    assert "none is whole" in of(examine_run(run), f"checkpoints/{newer.name}").text


def test_a_renamed_checkpoint_and_one_of_another_model_are_found(run: Path) -> None:
    older, newer = sorted((run / "checkpoints").iterdir())
    checkpoint = load_checkpoint(newer)
    newer.rename(newer.with_name("step-00000099.safetensors"))
    del checkpoint.tensors["ema.enc.mu.bias"]
    save_checkpoint(run / "checkpoints", checkpoint._replace(step=6))
    findings = examine_run(run)
    assert "holds step 12" in of(findings, "checkpoints/step-00000099.safetensors").text
    assert "ema.enc.mu.bias" in of(findings, f"checkpoints/{older.name}").text


def test_settings_that_are_not_those_of_the_checkpoints_are_named(run: Path) -> None:
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings |= {"seed": 5, "sample_every": 2}  # the second changes no weight
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    findings = examine_run(run)
    names = {name for name in files_of(run) if name.startswith("checkpoints/")}
    assert by_verdict(findings, "problem") == names
    assert "(seed: 0 -> 5); put the right config.yaml back" in of(findings, min(names)).text


def test_weights_of_another_model_than_the_configs_are_found(run: Path) -> None:
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["model"]["latent_dim"] = 4
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    assert "of another model than config.yaml" in of(examine_run(run), "model.safetensors").text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[1].update(test_loss=1.0), "other figures than in the checkpoint"),
        (lambda rows: rows.pop(), "other figures than in the checkpoint"),
        (lambda rows: rows.pop(1), "not as vaekit writes it"),
        (lambda rows: rows[2].update(step=11), "line 3 is of step 11"),
        (lambda rows: rows.append({**rows[2], "epoch": 3, "step": 18}), "config.yaml asks for 2"),
    ],
    ids=["another figure", "an epoch too few", "a gap", "a wrong step", "an epoch too many"],
)
def test_metrics_that_are_not_those_of_the_run_are_found(
    change: Callable[[list[dict[str, float]]], object], words: str, run: Path
) -> None:
    path = run / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    findings = examine_run(run)
    assert by_verdict(findings, "problem") == {"metrics.jsonl"}
    assert words in of(findings, "metrics.jsonl").text


@pytest.mark.slow
def test_all_that_was_made_from_other_weights_is_found(run: Path) -> None:
    folder = RunFolder(run)
    weights = Run(folder.path).weights
    with torch.no_grad():
        weights.vae.enc.mu.bias += 1
    write_weights(folder, weights.vae, weights.class_names, weights.images_sha256)
    findings = examine_run(run)
    assert by_verdict(findings, "problem") == ROOTS - {"config.yaml"} | {
        "svm/svm.safetensors",
        "evaluation/evaluation.json",
    }
    assert "`vaekit latents" in of(findings, "latents/latents.json").text
    assert "--weights fp16" in of(findings, "onnx-fp16/manifest.json").text

    extract_latents(Run(run))
    findings = examine_run(run)
    assert of(findings, "latents/latents.json").verdict == "ok"
    assert "earlier latents" in of(findings, "figures").text  # a note: the report makes it anew


def test_weights_of_other_images_than_the_checkpoints_are_found(run: Path) -> None:
    folder = RunFolder(run)
    weights = Run(folder.path).weights
    write_weights(folder, weights.vae, weights.class_names, "0" * 64)
    assert "of other images" in of(examine_run(run), "model.safetensors").text


def test_an_svm_of_other_classes_than_the_weights_is_found_as_stages_find_it(run: Path) -> None:
    svm = run / "svm" / "svm.safetensors"
    write_table(svm, read_table(svm)._replace(class_names=tuple("abcdefghij")))
    finding = of(examine_run(run), "svm/svm.safetensors")
    assert "of other classes or latents than model.safetensors" in finding.text
    with pytest.raises(UserError, match=re.escape(finding.text)):
        Run(run).svm


def test_svm_settings_that_the_svm_was_not_fitted_with_are_found(run: Path) -> None:
    (run / "svm" / "config.yaml").write_text("C: 3.0\ngamma: 1.0\n")
    findings = examine_run(run)
    assert by_verdict(findings, "problem") == {"svm/config.yaml"}


def test_a_graph_that_no_manifest_lists_is_a_problem(run: Path) -> None:
    shutil.copy(run / "onnx" / "encoder.onnx", run / "onnx" / "extra.onnx")
    finding = of(examine_run(run), "onnx/manifest.json")
    assert finding.verdict == "problem"
    assert "extra.onnx: a graph that manifest.json does not list; remove it" in finding.text


def test_what_is_not_vaekits_and_what_killed_writers_left_is_noted_and_does_no_harm(
    run: Path, doctor: Callable[..., Told]
) -> None:
    for name in ("thesis.txt", "model.pkl", "figures/.tmp-loss.png", ".tmp-model.safetensors"):
        (run / name).write_text("x")
    (run / "checkpoints" / ".tmp-step-00000018.safetensors").touch()
    (run / ".tmp-onnx").mkdir()
    (run / "latents" / ".parts-test_latents.npy").mkdir()
    (run / "onnx").rename(run / ".old-onnx")
    (run / "others" / "deep").mkdir(parents=True)
    (run / "mine.png").symlink_to("/dev/null")
    (run / "trackers").mkdir()  # by --tracker
    findings = examine_run(run)
    assert by_verdict(findings, "problem") == set()
    can_be_deleted = {each.subject for each in findings if "can be deleted" in each.text}
    assert can_be_deleted == {
        ".tmp-model.safetensors",
        ".tmp-onnx",
        "checkpoints/.tmp-step-00000018.safetensors",
        "figures/.tmp-loss.png",
    }
    assert "rename it to onnx" in of(findings, ".old-onnx").text
    assert f"`vaekit latents {run}` goes on" in of(findings, "latents/.parts-test_latents.npy").text
    strangers = {each.subject for each in findings if "not written by vaekit" in each.text}
    assert strangers == {"thesis.txt", "model.pkl", "others", "mine.png"}
    assert any(each == Finding("mine.png", "note", "a link to /dev/null") for each in findings)
    assert doctor(run).code == 0


def test_a_run_on_its_way_is_whole_and_the_command_that_goes_on_is_named(
    run: Path, doctor: Callable[..., Told]
) -> None:
    for path in ("latents", "svm", "figures", "onnx", "onnx-fp16", "report.html"):
        place = run / path
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    (run / "checkpoints" / "step-00000012.safetensors").unlink()
    rows = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(rows[:2]))
    told = doctor(run)
    assert told.code == 0
    findings = examine_run(run)
    go_on = f"1 of 2 epochs are done; go on with `{RunFolder(run).train_again}`"
    assert of(findings, "training") == Finding("training", "note", go_on)
    assert f"`vaekit latents {run}`" in of(findings, "latents").text
    assert f"`vaekit report {run}`" in of(findings, "report.html").text


def test_a_run_that_is_being_written_says_so(run: Path) -> None:
    with RunFolder(run).lock():
        (run / ".tmp-report.html").touch()
        findings = examine_run(run)
    assert findings[0].subject == ".lock"
    assert "a process is writing to this run" in findings[0].text
    assert of(findings, ".tmp-report.html").text == "being written"
    with RunFolder(run).lock():  # the doctor has given it back
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/mem is Linux's")
@pytest.mark.injects(6)
def test_a_file_that_the_system_refuses_to_read_is_a_finding(run: Path) -> None:
    for name in ("metrics.jsonl", "config.yaml", "svm/metrics.json"):
        (run / name).unlink()
        (run / name).symlink_to("/proc/self/mem")
    findings = examine_run(run)
    for name in ("metrics.jsonl", "config.yaml", "svm/metrics.json"):
        (refused,) = [each for each in findings if each[:2] == (name, "problem")]
        assert "can't be read (Input/output error)" in refused.text


def test_folders_that_are_none_or_closed_are_findings(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {"checkpoints", "samples", "reconstructions", "latents", "svm", "figures", "onnx"}
    access = os.access
    closed = run / "checkpoints"
    monkeypatch.setattr(os, "access", lambda path, mode: path != closed and access(path, mode))
    for name in folders - {"checkpoints"}:
        shutil.rmtree(run / name)
        (run / name).write_text("no folder")
    findings = examine_run(run)
    assert by_verdict(findings, "problem") >= folders
    assert "expected a folder" in of(findings, "svm").text
    no_permission = [each.text for each in findings if each[:2] == ("checkpoints", "problem")]
    assert no_permission == ["no permission to look into it; chmod u+rx the folder"]


@pytest.mark.injects(20)
def test_odd_names_take_one_line_each(run: Path, doctor: Callable[..., Told]) -> None:
    names = [b"two\nlines", b"\xff\xfe", b"\x1b[31mred", "Bär 🐻".encode()]
    for name in names:
        (Path(os.fsdecode(bytes(run) + b"/" + name))).touch()
    told = doctor(run)
    assert told.code == 0
    strangers = [line for line in told.out.splitlines() if "not written by vaekit" in line]
    assert len(strangers) == len(names)
    assert not any("\x1b" in line for line in strangers)
    assert any("Bär" in line for line in strangers)


@pytest.mark.injects(15)
def test_a_forged_bundle_sends_the_doctor_to_no_file_outside(run: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("mine")
    path = run / "onnx" / MANIFEST
    facts = read_json(path)
    for name in ("../../secret", str(tmp_path / "secret"), ".."):
        facts["files"][name] = {"bytes": 4, "sha256": "0" * 64}
    write_sealed(path, facts)
    refused = [each for each in examine_run(run) if each.verdict == "problem"]
    assert len(refused) == 3
    for finding in refused[:2]:
        assert finding.subject == "../secret"
        assert "don't use this bundle" in finding.text


def test_forged_labels_are_refused_as_the_stages_refuse_them(run: Path) -> None:
    labels, index = run / "latents" / "train_labels.npy", run / "latents" / "latents.json"
    write_array(labels, np.full_like(np.load(labels), 99))
    facts = read_json(index)
    facts["files"][labels.name] = file_sha256(labels)
    write_sealed(index, facts)
    assert "no index into the 10 classes" in of(examine_run(run), "latents/latents.json").text


def test_several_runs_are_all_examined_before_the_faulty_ones_are_named(
    run: Path, tmp_path: Path, doctor: Callable[..., Told]
) -> None:
    (tmp_path / "faulty run").mkdir()
    shutil.copy(run / "config.yaml", tmp_path / "faulty run" / "config.yaml")
    emptied(tmp_path / "faulty run" / "config.yaml")
    told = doctor(tmp_path / "none", tmp_path / "faulty run", run)
    assert told.code == 2
    assert f"{run}: all" in told.out
    (line,) = told.err.splitlines()
    assert f"{tmp_path / 'none'}: not a run folder" in line
    assert f"{tmp_path / 'faulty run'}: 1 problem" in line


def test_an_empty_folder_is_no_run(tmp_path: Path, doctor: Callable[..., Told]) -> None:
    told = doctor(tmp_path)
    assert told.code == 2
    assert told.out == ""
    assert "not a run folder (no config.yaml); make one with `vaekit train --run" in told.err


def line_on(subject: str, told: Told) -> str:
    (line,) = [line for line in told.out.splitlines() if line.split()[1] == subject]
    return " ".join(line.split())


def test_a_machine_without_a_gpu_is_no_problem(
    doctor: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)
    monkeypatch.setattr(shutil, "which", lambda program: None)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    told = doctor()
    assert (told.code, told.err) == (0, "")
    assert line_on("torch", told) == f"ok torch {metadata.version('torch')}"
    assert line_on("ranks", told) == "ok ranks one process"
    assert line_on("device", told) == "ok device cpu; there is no GPU"
    assert line_on("precision", told).startswith("ok precision float32, bf16 native")
    assert "there is no CUDA device; `vaekit svm` fits with scikit-learn" in line_on("cuml", told)
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    told = doctor()
    assert told.code == 0
    assert line_on("device", told).startswith("note device cpu, though an NVIDIA driver")


def test_a_gpu_is_shown_with_its_memory_and_what_keeps_cuml_from_working(
    doctor: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    play_cuml(monkeypatch, UnusableSVC)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index=0: "a fast GPU")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (3 * 2**29, 2**31))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    told = doctor()
    assert line_on("cuda:0", told) == "ok cuda:0 a fast GPU, 1.5 of 2.0 GiB free"
    assert line_on("precision", told).startswith("ok precision float32, bf16, fp16 native")
    assert line_on("cuml", told).startswith("note cuml")
    assert "CUDA driver version is insufficient" in line_on("cuml", told)


def test_idle_cores_and_a_full_disk_are_noted_with_what_to_do(
    doctor: Callable[..., Told], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from vaekit.doctor import machine

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "cpu_count", lambda: 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    usage = shutil.disk_usage(tmp_path)._replace(free=10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    told = doctor()
    assert told.code == 0
    assert line_on("cpu", told).endswith("as OMP_NUM_THREADS=1 says: unset it to use all")
    assert line_on("disk", told).startswith(f"note disk 0.1 GB free in {tmp_path}/runs")
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_is_missing_is_a_problem_and_names_its_installation(
    doctor: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vaekit.doctor import doctor as module

    def version(package: str) -> str:
        if package == "onnxruntime":
            raise metadata.PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setattr(module, "version", version)
    told = doctor()
    assert told.code == 2
    assert line_on("onnxruntime", told).startswith("problem onnxruntime not installed")
    assert "`pip install onnxruntime`" in line_on("onnxruntime", told)
    assert told.err == "vaekit: error: this machine: 1 problem; see above what to do\n"


@pytest.mark.slow
@pytest.mark.injects(18)
def test_processes_that_are_no_ranks_are_a_problem_that_one_of_them_tells() -> None:
    result = vaekit("doctor", WORLD_SIZE="2")
    assert_one_line_error(result, "this machine: 1 problem")
    assert "problem  ranks" in result.stdout
    assert "WORLD_SIZE=2 but Accelerate sees 1 process(es)" in result.stdout


@pytest.mark.slow
def test_the_ranks_of_a_launch_find_one_another_and_one_speaks(tmp_path: Path) -> None:
    ended = run_ranks(partial(main, ["doctor"]), 2, tmp_path)
    assert ended.exit_codes == [0, 0], ended.errors
    (line,) = [line for line in "".join(ended.outputs).splitlines() if " ranks " in line]
    assert "2 processes, which found one another" in line


@pytest.mark.injects(5)
def test_decoded_images_that_are_damaged_are_named_and_left_to_the_next_start(
    tmp_path: Path,
) -> None:
    root = write_pets(tmp_path / "pets")
    data = DataConfig(name="folder", root=str(root), image_size=8)
    load_images(data, 0)
    config = tiny_config(tmp_path / "run", data=data)
    RunFolder(Path(str(config.run))).start(config)
    (whole,) = (each for each in examine_run(tmp_path / "run") if "parts of decoded" in each.text)
    assert whole.verdict == "ok"
    shard = next(root.glob(".vaekit-cache/*/shard-*[0-9a-f].npy"))
    shard.write_bytes(flip_a_bit(shard.read_bytes()))
    before = snapshot(tmp_path)
    (fault,) = (each for each in examine_run(tmp_path / "run") if shard.stem in each.subject)
    assert fault.verdict == "note"
    assert f"{shard.name} is not as it was written: delete it; the next start makes" in fault.text
    assert snapshot(tmp_path) == before
    shard.unlink()  # as it says
    load_images(config.data, config.seed)
    (whole,) = (each for each in examine_run(tmp_path / "run") if ".vaekit-cache" in each.subject)
    assert whole.verdict == "ok"
