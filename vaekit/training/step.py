"""One training step as one unit of work on the device, and its schedules."""

import math
from collections.abc import Callable

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from vaekit.config import TrainConfig, settled
from vaekit.images.pixels import as_floats
from vaekit.models.gaussian import Posterior
from vaekit.models.objective import (
    NegativeElbo,
    importance_weighted,
    kl_along_path,
    kl_beyond,
    weighted,
)
from vaekit.models.vae import VAE, VAEOutput
from vaekit.training.augmentation import NUM_DRAWS, augmented_in_part
from vaekit.training.feeds import Feed
from vaekit.training.graph import choose_execution_path, compiled, record
from vaekit.training.losses import EpochLosses
from vaekit.training.noise import Stream, draw_normal, rank_slice
from vaekit.training.update import Update, UpdateByParameter
from vaekit.training.update_in_one import UpdateInOne


class Stepper:
    """Updates the weights and their average: the same work at every step.

    Whatever changes from step to step is a tensor that stays in its place, so that the work can
    be recorded once and replayed, and nothing in it waits for the device. A loss or a gradient
    that is not finite, on whatever rank, sets a flag that masks this update and all later ones;
    whoever reads the losses finds the step.
    """

    def __init__(
        self,
        config: TrainConfig,
        accelerator: Accelerator,
        vae: VAE,
        average: VAE,
        feed: Feed,
        steps_per_epoch: int,
    ) -> None:
        device = accelerator.device
        self._config, self._feed = config, feed
        self._total_steps = settled(config.epochs) * steps_per_epoch
        batch_size = settled(config.batch_size)
        self._share = rank_slice(batch_size, accelerator.process_index, accelerator.num_processes)
        self.path = choose_execution_path(
            device, accelerator.num_processes, accelerator.mixed_precision
        )
        self.losses = EpochLosses(steps_per_epoch, device)
        if device.type == "cuda":
            # Its matrix units want the channels side by side; a CPU is no faster by it
            # (docs/performance.md).
            for module in (vae, average):
                module.to(memory_format=torch.channels_last)
        vae.to(device)  # before an update says where parameters lie
        self._failed = torch.zeros((), device=device)  # 1 from the first step that was not finite
        self.updater: Update
        if self.path == "cuda graph":
            is_bf16 = accelerator.mixed_precision == "bf16"
            self.updater = UpdateInOne(config, vae, average, self._failed, is_bf16=is_bf16)
        else:
            self.updater = UpdateByParameter(config, accelerator, vae, average, self._failed)
        self.passes = self.updater.passes  # the VAE that sees images; in bf16 another than `vae`
        self._parallel_passes: nn.Module = accelerator.prepare(self.passes)

        self._batch = torch.zeros(1, dtype=torch.int64, device=device)  # of the epoch
        self._share_of_new = torch.zeros((), device=device)  # in the average of the weights
        self._one = torch.ones((), device=device)
        self._not_a_number = torch.full((), math.nan, device=device)
        self._latent_noise = torch.zeros(
            config.num_samples, batch_size, vae.latent_dim, device=device
        )
        is_weighted = _full_kl_weight(config) != 1 or settled(config.kl_warmup) > 0
        self._kl_weight = torch.ones((), device=device) if is_weighted else None
        self._pixel_noise: Tensor | None = None
        if config.input_noise > 0:
            self._pixel_noise = torch.zeros(batch_size, *vae.image_shape, device=device)
        self._augmentation: Tensor | None = None
        if settled(config.augment):
            count = max(1, round(settled(config.augment_share) * batch_size))
            self._augmentation = torch.zeros(count, NUM_DRAWS, device=device)
        self._pass = compiled(self._bound) if config.compile else self._bound
        self._run: Callable[[], None] | None = None

    def start_epoch(
        self, order: NDArray[np.int64], batch: int, settled: NDArray[np.float64]
    ) -> None:
        """Take the images in `order` from `batch` on; `settled` are the losses up to there."""
        self._feed.start_epoch(order, batch)
        self._batch.fill_(batch)
        self.losses.restart(settled)

    def advance(self, step: int) -> None:
        """Do step number `step` of the run, on the next batch of the epoch."""
        if self._run is None:
            self._run = self._record() if self.path == "cuda graph" else self._update
        seed = self._config.seed
        self._feed.make_ready()
        draw_normal(self._latent_noise, seed, Stream.LATENT, step)
        if self._pixel_noise is not None:
            draw_normal(self._pixel_noise, seed, Stream.INPUT, step)
        if self._augmentation is not None:
            if step < settled(self._config.augment_until) * self._total_steps:
                draw_normal(self._augmentation, seed, Stream.AUGMENTATION, step)
            else:
                self._augmentation.zero_()
        rate = learning_rate(self._config, step, self._total_steps)
        self.updater.set_rate(rate, step + 1)
        self._share_of_new.fill_(1 - ema_decay(self._config, step))
        if self._kl_weight is not None:
            self._kl_weight.fill_(kl_weight(self._config, step, self._total_steps))
        self._run()

    def _record(self) -> Callable[[], None]:
        batch = self._batch.clone()
        run = record(self._update, rehearse=self.rehearse)
        self._batch.copy_(batch)
        self._failed.zero_()
        return run

    def rehearse(self) -> None:
        """An update with its every effect masked: the weights and the moments stay as they are.

        But for the copies of weights that passes may have, which become those of now.
        """
        self._failed.fill_(1)
        self._batch.zero_()
        self._update()

    def _update(self) -> None:
        images = as_floats(self._feed.batch(self._batch))
        if self._augmentation is not None:
            images = augmented_in_part(images, self._augmentation[self._share])
        seen = images
        if self._pixel_noise is not None:
            seen = images + self._config.input_noise * self._pixel_noise[self._share]
        loss, row = self._pass(images, seen, self._latent_noise[:, self._share])
        self.updater.apply(loss, self._share_of_new)
        self.losses.write(self._batch, torch.where(self._failed > 0, self._not_a_number, row))
        self._batch += 1

    def _bound(self, images: Tensor, seen: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """What the step minimises, masked, and the row [2] of losses that it reports."""
        output = self._pass_through(seen, noise)
        elbo = self.passes.bound(output, images)
        if self._config.importance_weighted:
            nats = self.passes.sample_nats(output, images)
            loss = importance_weighted(nats, output.posterior, noise)
        else:
            loss = weighted(elbo, self._kl(elbo, output.posterior, noise), self._kl_weight)
        row = torch.stack([elbo.reconstruction.mean(), elbo.kl.mean()]).detach()
        return self._masked(loss.mean()), row

    def _pass_through(self, seen: Tensor, noise: Tensor) -> VAEOutput:
        """With posteriors of the variance that the step samples them with."""
        temperature = settled(self._config.temperature)
        if temperature == 1:
            output: VAEOutput = self._parallel_passes(seen, noise)
            return output
        output = self._parallel_passes(seen, math.sqrt(temperature) * noise)
        mean, log_variance = output.posterior
        return output._replace(posterior=Posterior(mean, log_variance + math.log(temperature)))

    def _kl(self, elbo: NegativeElbo, posterior: Posterior, noise: Tensor) -> Tensor:
        if self._config.kl_gradient == "path":
            return kl_along_path(posterior, noise)
        if self._config.free_bits > 0:
            return kl_beyond(posterior, self._config.free_bits)
        return elbo.kl

    def _masked(self, loss: Tensor) -> Tensor:
        """No number from the first failed step on: its gradient tells every rank."""
        is_sound = loss.detach().isfinite() & (self._failed == 0)
        return loss * torch.where(is_sound, self._one, self._not_a_number)


def learning_rate(config: TrainConfig, step: int, total_steps: int) -> float:
    """Linear warm-up, and a cosine to zero over the whole run (Loshchilov and Hutter, 2017)."""
    warmup = min(1.0, (step + 1) / max(1, settled(config.warmup_steps)))
    peak = settled(config.learning_rate)
    return peak * warmup * 0.5 * (1 + math.cos(math.pi * step / total_steps))


def kl_weight(config: TrainConfig, step: int, total_steps: int) -> float:
    """Rising linearly from 0 to its full value over the share of the run that is its warm-up."""
    warmup_steps = settled(config.kl_warmup) * total_steps
    return _full_kl_weight(config) * (min(1.0, step / warmup_steps) if warmup_steps else 1.0)


def _full_kl_weight(config: TrainConfig) -> float:
    return config.beta * settled(config.temperature)


def ema_decay(config: TrainConfig, step: int) -> float:
    """Ramped up, so that the average soon forgets the initial weights."""
    return min(settled(config.ema_decay), (1 + step) / (10 + step))
