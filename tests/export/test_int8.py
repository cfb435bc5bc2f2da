"""Eight bits cost what is stated, spare the SVM, and are written only where they cost little."""

from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from bundle_helpers import facts_of
from conftest import made_once
from damage_helpers import copy, refusal, snapshot
from onnx.reference import ReferenceEvaluator

from vaekit.cli import main
from vaekit.config import ModelConfig, SvmConfig
from vaekit.export import int8
from vaekit.export.bundle import GRAPHS
from vaekit.export.compare import Reference
from vaekit.export.graphs import ClassifierGraph, DecoderGraph, EncoderGraph, svm_graph, to_onnx
from vaekit.export.manifest import read_golden
from vaekit.images.image_set import ImageSet
from vaekit.models.vae import VAE
from vaekit.svm.fit import fit_table

SHAPE = (1, 12, 12)
NUM_IMAGES = 60
KINDS = ("MatMulInteger", "MatMul", "Gemm")


@pytest.fixture(scope="module")
def reference() -> Reference:
    torch.manual_seed(0)
    config = ModelConfig(latent_dim=3, conv_channels=(4,), hidden_dims=(64, 32))
    vae = VAE(config, SHAPE).eval().requires_grad_(False)
    latents = torch.cat(vae.encode(torch.from_numpy(dark_and_light().pixels) / 255), dim=1).numpy()
    return Reference(vae, fit_table(latents, dark_and_light().labels, SvmConfig()))


def dark_and_light() -> ImageSet:
    """Dark and light images."""
    labels = np.arange(NUM_IMAGES) % 2
    pixels = np.random.default_rng(0).integers(0, 56, (NUM_IMAGES, *SHAPE), dtype=np.uint8)
    pixels[labels == 1] += 200
    return ImageSet(pixels, labels)


@pytest.fixture(scope="module")
def bundle(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "int8", partial(write_graphs, reference=reference))


def write_graphs(folder: Path, reference: Reference) -> None:
    folder.mkdir(parents=True)
    encoder = EncoderGraph(reference.vae)
    assert reference.table is not None
    image = {"image": torch.from_numpy(dark_and_light().pixels[:2])}
    for name, module, inputs, outputs in (
        ("encoder", encoder, image, ("mean", "log_variance")),
        ("decoder", DecoderGraph(reference.vae), {"latent": torch.zeros(2, 3)}, ("image",)),
        (
            "classifier",
            ClassifierGraph(encoder, svm_graph(reference.table)),
            image,
            ("label", "scores"),
        ),
    ):
        model = to_onnx(module, inputs, outputs)
        onnx.save(model, folder / f"{name}-float.onnx")
        onnx.save(int8.quantise(model), folder / f"{name}.onnx")


@pytest.mark.slow
def test_linear_layers_are_products_of_bytes_and_the_svm_s_are_not(bundle: Path) -> None:
    model = onnx.load(bundle / "classifier.onnx")
    products = {kind: [n for n in model.graph.node if n.op_type == kind] for kind in KINDS}
    assert len(products["MatMulInteger"]) == 4  # two hidden layers, mean and log-variance
    assert products["Gemm"] == []
    of_the_svm = [name for node in products["MatMul"] for name in node.input if "svm." in name]
    assert {"svm.exponents", "svm.coefficients"} <= set(of_the_svm)
    assert len(products["MatMul"]) == len(of_the_svm)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 15)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "field"), [("encoder", "image"), ("decoder", "latent")])
def test_a_quantised_graph_computes_what_onnx_says_that_it_does(
    name: str, field: str, bundle: Path
) -> None:
    latents = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    inputs = {field: dark_and_light().pixels[:5] if field == "image" else latents}
    oracle = ReferenceEvaluator(str(bundle / f"{name}.onnx")).run(None, inputs)
    for found, expected in zip(run(bundle / f"{name}.onnx", **inputs), oracle, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.slow
def test_the_measured_cost_is_that_of_the_test_images(bundle: Path, reference: Reference) -> None:
    loss = int8.require_small_loss(bundle, reference, dark_and_light())
    images = dark_and_light().pixels / 255
    for name, suffix in (("int8", ""), ("float32", "-float")):
        mean, _ = run(bundle / f"encoder{suffix}.onnx", image=dark_and_light().pixels)
        (decoded,) = run(bundle / f"decoder{suffix}.onnx", latent=mean)
        squared_error = np.square(decoded - images).mean()
        assert loss["reconstruction"][name] == pytest.approx(squared_error, rel=1e-4)
    assert loss["svm_accuracy"] == {"float32": 1.0, "int8": 1.0}
    assert "at most 1% more squared error" in loss["bound"]


@pytest.mark.slow
def test_a_bundle_in_eight_bits_is_whole_and_says_what_it_cost(
    exported_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a tiny run, which rounding may cost any accuracy, and from the graphs in float32."""
    monkeypatch.setattr("vaekit.export.bounds.MAX_ACCURACY_LOSS", 1.0)
    graphs = iter([exported_run / "onnx" / name for name in GRAPHS])
    monkeypatch.setattr("vaekit.export.bundle.to_onnx", lambda *_: onnx.load(next(graphs)))
    run_folder = copy(exported_run, tmp_path / "run")
    main(["export", str(run_folder), "--weights", "int8"])
    folder = run_folder / "onnx-int8"
    main(["export", "--check", str(folder)])
    facts = facts_of(folder)
    assert facts["weights"] == "int8"
    assert facts["weights_loss"]["unit"] == "squared error a pixel"
    sizes = [facts_of(exported_run / "onnx")["files"], facts["files"]]
    full, small = (each["encoder.onnx"]["bytes"] for each in sizes)
    assert small < 0.5 * full
    cases = {case.graph: case for case in read_golden(folder)}
    assert (
        cases["svm.onnx"].tolerances["label"] == cases["classifier.onnx"].tolerances["label"] == 0
    )
    assert cases["encoder.onnx"].tolerances["mean"] > 1e-4
    text = (folder / "README.md").read_text()
    assert "the linear layers of encoder and decoder computed in eight bits" in text
    assert "squared error a pixel" in text
    main(["doctor", str(run_folder)])


@pytest.mark.slow
@pytest.mark.usefixtures("ready_graphs")
def test_where_eight_bits_are_refused_the_bundle_that_was_there_stays(
    exported_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_folder = copy(exported_run, tmp_path / "run")
    copy(run_folder / "onnx", run_folder / "onnx-int8")
    before = snapshot(run_folder)
    monkeypatch.setattr(int8, "MAX_ERROR_GROWTH", -0.5)
    line = refusal(capsys, "export", run_folder, "--weights", "int8")
    assert "--weights int8: the squared error of a reconstruction is" in line
    assert line.endswith("use fp16 or fp32")
    assert snapshot(run_folder) == before


def run(path: Path, **inputs: np.ndarray) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(path).run(None, inputs)
