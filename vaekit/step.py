"""One training step, and what it needs: the state of a run, the learning rate, the average."""

import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from vaekit.batches import Stream, gather_images, normal_noise, rank_slice
from vaekit.config import TrainConfig
from vaekit.images import Images
from vaekit.model import VAE
from vaekit.objective import negative_elbo
from vaekit.run_folder import RunFolder


@dataclass
class Training:
    """What changes from step to step, and what every step needs."""

    config: TrainConfig
    accelerator: Accelerator
    run: RunFolder
    images: Images
    images_sha256: str
    train_pixels: Tensor  # uint8 [N, C, H, W], resident on the device
    test_pixels: Tensor
    vae: VAE
    parallel_vae: nn.Module  # the same weights as Accelerate prepared them
    ema: VAE
    optimizer: torch.optim.Optimizer
    step: int = 0
    metrics: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.train_pixels) // self.config.batch_size

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.config.epochs


def run_step(training: Training, order: Tensor, batch: int) -> Tensor:
    """One update. Returns this rank's mean reconstruction and KL, [2], not yet read."""
    config, accelerator, step = training.config, training.accelerator, training.step
    share = rank_slice(config.batch_size, accelerator.process_index, accelerator.num_processes)
    indices = order[batch * config.batch_size :][: config.batch_size][share]
    images = gather_images(training.train_pixels, indices)
    noise = partial(normal_noise, seed=config.seed, index=step, device=accelerator.device)
    latent_shape = (config.batch_size, config.model.latent_dim)
    latent_noise = noise(latent_shape, stream=Stream.LATENT)[share]
    seen = images
    if config.input_noise > 0:
        pixel_noise = noise((config.batch_size, *images.shape[1:]), stream=Stream.INPUT)[share]
        seen = images + config.input_noise * pixel_noise

    for group in training.optimizer.param_groups:
        group["lr"] = learning_rate(config, step, training.total_steps)
    output = training.parallel_vae(seen, latent_noise)
    elbo = negative_elbo(output.logits, images, output.posterior)
    training.optimizer.zero_grad()
    accelerator.backward(elbo.loss.mean())
    training.optimizer.step()
    update_average(training.ema, training.vae, ema_decay(config, step))
    return torch.stack([elbo.reconstruction.mean(), elbo.kl.mean()]).detach()


def learning_rate(config: TrainConfig, step: int, total_steps: int) -> float:
    """Linear warm-up, and a cosine to zero over the whole run (Loshchilov and Hutter, 2017)."""
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    return config.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * step / total_steps))


def ema_decay(config: TrainConfig, step: int) -> float:
    """Ramped up, so that the average soon forgets the initial weights."""
    return min(config.ema_decay, (1 + step) / (10 + step))


@torch.no_grad()
def update_average(average: nn.Module, current: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(current.parameters()), 1 - decay)
