"""pythae's own trainer, on vaekit's encoder and decoder. Needs the extra `peers`."""

from pathlib import Path

import numpy as np
import pythae.models
import torch
from numpy.typing import NDArray
from pythae.data.datasets import BaseDataset
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch import Tensor, nn

from bench.plain_loops import (
    LEARNING_RATE,
    Epoch,
    Precision,
    autocast,
    device_of,
    synchronise,
)
from vaekit.models.vae import VAE


class PythaeEncoder(BaseEncoder):
    def __init__(self, encoder: nn.Module, precision: Precision) -> None:
        super().__init__()
        self.encoder = encoder
        self.precision = precision

    def forward(self, x: Tensor) -> ModelOutput:
        with autocast(x.device, self.precision):
            mean, log_variance = self.encoder(x)
        return ModelOutput(embedding=mean, log_covariance=log_variance)


class PythaeDecoder(BaseDecoder):
    """pythae's loss is of probabilities."""

    def __init__(self, decoder: nn.Module, precision: Precision) -> None:
        super().__init__()
        self.decoder = decoder
        self.precision = precision

    def forward(self, z: Tensor) -> ModelOutput:
        with autocast(z.device, self.precision):
            logits = self.decoder(z)
        return ModelOutput(reconstruction=torch.sigmoid(logits.float()))


def train_with_pythae(
    vae: VAE, pixels: NDArray[np.uint8], batch_size: int, precision: Precision, folder: Path
) -> Epoch:
    """An epoch of BaseTrainer as `train` runs it, without evaluation and files.

    Its own `amp` does nothing with this loss: `precision` is that of the two networks.
    """
    device = device_of(vae)
    config = pythae.models.VAEConfig(
        input_dim=vae.image_shape,
        latent_dim=vae.latent_dim,
        reconstruction_loss="bce",
    )
    images = torch.from_numpy(pixels).float().div_(255)
    trainer = BaseTrainer(
        pythae.models.VAE(
            config, PythaeEncoder(vae.enc, precision), PythaeDecoder(vae.dec, precision)
        ),
        BaseDataset(images, torch.zeros(len(images))),
        training_config=BaseTrainerConfig(
            output_dir=str(folder),
            per_device_train_batch_size=batch_size,
            learning_rate=LEARNING_RATE,
            no_cuda=device.type == "cpu",
        ),
    )
    trainer.prepare_training()

    def epoch() -> float:
        loss = trainer.train_step(epoch=1)
        trainer.callback_handler.on_epoch_end(training_config=trainer.training_config)
        synchronise(device)
        return float(loss)

    return epoch
