"""pythae's VAE on the images of a run, trained as long as the run was:

    python -m bench.pythae_net RUN

It has the convolutional net that pythae ships for images of that size, the run's split, batch size
and number of latents, and pythae's trainer with vaekit's learning rate. Needs the extra `peers`.
"""

import argparse
import tempfile
import time
from importlib import import_module

import numpy as np
import pythae.models
import torch
from numpy.typing import NDArray
from pythae.data.datasets import BaseDataset
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch import nn

from bench.plain_loops import LEARNING_RATE
from vaekit.config import SvmConfig, settled
from vaekit.images.image_set import Images
from vaekit.images.pixels import ImageShape, as_floats
from vaekit.models.vae import num_parameters
from vaekit.runs.run import Run
from vaekit.svm.fit import fit_table, weights_of_latents, with_weight
from vaekit.svm.table import predict

NETS = {28: "MNIST", 32: "CIFAR", 64: "CELEBA"}  # by the side of the images they are for
BATCH_SIZE = 100  # images encoded at once


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.pythae_net")
    parser.add_argument("run", metavar="RUN", help="a trained run of labelled images")
    run = Run(parser.parse_args().run)
    images, config = run.images, run.config
    latent_dim = settled(config.model.latent_dim)
    seconds = sum(row["seconds"] for row in run.metrics[1:])
    net = NETS[images.shape[1]]
    torch.manual_seed(config.seed)
    vae = pythae_vae(net, images.shape, latent_dim)
    print(
        f"pythae's {net} net, {num_parameters(vae):,} parameters, {latent_dim} latents; "
        f"at least {seconds:.0f} s of training",
        flush=True,
    )
    num_epochs = train_as_long(vae, images.train.pixels, settled(config.batch_size), seconds)
    error, accuracy = measure(vae.eval(), images)
    print(f"epochs: {num_epochs}, test MSE {error:.4f}, SVM accuracy {accuracy:.4f}")


def pythae_vae(net: str, shape: ImageShape, latent_dim: int) -> pythae.models.VAE:
    """Of images of `shape`, with the net's first and last layers for that many channels."""
    layers = import_module(f"pythae.models.nn.benchmarks.{net.lower()}")
    config = pythae.models.VAEConfig(
        input_dim=shape,
        latent_dim=latent_dim,
        reconstruction_loss="bce" if shape[0] == 1 else "mse",
    )
    encoder = getattr(layers, f"Encoder_Conv_VAE_{net}")(config)
    decoder = getattr(layers, f"Decoder_Conv_AE_{net}")(config)
    first, last = encoder.layers[0][0], decoder.layers[-1][0]
    encoder.layers[0][0] = nn.Conv2d(
        shape[0], first.out_channels, first.kernel_size, first.stride, first.padding
    )
    decoder.layers[-1][0] = nn.ConvTranspose2d(
        last.in_channels,
        shape[0],
        last.kernel_size,
        last.stride,
        last.padding,
        last.output_padding,
    )
    return pythae.models.VAE(config, encoder, decoder)


def train_as_long(
    vae: pythae.models.VAE, pixels: NDArray[np.uint8], batch_size: int, seconds: float
) -> int:
    """How many epochs it took."""
    images = as_floats(torch.from_numpy(pixels))
    with tempfile.TemporaryDirectory() as folder:
        trainer = BaseTrainer(
            vae,
            BaseDataset(images, torch.zeros(len(images))),
            training_config=BaseTrainerConfig(
                output_dir=folder,
                per_device_train_batch_size=batch_size,
                learning_rate=LEARNING_RATE,
                no_cuda=True,
            ),
        )
        trainer.prepare_training()
        start, epoch = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            epoch += 1
            trainer.train_step(epoch=epoch)
    return epoch


@torch.inference_mode()
def measure(vae: pythae.models.VAE, images: Images) -> tuple[float, float]:
    """The error of the test images' reconstructions from the means, and vaekit's SVM on latents."""
    latents, error = [], 0.0
    for pixels in (images.train.pixels, images.test.pixels):
        rows, error = [], 0.0
        for batch in torch.from_numpy(pixels).split(BATCH_SIZE):
            floats = as_floats(batch)
            encoded = vae.encoder(floats)
            rows.append(torch.cat([encoded.embedding, encoded.log_covariance], dim=1))
            decoded = vae.decoder(encoded.embedding)["reconstruction"]
            error += float((decoded - floats).square().sum())
        latents.append(torch.cat(rows).numpy())
    assert images.train.labels is not None
    assert images.test.labels is not None
    num_latents, num_features = latents[0].shape
    weights = weights_of_latents(with_weight(SvmConfig(), num_latents), num_features)
    table = fit_table(latents[0], images.train.labels, SvmConfig(), weights=weights)
    right = predict(table, latents[1]).labels == images.test.labels
    return error / images.test.pixels.size, float(right.mean())


if __name__ == "__main__":
    main()
