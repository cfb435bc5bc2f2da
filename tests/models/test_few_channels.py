"""What a GPU is given for images of few channels is the same convolution."""

import pytest
import torch
from torch import Tensor, nn

from vaekit.models.few_channels import Conv2d, ConvTranspose2d, padded_conv, padded_transpose


def gradients(outputs: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    weights = torch.linspace(-1, 1, outputs.numel()).reshape(outputs.shape)
    return torch.autograd.grad((outputs * weights).sum(), inputs)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 1)])
def test_a_convolution_of_padded_images_is_pytorchs(
    channels: int, stride: int, padding: int
) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(channels, 16, 3, stride, padding)
    images = torch.rand(2, channels, 9, 7, requires_grad=True)
    expected, found = plain(images), padded_conv(plain, images)
    torch.testing.assert_close(found, expected)
    leaves = (images, plain.weight, plain.bias)
    torch.testing.assert_close(gradients(found, *leaves), gradients(expected, *leaves))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_transposed_convolution_to_padded_images_is_pytorchs(channels: int) -> None:
    torch.manual_seed(0)
    plain = nn.ConvTranspose2d(16, channels, 3)
    features = torch.rand(2, 16, 9, 7, requires_grad=True)
    expected, found = plain(features), padded_transpose(plain, features)
    torch.testing.assert_close(found, expected)
    leaves = (features, plain.weight, plain.bias)
    torch.testing.assert_close(gradients(found, *leaves), gradients(expected, *leaves))


def test_they_are_saved_and_shown_as_pytorchs() -> None:
    for ours, plain in (
        (Conv2d(1, 16, 3), nn.Conv2d(1, 16, 3)),
        (ConvTranspose2d(16, 1, 3), nn.ConvTranspose2d(16, 1, 3)),
    ):
        assert str(ours) == str(plain)
        plain.load_state_dict(ours.state_dict())
