"""Plain PyTorch loops: the reference's with a DataLoader, and one with the images on the device.

They train and use vaekit's own model, so that everything else is what differs.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from vaekit.models.gaussian import Posterior
from vaekit.models.vae import VAE, VAEOutput

Epoch = Callable[[], float]  # trains for one, and gives its mean loss in nats per image
Precision = Literal["float32", "bf16", "fp16"]  # no peer trains in fp16, which wants a loss scale
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

LEARNING_RATE = 1e-3


class PictureSet(Dataset[tuple[Tensor, int]]):
    """Grey uint8 images [N, 1, H, W], each as torchvision's MNIST gives it with ToTensor."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        from PIL import Image
        from torchvision.transforms import ToTensor

        self._pixels = pixels
        self._as_picture = Image.fromarray
        self._transform = ToTensor()

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(self._as_picture(self._pixels[index, 0])), 0


def train_with_loader(
    vae: VAE, pixels: NDArray[np.uint8], batch_size: int, precision: Precision
) -> Epoch:
    """The reference's loop: Adam as it comes, the loss of probabilities, read at every step."""
    device = device_of(vae)
    loader = DataLoader(PictureSet(pixels), batch_size, shuffle=True)
    optimizer = torch.optim.Adam(vae.parameters(), lr=LEARNING_RATE)

    def epoch() -> float:
        total = 0.0
        vae.train()
        for loaded, _ in loader:
            images = loaded.to(device)
            output = _forward(vae, images, precision)
            probabilities = torch.sigmoid(output.outputs)
            reconstruction = functional.binary_cross_entropy(probabilities, images, reduction="sum")
            loss = (reconstruction + _kl(output.posterior)) / len(images)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        synchronise(device)
        return total / len(loader)

    return epoch


def train_on_device(
    vae: VAE, pixels: NDArray[np.uint8], batch_size: int, precision: Precision
) -> Epoch:
    """What one writes for speed: images gathered on the device, fused Adam, the loss of logits.

    The losses are read once an epoch.
    """
    device = device_of(vae)
    resident = torch.from_numpy(pixels).to(device)
    optimizer = torch.optim.Adam(vae.parameters(), lr=LEARNING_RATE, fused=True)

    def epoch() -> float:
        losses = []
        vae.train()
        for indices in torch.randperm(len(resident), device=device).split(batch_size):
            images = resident[indices].float().div_(255)
            output = _forward(vae, images, precision)
            reconstruction = functional.binary_cross_entropy_with_logits(
                output.outputs, images, reduction="sum"
            )
            loss = (reconstruction + _kl(output.posterior)) / len(images)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        mean = torch.stack(losses).mean().item()
        synchronise(device)
        return mean

    return epoch


@torch.no_grad()
def encode_with_loader(vae: VAE, pixels: NDArray[np.uint8], batch_size: int) -> NDArray[np.float32]:
    """Mean ++ log-variance of each image, [N, 2 * latent_dim]."""
    device = device_of(vae)
    latents = []
    for images, _ in DataLoader(PictureSet(pixels), batch_size):
        latents.append(torch.cat(vae.encode(images.to(device)), dim=1).cpu())
    return torch.cat(latents).numpy()


def device_of(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def synchronise(device: torch.device) -> None:
    """Wait for the device; whatever a round started has then been paid for in it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """What Accelerate's mixed precision amounts to; the loss is computed outside, in float32."""
    return torch.autocast(device.type, DTYPES[precision], enabled=precision != "float32")


def _forward(vae: VAE, images: Tensor, precision: Precision) -> VAEOutput:
    with autocast(images.device, precision):
        posterior = vae.encode(images)
        logits = vae.dec(_sample(posterior))
    return VAEOutput(logits.float(), posterior)


def _sample(posterior: Posterior) -> Tensor:
    mean, log_variance = posterior
    deviation = torch.exp(0.5 * log_variance)
    return mean + torch.randn_like(deviation) * deviation


def _kl(posterior: Posterior) -> Tensor:
    mean, log_variance = posterior
    return -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
