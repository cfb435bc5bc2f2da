"""float16 weights: half the size, the same numbers as their float32 selves, at a known cost."""

import math

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from vaekit.config import ModelConfig
from vaekit.errors import UserError
from vaekit.export.compare import Reference
from vaekit.export.float16 import round_weights, store_as_float16
from vaekit.export.graphs import EncoderGraph, to_onnx
from vaekit.images.sets import ImageSet
from vaekit.models.vae import VAE

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
