"""Going on from the newest checkpoint of a run folder, where that gives the same run."""

from dataclasses import replace

from vaekit.config import TrainConfig, trajectory_differences
from vaekit.errors import UserError
from vaekit.runs.checkpoints import load_newest_checkpoint
from vaekit.runs.environment import read_environment
from vaekit.runs.folder import RunFolder
from vaekit.settings import from_dict
from vaekit.storage.damage import as_written, damage_told
from vaekit.storage.tensors import difference
from vaekit.training.precision import TITLES
from vaekit.training.state import Checkpoint, Training


def with_recorded_precision(config: TrainConfig, run: RunFolder) -> TrainConfig:
    """`config`, where a precision that even the run recorded as `auto` is that of its last start.

    Runs of early versions did; they go on as they began. Raises `UserError` where
    environment.json is damaged.
    """
    if config.mixed_precision != "auto" or not run.environment.is_file():
        return config
    with damage_told(run.environment, "remove it"):
        starts = read_environment(run.environment)
    precision = starts[-1].get("mixed_precision") if starts else None
    return replace(config, mixed_precision=precision) if precision in TITLES else config


def resume(training: Training, run: RunFolder) -> None:
    """Continue from the newest whole checkpoint, where there is one.

    Raises `UserError` where it is one of another run.
    """
    checkpoint = load_newest_checkpoint(run.checkpoints)
    if checkpoint is None:
        return
    require_same_run(training, run, checkpoint)
    expected = training.tensors() | {"losses": checkpoint.tensors["losses"]}
    if fault := difference(checkpoint.tensors, expected):
        raise UserError(
            f"{run.checkpoints}: the checkpoint of step {checkpoint.step} is not one of "
            f"this model ({fault}); give another --run folder"
        )
    training.restore(checkpoint)


def require_same_run(training: Training, run: RunFolder, checkpoint: Checkpoint) -> None:
    """Raise `UserError` where going on from `checkpoint` would give another trajectory."""
    recorded = checkpoint.metadata
    if recorded["images_sha256"] != training.images_sha256:
        raise UserError(
            f"--data.root {training.config.data.root}: other images, labels or classes than "
            f"{run.path} was started on; put those back, or give another --run folder"
        )
    for name, value in training.requirements().items():
        if recorded[name] != value:
            raise UserError(
                f"{run.path}: its checkpoint was made with {name} {recorded[name]}, this start "
                f"has {value}; resume it the way it was started, or give another --run folder"
            )
    with damage_told(run.checkpoints, "give another --run folder"), as_written():
        recorded_config = from_dict(TrainConfig, recorded["config"])
    if differences := trajectory_differences(recorded_config, training.config):
        raise UserError(
            f"{run.path}: its checkpoint was made with other settings "
            f"({'; '.join(differences)}); put its config.yaml back, or give another --run folder"
        )
