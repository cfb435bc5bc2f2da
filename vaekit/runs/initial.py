"""The weights of another run, which a run starts from."""

from dataclasses import replace
from typing import NamedTuple

from vaekit.config import ModelConfig, TrainConfig, flatten, to_dict
from vaekit.errors import UserError
from vaekit.images.pixels import ImageShape
from vaekit.models.vae import VAE
from vaekit.runs.folder import RunFolder
from vaekit.runs.products import WEIGHTS
from vaekit.runs.run import Run
from vaekit.settings import from_dict

UNDECIDED = "auto"


class Initial(NamedTuple):
    """Weights to start from; `sha256` is that of their file."""

    vae: VAE
    sha256: str


def read_initial(config: TrainConfig, run: RunFolder) -> Initial | None:
    """The weights that `config.init_from` names, of the model that `config` asks for.

    None without such a run, and for a `run` that has a checkpoint: it goes on from that and needs
    the other no more. Raises `UserError` where the other run is missing, damaged, `run` itself, of
    another model, or has by now other weights than those that the config asks for.
    """
    if config.init_from is None or any(run.checkpoints.glob("step-*.safetensors")):
        return None
    flag, other = f"--init_from {config.init_from}", Run(config.init_from)
    if other.folder.path.resolve() == run.path.resolve():
        raise UserError(
            f"{flag}: the run itself; leave the flag out to go on with it, or give another --run "
            f"to train its weights further"
        )
    try:
        initial = Initial(other.weights.vae, str(other.sha256(WEIGHTS.name)))
    except UserError as error:
        raise UserError(f"{flag}: {error}") from error
    if config.init_sha256 not in (UNDECIDED, initial.sha256):
        raise UserError(
            f"{flag}: its weights have sha256 {initial.sha256}, expected {config.init_sha256}; put "
            f"those back, or start another --run with --init_sha256 {UNDECIDED}"
        )
    recorded, asked_for = _settings(initial.vae.config), _settings(config.model)
    if others := {name for name, it in asked_for.items() if it not in (UNDECIDED, recorded[name])}:
        as_typed = {name: str(recorded[name]).replace(" ", "") for name in recorded}
        flags = (f"--model.{name} {as_typed[name]}" for name in recorded if name in others)
        raise UserError(f"{flag}: of another model; give {', '.join(flags)}, or another run")
    return initial


def starting_from(initial: Initial | None, config: TrainConfig, shape: ImageShape) -> TrainConfig:
    """`config` for images of `shape`, with the model of the weights and their hash recorded.

    Raises `UserError` where the weights are of images of another shape.
    """
    if initial is None:
        return config
    if initial.vae.image_shape != shape:
        found, expected = ("x".join(map(str, each)) for each in (initial.vae.image_shape, shape))
        raise UserError(
            f"--init_from {config.init_from}: of images of {found} (channels, height, width), "
            f"these are of {expected}; give such images, as by --data.image_size, or another run"
        )
    recorded, asked_for = _settings(initial.vae.config), _settings(config.model)
    model = {name: recorded[name] if it == UNDECIDED else it for name, it in asked_for.items()}
    return replace(config, model=from_dict(ModelConfig, model), init_sha256=initial.sha256)


def _settings(config: ModelConfig) -> dict[str, object]:
    return flatten(to_dict(config))
