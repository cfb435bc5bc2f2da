"""The weights to use: model.safetensors."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vaekit.config import MAX_CHANNELS, MAX_IMAGE_SIZE, ModelConfig, to_dict
from vaekit.images.appearance import Appearance, appearance_from
from vaekit.models.vae import VAE
from vaekit.runs.folder import RunFolder
from vaekit.settings import from_dict
from vaekit.storage.damage import Damaged, as_written, strings, typed
from vaekit.storage.tensors import difference, read_tensors, write_tensors

FORMAT = "vaekit-weights"
FORMAT_VERSION = 1


class Weights(NamedTuple):
    """The weights of a run with what is needed to use them."""

    vae: VAE
    class_names: tuple[str, ...]
    images_sha256: str  # of the images it was trained and tested on
    appearance: Appearance | None  # of those it was trained on; None where that is not recorded


def write_weights(
    run: RunFolder,
    vae: VAE,
    class_names: tuple[str, ...],
    images_sha256: str,
    appearance: Appearance | None = None,
) -> None:
    """Write the weights to use, with the model, the classes and the images they are of."""
    metadata = {
        "model": to_dict(vae.config),
        "image_shape": vae.image_shape,
        "class_names": class_names,
        "images_sha256": images_sha256,
        "appearance": None if appearance is None else asdict(appearance),
    }
    write_tensors(run.model, vae.state_dict(), metadata, format_name=FORMAT, version=FORMAT_VERSION)


def read_weights(path: Path) -> Weights:
    """What `write_weights` wrote, strictly: every tensor of the model, no other.

    Raises `Damaged` where the file is something else.
    """
    state, metadata = read_tensors(path, format_name=FORMAT, version=FORMAT_VERSION)
    with as_written():
        image_shape = _image_shape(metadata["image_shape"])
        config = from_dict(ModelConfig, typed(metadata["model"], dict))
        class_names = strings(metadata["class_names"])
        images_sha256 = typed(metadata["images_sha256"], str)
        looks = metadata.get("appearance")
        appearance = None if looks is None else appearance_from(looks)
        with torch.device("meta"):  # takes no memory, however large a forged model would be
            vae = VAE(config, image_shape)
    fault = difference(state, vae.state_dict())
    if fault is not None:
        raise Damaged(f"not the weights of its model ({fault})")
    vae.to_empty(device="cpu").load_state_dict(state)
    vae.eval().requires_grad_(False)
    return Weights(vae, class_names, images_sha256, appearance)


def _image_shape(value: Any) -> tuple[int, int, int]:
    channels, height, width = (typed(length, int) for length in value)
    if not 1 <= channels <= MAX_CHANNELS or min(height, width) < 1:
        raise ValueError(f"images of shape {value}")
    if max(height, width) > MAX_IMAGE_SIZE:
        raise ValueError(f"images of shape {value}, expected at most {MAX_IMAGE_SIZE} pixels")
    return channels, height, width
