"""What `auto` comes to, once the images are known."""

from dataclasses import replace

from vaekit.config import TrainConfig
from vaekit.errors import UserError
from vaekit.images.sets import Images


def settle(config: TrainConfig, images: Images) -> TrainConfig:
    """`config` with every `auto` decided by one rule for all sets; decided ones stay as they are.

    Raises `UserError` where a setting doesn't fit the images.
    """
    has_validation = images.validation is not None
    if config.keep == "best" and not has_validation:
        raise UserError(
            "--keep best: there is no validation set to choose by; hold one out of the training "
            "images with --data.validation 0.1, or give --keep last"
        )
    keep = ("best" if has_validation else "last") if config.keep == "auto" else config.keep
    return replace(config, keep=keep, data=images.data or config.data)
