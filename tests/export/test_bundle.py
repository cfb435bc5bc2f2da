"""`vaekit export`: a bundle is whole or not there, right, and usable without PyTorch."""

import base64
import ctypes
import json
import os
import re
import runpy
import shutil
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from bundle_helpers import facts_of
from conftest import ROOT
from damage_helpers import copy, refusal, snapshot

from vaekit.cli import main
from vaekit.config import DataConfig
from vaekit.errors import UserError
from vaekit.export import bundle as room
from vaekit.export.bundle import export_run
from vaekit.export.compare import TOLERANCES
from vaekit.export.graphs import svm_graph
from vaekit.export.manifest import read_golden
from vaekit.images.sets import load_images
from vaekit.runs.folder import RunFolder
from vaekit.runs.run import Run
from vaekit.storage.files import write_bytes
from vaekit.svm.table import predict

FILES = {
    "encoder.onnx",
    "decoder.onnx",
    "svm.onnx",
    "classifier.onnx",
    "manifest.json",
    "golden.json",
    "explorer.json",
    "README.md",
    "encoder.pbtxt",
    "decoder.pbtxt",
    "svm.pbtxt",
    "classifier.pbtxt",
    "labels.txt",
}
OF_THE_SVM = {"svm.onnx", "classifier.onnx", "svm.pbtxt", "classifier.pbtxt"}


@pytest.fixture
def run(exported_run: Path, tmp_path: Path) -> Path:
    """A run with its bundles, that a test may change."""
    return copy(exported_run, tmp_path / "exported")


@pytest.fixture
def no_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals come before the long work."""

    def write(*_: object, **__: object) -> None:
        raise AssertionError("a graph was written")

    monkeypatch.setattr(room, "write_graphs", write)


def left_over(run: Path) -> list[str]:
    return [path.name for path in run.iterdir() if path.name.startswith((".tmp", ".old"))]


def test_a_bundle_has_the_files_of_the_contract(exported_run: Path) -> None:
    assert set(snapshot(exported_run / "onnx")) == FILES
    assert left_over(exported_run) == []
    assert facts_of(exported_run / "onnx")["weights"] == "float32"


def test_the_classifier_gives_the_labels_that_the_svm_gave(exported_run: Path) -> None:
    run = RunFolder(exported_run)
    test = load_images(DataConfig(name="digits", limit=96), seed=0).test
    session = onnxruntime.InferenceSession(exported_run / "onnx" / "classifier.onnx")
    labels, scores = session.run(None, {"image": test.pixels})
    confusion = np.array(json.loads((run.svm / "metrics.json").read_text())["confusion_matrix"])
    assert (labels == test.labels).sum() == np.trace(confusion)
    assert scores.shape == (96, 10)


def test_the_encoder_gives_the_latents_of_the_run(exported_run: Path) -> None:
    latents = Run(exported_run).latents.test
    test = load_images(DataConfig(name="digits", limit=96), seed=0).test
    session = onnxruntime.InferenceSession(exported_run / "onnx" / "encoder.onnx")
    encoded = np.concatenate(session.run(None, {"image": test.pixels}), axis=1)
    np.testing.assert_allclose(encoded, latents, atol=1e-4)


def test_the_manifest_says_what_an_application_must_know(exported_run: Path) -> None:
    facts = facts_of(exported_run / "onnx")
    assert facts["class_names"] == list("0123456789")
    assert facts["score_labels"] == list(range(10))
    assert facts["image"]["channels"] == ["grey"]
    assert facts["image"]["centring"] == {"box": 28, "by": "bounding box"}
    assert facts["graphs"]["encoder.onnx"]["inputs"] == [
        {"name": "image", "type": "uint8", "shape": ["batch", 1, 28, 28]}
    ]
    assert facts["graphs"]["svm.onnx"]["outputs"] == [
        {"name": "label", "type": "int64", "shape": ["batch"]},
        {"name": "scores", "type": "float32", "shape": ["batch", 10]},
        {"name": "decisions", "type": "float32", "shape": ["batch", 45]},
    ]
    assert facts["check"]["num_images"] == 96
    assert str(exported_run.parent) not in (exported_run / "onnx" / "manifest.json").read_text()
    for name, signature in facts["graphs"].items():
        session = onnxruntime.InferenceSession(exported_run / "onnx" / name)
        assert [each["name"] for each in signature["inputs"]] == [
            each.name for each in session.get_inputs()
        ]
        assert [each["shape"] for each in signature["outputs"]] == [
            each.shape for each in session.get_outputs()
        ]


def test_each_graph_is_valid_and_says_in_its_metadata_what_it_is_and_nothing_of_its_source(
    exported_run: Path,
) -> None:
    for name in ("encoder.onnx", "decoder.onnx", "svm.onnx", "classifier.onnx"):
        model = onnx.load(exported_run / "onnx" / name)
        onnx.checker.check_model(model, full_check=True)
        assert [(each.domain, each.version) for each in model.opset_import] == [("", 15)]
        assert model.ir_version == 8
        properties = {each.key: each.value for each in model.metadata_props}
        facts = json.loads(properties["vaekit"])
        assert facts["class_names"] == list("0123456789")
        assert facts["source"]["model_sha256"] == Run(exported_run).sha256("weights")
        assert model.doc_string
        assert model.producer_name == "vaekit"
        if name != "svm.onnx":
            assert properties["Image.BitmapPixelFormat"] == "Gray8"
            values = [*model.graph.input, *model.graph.output]
            (image,) = (each for each in values if each.name == "image")
            assert image.type.denotation == "IMAGE"
            assert image.type.tensor_type.shape.dim[0].denotation == "DATA_BATCH"
        for trace in (str(ROOT), "stack_trace", "site-packages"):
            assert trace.encode() not in model.SerializeToString()


def test_golden_vectors_are_of_images_that_no_rounding_relabels(exported_run: Path) -> None:
    cases = {case.graph: case for case in read_golden(exported_run / "onnx")}
    assert set(cases) == {"encoder.onnx", "decoder.onnx", "svm.onnx", "classifier.onnx"}
    svm = cases["svm.onnx"].outputs
    assert np.abs(svm["decisions"]).min() > 2e-3
    assert len(np.unique(svm["label"])) == len(svm["label"]) > 3
    assert cases["encoder.onnx"].tolerances == {"mean": 1e-4, "log_variance": 1e-4}


@pytest.mark.parametrize(("name", "num_bits"), [("bfloat16", 7), ("TF32", 10)])
def test_a_runtime_that_rounds_products_keeps_the_labels_or_fails_the_replay(
    name: str, num_bits: int, exported_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO computes in bfloat16 by default where the processor can, GPUs in TF32."""

    def rounded_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return torch.matmul(with_mantissa(left, num_bits), with_mantissa(right, num_bits))

    run = Run(exported_run)
    (case,) = (each for each in read_golden(exported_run / "onnx") if each.graph == "svm.onnx")
    golden = np.concatenate([case.inputs["mean"], case.inputs["log_variance"]], axis=1)
    svm = svm_graph(run.svm.table)
    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded_product)
    of_test, of_golden = (
        svm(*torch.from_numpy(latents).chunk(2, dim=1)) for latents in (run.latents.test, golden)
    )
    is_same = np.array_equal(of_test.label, predict(run.svm.table, run.latents.test).labels)
    off = np.abs(of_golden.decisions.numpy() - case.outputs["decisions"]).max()
    assert off > 0, name
    assert is_same or off > case.tolerances["decisions"], name


def with_mantissa(values: torch.Tensor, num_bits: int) -> torch.Tensor:
    """float32 rounded to so many bits after the first."""
    mantissas, exponents = torch.frexp(values)
    return torch.ldexp(
        (mantissas * 2.0 ** (num_bits + 1)).round() / 2.0 ** (num_bits + 1), exponents
    )


def test_the_explorer_gets_test_images_and_the_map(exported_run: Path) -> None:
    facts = json.loads((exported_run / "onnx" / "explorer.json").read_text())
    test = load_images(DataConfig(name="digits", limit=96), seed=0).test
    assert test.labels is not None
    images = facts["images"]
    pixels = np.frombuffer(base64.b64decode(images["data"]), np.uint8).reshape(images["shape"])
    np.testing.assert_array_equal(pixels, test.pixels)
    assert images["labels"] == test.labels.tolist()
    latents = facts["map"]["latents"]
    values = np.frombuffer(base64.b64decode(latents["data"]), "<f4").reshape(latents["shape"])
    np.testing.assert_array_equal(values, Run(exported_run).latents.test[:, :3])
    assert facts["map"]["points"]["shape"] == [96, 2]
    assert facts["map"]["labels"] == test.labels.tolist()


@pytest.mark.slow
def test_float16_weights_take_about_half_the_space_at_a_cost_within_its_bound(
    rounded_run: Path,
) -> None:
    assert set(snapshot(rounded_run / "onnx-fp16")) == FILES
    full, half = facts_of(rounded_run / "onnx"), facts_of(rounded_run / "onnx-fp16")
    assert half["weights"] == "float16"
    sizes = [each["files"]["encoder.onnx"]["bytes"] for each in (full, half)]
    assert sizes[1] < 0.6 * sizes[0]
    loss = half["weights_loss"]
    assert loss["reconstruction"]["float16"] <= 1.001 * loss["reconstruction"]["float32"]
    assert "at most 0.1% more nats" in loss["bound"]
    assert "3 standard errors" in loss["bound"]
    assert "weights_loss" not in full


@pytest.mark.slow
def test_the_accuracies_of_the_manifest_are_those_of_the_two_bundles(rounded_run: Path) -> None:
    config = RunFolder(rounded_run).require_config()
    test = load_images(config.data, config.seed).test
    stated = facts_of(rounded_run / "onnx-fp16")["weights_loss"]["svm_accuracy"]
    for name, folder in (("float32", "onnx"), ("float16", "onnx-fp16")):
        classifier = onnxruntime.InferenceSession(rounded_run / folder / "classifier.onnx")
        (labels,) = classifier.run(["label"], {"image": test.pixels})
        undecided = facts_of(rounded_run / folder)["check"]["undecided_images"]
        assert stated[name] == pytest.approx(
            np.mean(labels == test.labels), abs=len(undecided) / len(labels)
        )


def test_the_python_of_the_readme_runs_in_the_bundle_s_folder(
    exported_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (exported_run / "onnx" / "README.md").read_text()
    *_, code = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    monkeypatch.chdir(exported_run / "onnx")
    exec(compile(code, "README.md", "exec"), {})
    assert re.fullmatch(r"\['\d', '\d'\]\n", capsys.readouterr().out)


@pytest.mark.slow
def test_a_run_without_an_svm_gets_a_bundle_without_one_of_the_same_graphs_and_says_so(
    exported_run: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(run / "svm")
    main(["export", str(run)])
    assert "no SVM in" in capsys.readouterr().out
    bundle = run / "onnx"
    for name in ("encoder.onnx", "decoder.onnx"):
        assert onnx.load(bundle / name).graph == onnx.load(exported_run / "onnx" / name).graph
    assert set(snapshot(bundle)) == FILES - OF_THE_SVM
    facts = facts_of(bundle)
    assert facts["score_labels"] is None
    assert facts["metrics"]["svm_accuracy"] is None
    assert "classifier" not in (bundle / "README.md").read_text()
    shutil.rmtree(run / "latents")
    assert room.explorer_data(Run(run))["map"] is None


@pytest.mark.usefixtures("ready_graphs")
def test_python_m_vaekit_export_is_the_same_command_and_gives_the_same_bytes(
    exported_run: Path,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["python -m vaekit.export", str(run)])
    runpy.run_module("vaekit.export", run_name="__main__")
    assert f"next: vaekit explore {run}" in capsys.readouterr().out
    assert snapshot(run / "onnx") == snapshot(exported_run / "onnx")


@pytest.mark.usefixtures("no_graphs")
def test_a_folder_that_is_no_bundle_is_left_alone(run: Path) -> None:
    shutil.rmtree(run / "onnx")
    (run / "onnx").mkdir()
    (run / "onnx" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something that is no bundle"):
        export_run(Run(run))
    assert snapshot(run / "onnx") == {"thesis.txt": b"mine"}
    shutil.rmtree(run / "onnx")
    (run / "onnx").write_text("a file")
    with pytest.raises(UserError, match="a file or a link, expected a folder"):
        export_run(Run(run))
    assert (run / "onnx").read_text() == "a file"


@pytest.mark.usefixtures("no_graphs")
@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.injects(6)
def test_a_link_in_the_place_of_the_bundle_is_left_alone(run: Path, exists: bool) -> None:
    (run / "onnx").rename(run / "elsewhere")
    before = snapshot(run / "elsewhere")
    (run / "onnx").symlink_to("elsewhere" if exists else "nowhere")
    with pytest.raises(UserError, match="a file or a link, expected a folder"):
        export_run(Run(run))
    assert (run / "onnx").is_symlink()
    assert snapshot(run / "elsewhere") == before
    assert left_over(run) == []


@pytest.mark.slow
@pytest.mark.usefixtures("ready_graphs")
def test_what_is_left_over_is_cleared_away_whatever_it_is(run: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("mine")
    (run / ".tmp-onnx").symlink_to(tmp_path / "kept")
    (run / ".old-onnx").write_text("a file")
    export_run(Run(run))
    assert left_over(run) == []
    assert (tmp_path / "kept" / "file").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.usefixtures("ready_graphs")
@pytest.mark.injects(15)
def test_a_damaged_bundle_is_replaced(exported_run: Path, run: Path) -> None:
    for damage in ("", "{}", (run / "onnx" / "manifest.json").read_text().replace("20", "21")):
        (run / "onnx" / "manifest.json").write_text(damage)
        export_run(Run(run))
        assert snapshot(run / "onnx") == snapshot(exported_run / "onnx")


def test_every_file_is_on_the_disk_before_the_bundle_is_in_place(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda fd: synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
    )
    with room.new_bundle(run / "onnx") as folder:
        for name in FILES:
            write_bytes(folder / name, b"x")
    assert {Path(each).name.removeprefix(".tmp-") for each in synced} >= FILES
    assert synced[-1] == str(run)


@pytest.mark.usefixtures("no_graphs")
def test_a_bundle_with_files_of_the_user_s_own_is_not_replaced(run: Path) -> None:
    (run / "onnx" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt: no part of the bundle that is there"):
        export_run(Run(run))
    assert (run / "onnx" / "notes.txt").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.usefixtures("ready_graphs")
def test_an_svm_beyond_its_tolerance_is_left_out_and_encoder_and_decoder_are_exported(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vaekit.export.compare.tolerances", lambda _: TOLERANCES)
    monkeypatch.setitem(TOLERANCES, "decisions", 1e-12)
    line = refusal(capsys, "export", run)
    assert "svm.onnx: decisions differs by" in line
    assert f"{run / 'onnx'} has the encoder and the decoder alone" in line
    assert f"`vaekit svm {run} --C 1`" in line
    assert set(snapshot(run / "onnx")) == FILES - OF_THE_SVM
    facts = facts_of(run / "onnx")
    assert facts["score_labels"] is None
    assert set(facts["graphs"]) == {"encoder.onnx", "decoder.onnx"}
    assert not any("svm" in name for name in facts["check"]["largest_differences"])
    main(["export", "--check", str(run / "onnx")])


@pytest.mark.slow
@pytest.mark.usefixtures("ready_graphs")
def test_a_failed_check_leaves_the_old_bundle_and_says_how_far_off_what_is(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(run / "onnx")
    monkeypatch.setitem(TOLERANCES, "mean", 1e-12)
    line = refusal(capsys, "export", run)
    assert re.search(
        r"encoder\.onnx: mean differs by \S+ .* the tolerance is 1e-12 \(test image", line
    )
    assert snapshot(run / "onnx") == before
    assert left_over(run) == []


@pytest.mark.usefixtures("ready_graphs")
@pytest.mark.injects(2)
def test_an_export_that_breaks_off_leaves_the_old_bundle(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(run / "onnx")

    def break_off(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(room, "write_manifest", break_off)
    with pytest.raises(KeyboardInterrupt):
        export_run(Run(run))
    assert snapshot(run / "onnx") == before
    assert left_over(run) == []


@pytest.mark.injects(2)
def test_a_kill_between_the_two_renames_loses_no_bundle(run: Path) -> None:
    before = snapshot(run / "onnx")
    (run / "onnx").rename(run / ".old-onnx")
    (run / ".tmp-onnx").mkdir()
    (run / ".tmp-onnx" / "encoder.onnx").write_bytes(b"half")
    with pytest.raises(RuntimeError), room.new_bundle(run / "onnx"):
        raise RuntimeError
    assert snapshot(run / "onnx") == before
    assert left_over(run) == []


@pytest.mark.slow
@pytest.mark.usefixtures("ready_graphs")
@pytest.mark.injects(4)
def test_a_full_disk_is_one_line_and_harms_nothing(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(run / "onnx")

    def fill(*_: object) -> None:
        raise OSError(28, "No space left on device", "golden.json")

    monkeypatch.setattr(room, "write_golden", fill)
    assert "golden.json: No space left on device" in refusal(capsys, "export", run)
    assert snapshot(run / "onnx") == before


def drop_capabilities() -> None:
    """Root may write anywhere, unless a thread gives that up, for itself alone (capset(2))."""
    header, none = struct.pack("Ii", 0x20080522, 0), bytes(24)
    assert ctypes.CDLL(None).capset(header, none) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="threads have capabilities on Linux alone")
@pytest.mark.parametrize("folder", ["onnx", "."])
@pytest.mark.injects(4)
def test_a_folder_without_write_permission_is_one_line(
    run: Path, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(run / "onnx")
    (run / folder).chmod(0o555)
    with ThreadPoolExecutor(initializer=drop_capabilities) as threads:
        line = threads.submit(refusal, capsys, "export", run).result()
    (run / folder).chmod(0o755)
    assert "permission" in line
    assert snapshot(run / "onnx") == before
    assert left_over(run) == []


def test_another_stored_precision_than_the_three_is_refused(
    exported_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "fp32" in refusal(capsys, "export", exported_run, "--weights", "int4")
