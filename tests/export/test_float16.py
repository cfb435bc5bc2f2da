"""float16 weights: half the size, the same numbers as their float32 selves, at a known cost."""

import math

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from scipy.stats import binomtest

from vaekit.config import ModelConfig, SvmConfig
from vaekit.errors import UserError
from vaekit.export.bounds import require_same_accuracy
from vaekit.export.compare import Reference
from vaekit.export.float16 import round_weights, store_as_float16
from vaekit.export.graphs import EncoderGraph, to_onnx
from vaekit.images.image_set import ImageSet
from vaekit.models.vae import VAE
from vaekit.stages.svm import fit_table

SHAPE = (1, 16, 16)


@pytest.fixture
def vae() -> VAE:
    torch.manual_seed(0)
    config = ModelConfig(latent_dim=3, conv_channels=(4, 8), hidden_dims=(64,))
    return VAE(config, SHAPE).eval().requires_grad_(False)


@pytest.fixture
def test_set() -> ImageSet:
    generator = np.random.default_rng(0)
    return ImageSet(generator.integers(0, 256, (20, *SHAPE), dtype=np.uint8), None)


def encoder_of(vae: VAE) -> onnx.ModelProto:
    pixels = torch.zeros(2, *SHAPE, dtype=torch.uint8)
    return to_onnx(EncoderGraph(vae), {"image": pixels}, ("mean", "log_variance"))


def outputs(model: onnx.ModelProto, pixels: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"image": pixels})  # type: ignore[no-any-return]


@pytest.mark.slow
def test_a_rounded_graph_takes_half_the_space_and_gives_the_same_bits(
    vae: VAE, test_set: ImageSet
) -> None:
    rounded, _ = round_weights(Reference(vae, None), test_set)
    full = encoder_of(rounded.vae)
    half = store_as_float16(full)
    onnx.checker.check_model(half, full_check=True)
    assert half.ByteSize() < 0.6 * full.ByteSize()
    for found, wanted in zip(
        outputs(half, test_set.pixels), outputs(full, test_set.pixels), strict=True
    ):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.slow
def test_weights_that_float16_cannot_hold_stay_as_they_are(vae: VAE) -> None:
    full = encoder_of(vae)
    assert store_as_float16(full).SerializeToString() == full.SerializeToString()


def test_rounding_leaves_the_run_s_own_weights_alone(vae: VAE, test_set: ImageSet) -> None:
    before = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    rounded, loss = round_weights(Reference(vae, None), test_set)
    for name, tensor in vae.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert torch.equal(rounded.vae.state_dict()[name], before[name].half().float())
    assert "svm_accuracy" not in loss


def test_the_measured_cost_is_that_of_the_test_images(vae: VAE, test_set: ImageSet) -> None:
    _, loss = round_weights(Reference(vae, None), test_set)
    images = torch.from_numpy(test_set.pixels) / 255
    for name, weights in (("float32", vae), ("float16", VAE(vae.config, SHAPE))):
        if weights is not vae:
            halves = {key: value.half().float() for key, value in vae.state_dict().items()}
            weights.load_state_dict(halves)
        with torch.no_grad():
            means = weights.decode(weights.enc(images).mean)
        nats = torch.nn.functional.binary_cross_entropy(means, images, reduction="sum") / 20
        assert math.isclose(loss["reconstruction"][name], nats.item(), rel_tol=1e-4)


def test_weights_beyond_float16_are_refused(vae: VAE, test_set: ImageSet) -> None:
    vae.enc.mu.weight.fill_(1e6)
    with pytest.raises(UserError, match="--weights fp16: the reconstruction takes nan nats"):
        round_weights(Reference(vae, None), test_set)


def rightness(
    num_images: int, became_wrong: int, became_right: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which of the images are labelled rightly by exact weights and by rounded ones."""
    exact, found = np.ones(num_images, bool), np.ones(num_images, bool)
    found[:became_wrong] = False
    exact[became_wrong : became_wrong + became_right] = False
    return exact, found


@pytest.mark.parametrize(
    ("num_images", "became_wrong", "became_right"),
    [(96, 2, 0), (96, 6, 1), (20, 3, 0), (10_000, 10, 0), (10_000, 14, 4), (10_000, 0, 400)],
)
def test_a_loss_that_chance_explains_is_accepted_on_a_set_of_any_size(
    num_images: int, became_wrong: int, became_right: int
) -> None:
    require_same_accuracy("--weights fp16", *rightness(num_images, became_wrong, became_right))
    loss = (became_wrong - became_right) / num_images
    assert loss <= 1e-3 or chance_of(became_wrong, became_right) > 1e-3


@pytest.mark.parametrize(
    ("num_images", "became_wrong", "became_right"),
    [(96, 12, 0), (96, 40, 5), (10_000, 14, 0), (10_000, 30, 5), (10_000, 120, 60)],
)
def test_a_loss_that_chance_does_not_explain_is_refused_on_a_set_of_any_size(
    num_images: int, became_wrong: int, became_right: int
) -> None:
    words = rf"{became_wrong} of {num_images:,} images became wrong and {became_right} right"
    with pytest.raises(UserError, match=f"--weights fp16: SVM accuracy .*{words}.*use fp32"):
        require_same_accuracy("--weights fp16", *rightness(num_images, became_wrong, became_right))
    assert (became_wrong - became_right) / num_images > 1e-3
    assert chance_of(became_wrong, became_right) < 1.5e-3


def chance_of(became_wrong: int, became_right: int) -> float:
    """That so many or more become wrong where wrong and right are equally likely."""
    both = became_wrong + became_right
    return float(binomtest(became_wrong, both, alternative="greater").pvalue)


@pytest.mark.parametrize("is_ruined", [False, True])
def test_a_rounding_that_ruins_the_labels_of_96_images_is_refused(
    vae: VAE, is_ruined: bool
) -> None:
    """Only the variances tell the two classes apart, and no variance enters a reconstruction."""
    labels = np.arange(96) % 2
    pixels = np.random.default_rng(0).integers(0, 56, (96, *SHAPE), dtype=np.uint8)
    pixels[labels == 1] += 200
    vae.enc.mu.weight.zero_()
    vae.enc.var.bias.zero_()
    if is_ruined:
        vae.enc.var.weight *= 1e-7  # to what float16 rounds to zero
    with torch.no_grad():
        latents = torch.cat(vae.enc(torch.from_numpy(pixels) / 255), dim=1).numpy()
    reference = Reference(vae, fit_table(latents, labels, SvmConfig()))
    if is_ruined:
        with pytest.raises(UserError, match=r"SVM accuracy 0\.5000, 1\.0000 with float32"):
            round_weights(reference, ImageSet(pixels, labels))
    else:
        _, loss = round_weights(reference, ImageSet(pixels, labels))
        assert loss["svm_accuracy"] == {"float32": 1.0, "float16": 1.0}
