"""Each graph computes what its module does, on any batch, and carries nothing else."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from svm_helpers import fitted_on, made_up

from vaekit.config import ModelConfig, SvmConfig
from vaekit.errors import UserError
from vaekit.export import graphs
from vaekit.export.graphs import (
    ClassifierGraph,
    DecoderGraph,
    EncoderGraph,
    svm_graph,
    to_onnx,
)
from vaekit.images.pixels import ImageShape
from vaekit.models.vae import VAE
from vaekit.svm.fit import fit_table
from vaekit.svm.table import predict

LATENT_DIM = 3
SHAPE = (3, 11, 14)


def vae_of(config: ModelConfig, shape: ImageShape, pixels: np.ndarray | None = None) -> VAE:
    torch.manual_seed(0)
    vae = VAE(config, shape)
    if pixels is not None:
        vae.start_from(pixels)
    return vae.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def vae() -> VAE:
    config = ModelConfig(latent_dim=LATENT_DIM, conv_channels=(2, 4, 3), hidden_dims=(12,))
    return vae_of(config, SHAPE)


def latents_of_classes(labels: list[int], *, count: int = 30) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    every_label = np.repeat(np.array(labels), count)
    centres = generator.normal(size=(max(labels) + 1, 2 * LATENT_DIM))
    noise = generator.normal(size=(len(every_label), 2 * LATENT_DIM))
    return (centres[every_label] + 0.8 * noise).astype(np.float32), every_label


def run(model: onnx.ModelProto, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def halves(latents: np.ndarray) -> dict[str, np.ndarray]:
    return {"mean": latents[:, :LATENT_DIM], "log_variance": latents[:, LATENT_DIM:]}


def example_latents(num_dimensions: int = LATENT_DIM) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(2, num_dimensions) for name in ("mean", "log_variance")}


@pytest.mark.slow
def test_encoder_and_decoder_equal_pytorch_at_every_batch_size(vae: VAE) -> None:
    hold_graphs_to_pytorch(vae, SHAPE, sizes=(0, 1, 2, 7, 40))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("likelihood", "shape"), [("gaussian", (3, 12, 9)), ("bernoulli", (1, 17, 34))], ids=str
)
def test_so_do_those_of_strided_convolutions(likelihood: str, shape: ImageShape) -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (20, *shape), dtype=np.uint8)
    config = ModelConfig("conv", likelihood, LATENT_DIM, width=4)
    hold_graphs_to_pytorch(vae_of(config, shape, pixels), shape, sizes=(0, 1, 5))


def hold_graphs_to_pytorch(vae: VAE, shape: ImageShape, sizes: tuple[int, ...]) -> None:
    pixels = torch.zeros(2, *shape, dtype=torch.uint8)
    encoder = to_onnx(EncoderGraph(vae), {"image": pixels}, ("mean", "log_variance"))
    latent = torch.zeros(2, LATENT_DIM)
    decoder = to_onnx(DecoderGraph(vae), {"latent": latent}, ("image",))
    generator = np.random.default_rng(0)
    for size in sizes:
        image = generator.integers(0, 256, (size, *shape), dtype=np.uint8)
        posterior = vae.enc(torch.from_numpy(image) / 255)
        encoded = run(encoder, image=image)
        np.testing.assert_allclose(encoded["mean"], posterior.mean, atol=1e-5)
        np.testing.assert_allclose(encoded["log_variance"], posterior.log_variance, atol=1e-5)
        decoded = run(decoder, latent=encoded["mean"])["image"]
        assert decoded.shape == (size, *shape)
        np.testing.assert_allclose(decoded, vae.decode(posterior.mean), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("labels", [[0, 1], [1, 3, 4, 7]], ids=str)
def test_the_svm_graph_equals_scikit_learn_and_labels_latents_however_far_out(
    labels: list[int],
) -> None:
    latents, every_label = latents_of_classes(labels)
    config = SvmConfig(C=10, gamma=1)
    scaler = StandardScaler().fit(latents)
    svc = SVC(
        C=10, gamma=1 / latents.shape[1], break_ties=len(labels) > 2, decision_function_shape="ovr"
    ).fit(scaler.transform(latents), every_label)
    one_vs_one = SVC(C=10, gamma=1 / latents.shape[1], decision_function_shape="ovo").fit(
        scaler.transform(latents), every_label
    )
    table = fit_table(latents, every_label, config)
    model = to_onnx(svm_graph(table), example_latents(), ("label", "scores", "decisions"))
    unseen = latents_of_classes(labels, count=100)[0][::-1].copy()
    features = scaler.transform(unseen)
    verdict = run(model, **halves(unseen))
    decisions = one_vs_one.decision_function(features).reshape(len(unseen), -1)
    np.testing.assert_allclose(verdict["decisions"], decisions, atol=1e-3)
    np.testing.assert_array_equal(verdict["label"], svc.predict(features))
    if len(labels) > 2:
        np.testing.assert_allclose(verdict["scores"], svc.decision_function(features), atol=1e-3)
    assert verdict["label"].dtype == np.int64
    assert verdict["scores"].dtype == verdict["decisions"].dtype == np.float32
    far = np.full((1, 2 * LATENT_DIM), 1e30, np.float32)
    np.testing.assert_array_equal(run(model, **halves(far))["label"], predict(table, far).labels)


@pytest.mark.slow
def test_the_graph_of_hundreds_of_classes_is_small_and_labels_as_the_table() -> None:
    split = made_up(num_classes=300)
    table = fitted_on(split, SvmConfig())
    model = to_onnx(svm_graph(table), example_latents(10), ("label", "scores"))
    assert len(model.SerializeToString()) < 10e6
    for rows in (split.test, split.test[:1], split.test[:0]):
        verdict = run(model, mean=rows[:, :10], log_variance=rows[:, 10:])
        expected = predict(table, rows)
        np.testing.assert_array_equal(verdict["label"], expected.labels)
        assert verdict["scores"].shape == (len(rows), 300)


@pytest.mark.slow
def test_of_equal_votes_the_greater_confidence_wins_where_the_scores_are_one_float32_number() -> (
    None
):
    split = made_up(num_classes=300)
    svm = svm_graph(fitted_on(split, SvmConfig()))
    votes, confidences = torch.zeros(1, 300), torch.zeros(1, 300)
    votes[0, [7, 11]] = 298
    confidences[0, [7, 11]] = torch.tensor([250.0, 251.0])
    label, scores = svm.classification(votes, confidences)
    assert scores[0, 7] == scores[0, 11]
    assert label.item() == 11


@pytest.mark.slow
def test_both_kinds_of_svm_graph_say_the_same_of_two_classes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whose one decision scikit-learn turns round; of many the graph is tested above."""
    latents, every_label = latents_of_classes([3, 7])
    table = fit_table(latents, every_label, SvmConfig())
    monkeypatch.setattr(graphs, "MAX_PAIR_WEIGHTS", 0)
    verdict = run(
        to_onnx(svm_graph(table), example_latents(), ("label", "scores")), **halves(latents)
    )
    expected = predict(table, latents)
    np.testing.assert_array_equal(verdict["label"], expected.labels)
    np.testing.assert_allclose(verdict["scores"], expected.scores, atol=1e-3)


@pytest.mark.slow
def test_the_classifier_is_the_encoder_and_the_svm_and_the_same_each_time(vae: VAE) -> None:
    latents, labels = latents_of_classes([0, 1, 2])
    svm = svm_graph(fit_table(latents, labels, SvmConfig()))
    pixels = torch.zeros(2, *SHAPE, dtype=torch.uint8)
    encoder = EncoderGraph(vae)
    classifier, again = (
        to_onnx(ClassifierGraph(encoder, svm), {"image": pixels}, ("label", "scores"))
        for _ in range(2)
    )
    assert again.SerializeToString() == classifier.SerializeToString()
    image = np.random.default_rng(0).integers(0, 256, (9, *SHAPE), dtype=np.uint8)
    found = run(classifier, image=image)
    with torch.no_grad():
        wanted = svm(*encoder(torch.from_numpy(image)))
    np.testing.assert_array_equal(found["label"], wanted.label)
    np.testing.assert_allclose(found["scores"], wanted.scores, atol=1e-3)


def test_more_weights_than_an_onnx_file_holds_are_refused(
    vae: VAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "MAX_BYTES", 100)
    with pytest.raises(
        UserError, match=r"less than 2 GiB: train with smaller --model\.hidden_dims"
    ):
        to_onnx(DecoderGraph(vae), {"latent": torch.zeros(2, LATENT_DIM)}, ("image",))
