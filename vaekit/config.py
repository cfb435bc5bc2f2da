"""The settings of a run and of an SVM: frozen, validated, and what is to be known of each."""

import dataclasses
import re
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from vaekit.errors import UserError

ImageSetName = Literal[
    "mnist", "fashion-mnist", "kmnist", "digits", "folder", "arrays", "idx", "datasets"
]

MAX_IMAGE_SIZE = 1024  # pixels: the kit is for small images
MAX_CHANNELS = 4  # red, green, blue and alpha
MAX_WIDTH = 65_536
MixedPrecision = Literal["auto", "no", "bf16", "fp16"]
GradientExchange = Literal["float32", "bf16"]
Fit = Literal["stretch", "pad", "crop"]
Pages = Literal["first", "all"]
FolderReading = Literal["auto", "content", "suffix"]
Keep = Literal["auto", "best", "last"]
ClassWeight = Literal["balanced"]
SvmBackend = Literal["sklearn", "cuml"]
SvmBackendFlag = Literal["auto", "sklearn", "cuml"]

LONG_EPOCH = 600.0  # seconds
PAYING = 10.0

_CADENCE = re.compile(r"([1-9][0-9]{0,8})(steps|min)?")


_COLOUR = re.compile(r"auto|none|white|black|grey|#[0-9a-fA-F]{6}")
_RANGE = re.compile(r"(-?[0-9.]+(?:e[-+]?[0-9]+)?),(-?[0-9.]+(?:e[-+]?[0-9]+)?)")
_SIZE = re.compile(r"([0-9]{1,9})(?:,([0-9]{1,9}))?")


def setting(default: Any, *, before: Any = MISSING, off_trajectory: bool = False) -> Any:
    """A field with a default for new runs, and with what is to be known of it beyond its type.

    Args:
        default: Its value in a run that is started now.
        before: What runs did that were recorded before the setting existed; a setting without it
            has been there from the first version.
        off_trajectory: It changes where things lie or what is shown, never a weight.
    """
    known = {} if before is MISSING else {"before": before}
    return field(default=default, metadata={"off_trajectory": off_trajectory, **known})


@dataclass(frozen=True)
class DataConfig:
    """Which images, and how they are prepared."""

    name: ImageSetName = "mnist"
    """A download, scikit-learn's digits, or one's own: a folder, arrays, IDX files, a data set."""

    root: str = setting("data", off_trajectory=True)
    """Folder of the images or file of arrays (downloads go there), or name of a data set."""

    image_size: int | str = 28
    """Pixels a side to which digits and folder images are resized, or HEIGHT,WIDTH."""

    fit: Fit = setting("stretch", before="stretch")
    """What is done to an image of another aspect: stretch it, pad it, or crop it to its middle."""

    background: str = setting("auto", before="none")
    """Colour under transparent images, as white or #20a0ff; none keeps alpha as a channel."""

    channels: int | None = setting(None, before=None)
    """1 grey, 2 with alpha, 3 RGB, 4 with alpha (default: 3 where a file has colour, else 1)."""

    value_range: str = setting("auto", before="0,65535")
    """LOW,HIGH that become black and white in files of more than 8 bits (auto: the bits in use)."""

    pages: Pages = setting("first", before="first")
    """Of an animation or a file of several pages, the first or all of them."""

    reading: FolderReading = setting("auto", before="suffix")
    """Find images by content, and keep copies on one side of a split; or by suffix, as once."""

    image_column: str | None = setting(None, before=None)
    """Of a data set, the column with the images, where several could be meant."""

    label_column: str | None = setting(None, before=None)
    """Of a data set, the column with the labels, where several could be meant."""

    limit: int | None = None
    """Use only the first so many images of the training and of the test set."""

    holdout: int | None = setting(None, before=None)
    """Test on so many held-out training images, to choose settings without the test set."""

    validation: int | float = setting(0, before=0)
    """Hold out so many training images, or that share of them, to choose the weights by: --keep."""

    resident_limit: int | None = setting(None, before=None, off_trajectory=True)
    """Megabytes of images kept on the device; batches of more are fetched (default: half a GPU)."""

    skip_unreadable: bool = setting(False, before=False, off_trajectory=True)
    """Go on without the images of a folder that can't be decoded, instead of stopping."""

    strict: bool = setting(False, before=False, off_trajectory=True)
    """Stop where anything would not be used, or used as something else, instead of saying so."""

    def __post_init__(self) -> None:
        height, width = self.size
        object.__setattr__(self, "image_size", height if height == width else f"{height},{width}")
        for side in (height, width):
            _at_least("--data.image_size", side, 8)
            _at_most("--data.image_size", side, MAX_IMAGE_SIZE)
        if _COLOUR.fullmatch(self.background) is None:
            raise UserError(
                f"--data.background {self.background}: expected auto, white, black, grey, a colour "
                f"as #20a0ff, or none"
            )
        if self.value_range != "auto":
            parse_value_range(self.value_range)
        if self.channels is not None:
            _at_least("--data.channels", self.channels, 1)
            _at_most("--data.channels", self.channels, MAX_CHANNELS)
        if self.resident_limit is not None:
            _at_least("--data.resident_limit", self.resident_limit, 0)
        if self.limit is not None:
            _at_least("--data.limit", self.limit, 1)
        if self.holdout is not None:
            _at_least("--data.holdout", self.holdout, 1)
        _number_or_share("--data.validation", self.validation)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        match = _SIZE.fullmatch(str(self.image_size))
        if match is None:
            raise UserError(
                f"--data.image_size {self.image_size}: expected pixels a side, or HEIGHT,WIDTH as "
                f"32,48"
            )
        return int(match[1]), int(match[2] or match[1])


@dataclass(frozen=True)
class DataPlace:
    """Where the images of a run lie now."""

    root: str | None = None
    """Folder or file of the images, where they have moved since the run was trained."""


AS_TRAINED = DataPlace()


@dataclass(frozen=True)
class ModelConfig:
    """The convolutional VAE; the defaults are the reference. Image shapes come from the data."""

    latent_dim: int = 10
    """Number of latent dimensions."""

    conv_channels: tuple[int, ...] = (16, 32)
    """Output channels of each 3x3 convolution of the encoder; the decoder mirrors them."""

    hidden_dims: tuple[int, ...] = (512, 256)
    """Widths of the encoder's linear layers; the decoder mirrors them."""

    def __post_init__(self) -> None:
        _at_least("--model.latent_dim", self.latent_dim, 1)
        _at_most("--model.latent_dim", self.latent_dim, MAX_WIDTH)
        for flag, widths in (
            ("--model.conv_channels", self.conv_channels),
            ("--model.hidden_dims", self.hidden_dims),
        ):
            if not widths:
                raise UserError(f"{flag} {list(widths)}: expected at least one width, as in [16]")
            for width in widths:
                _at_least(flag, width, 1)
                _at_most(flag, width, MAX_WIDTH)


@dataclass(frozen=True)
class TrainConfig:
    """A training run. Together with the images it determines every weight of the result."""

    run: str | None = setting(None, off_trajectory=True)
    """Run folder (default: runs/ and the name of the image set)."""

    data: DataConfig = field(default_factory=DataConfig)
    """Which images, and how they are prepared."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """The convolutional VAE."""

    init_from: str | None = setting(None, before=None)
    """Start from the weights of this run, of the same model, with whatever images."""

    init_sha256: str = setting("auto", before="auto")
    """The sha256 that the weights started from must have (auto: any); a run records theirs."""

    epochs: int = 20
    """Passes over the training set."""

    batch_size: int = 128
    """Images a step, over all processes together."""

    learning_rate: float = 1e-3
    """Peak learning rate of Adam; a cosine takes it to zero."""

    warmup_steps: int = 200
    """Steps over which the learning rate rises linearly to its peak."""

    weight_decay: float = setting(0.0, before=0.0)
    """Decoupled weight decay (AdamW) of the weights, not of the biases."""

    input_noise: float = setting(0.0, before=0.0)
    """Standard deviation of Gaussian noise on what the encoder sees; the target stays clean."""

    ema_decay: float = 0.999
    """Decay a step of the averaged weights, ramped up from zero; 0 turns the average off."""

    keep: Keep = setting("auto", before="last")
    """Weights to use: of the last epoch, or of the best on a validation set (auto: if any)."""

    seed: int = 0
    """Seed of the initial weights, the order of the images and the noise."""

    mixed_precision: MixedPrecision = "auto"
    """auto is bf16 on GPUs that compute it natively, and elsewhere no, which is float32."""

    gradient_exchange: GradientExchange = setting("float32", before="float32")
    """Precision in which several processes exchange gradients; bf16 halves the traffic."""

    sample_every: int = setting(5, off_trajectory=True)
    """Epochs between pictures of generated images and reconstructions."""

    checkpoint_every: int | str = setting("auto", off_trajectory=True)
    """Epochs, steps or minutes between checkpoints, as 2, 500steps or 10min; auto: as they pay."""

    tracker: str | None = setting(None, off_trajectory=True)
    """Experiment tracker that Accelerate knows, as tensorboard (default: none)."""

    def __post_init__(self) -> None:
        if self.run is None:
            object.__setattr__(self, "run", str(Path("runs") / self.data.name))
        if self.init_from is None and self.init_sha256 != "auto":
            raise UserError(f"--init_sha256 {self.init_sha256:.100}: give --init_from RUN with it")
        _at_least("--epochs", self.epochs, 1)
        _at_least("--batch_size", self.batch_size, 1)
        _at_least("--warmup_steps", self.warmup_steps, 0)
        _at_least("--seed", self.seed, 0)
        _at_least("--sample_every", self.sample_every, 1)
        parse_cadence("--checkpoint_every", str(self.checkpoint_every))
        _at_least("--weight_decay", self.weight_decay, 0)
        _at_least("--input_noise", self.input_noise, 0)
        _positive("--learning_rate", self.learning_rate)
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"--ema_decay {self.ema_decay}: expected a number from 0 to below 1")


@dataclass(frozen=True)
class SvmConfig:
    """An RBF support vector machine on standardised latents."""

    C: float = 10.0
    """Penalty of a margin violation."""

    gamma: float = 1.0
    """Inverse width of the kernel, in units of 1 / number of features."""

    class_weight: ClassWeight | None = setting(None, before=None)
    """balanced makes C greater for rare classes: by number of images / (classes * its images)."""

    def __post_init__(self) -> None:
        _positive("--C", self.C)
        _positive("--gamma", self.gamma)


def check_jobs(jobs: int | None) -> None:
    """Raise `UserError` for a number of jobs below 1; None stands for one a core."""
    if jobs is not None:
        _at_least("--jobs", jobs, 1)


class Cadence(NamedTuple):
    """How often something is done; one of the three is set, or none: as it pays.

    That is at the end of an epoch, and in a long one every ten minutes, but never before ten
    times as long has passed as doing it took the last time.
    """

    epochs: int | None = None
    steps: int | None = None
    seconds: float | None = None

    def is_due(
        self, epoch: int | None, step: int, seconds_passed: float, seconds_taken: float
    ) -> bool:
        """At the end of `epoch` (None within one), after `step` steps of the run.

        It was last done `seconds_passed` ago, which took `seconds_taken`.
        """
        if self == Cadence():
            is_time = epoch is not None or seconds_passed >= LONG_EPOCH
            return is_time and seconds_passed >= PAYING * seconds_taken
        if self.epochs is not None:
            return epoch is not None and epoch % self.epochs == 0
        if self.steps is not None:
            return step % self.steps == 0
        return self.seconds is not None and seconds_passed >= self.seconds


def parse_cadence(flag: str, text: str) -> Cadence:
    """`2` epochs, `500steps`, `10min` or `auto`. Raises `UserError`, naming `flag`, for others."""
    if text == "auto":
        return Cadence()
    match = _CADENCE.fullmatch(text)
    if match is None:
        raise UserError(
            f"{flag} {text}: expected a number of epochs, of steps or of minutes, as 2, 500steps "
            f"or 10min, or auto"
        )
    count = int(match[1])
    if match[2] == "steps":
        return Cadence(steps=count)
    return Cadence(seconds=60.0 * count) if match[2] == "min" else Cadence(epochs=count)


def parse_value_range(text: str) -> tuple[float, float]:
    """`LOW,HIGH` as numbers. Raises `UserError` for anything else."""
    match = _RANGE.fullmatch(text)
    try:
        low, high = (float(match[1]), float(match[2])) if match else (0.0, 0.0)
    except ValueError:  # 1.2.3
        low = high = 0.0
    if not low < high < float("inf"):
        raise UserError(
            f"--data.value_range {text}: expected LOW,HIGH, two finite numbers with LOW below "
            f"HIGH, as 0,4095, or auto"
        )
    return low, high


def fields_by_flag(config_type: Any, prefix: str = "") -> dict[str, dataclasses.Field[Any]]:
    """The fields of a config dataclass and of its groups under the names of their flags."""
    by_flag: dict[str, dataclasses.Field[Any]] = {}
    for each in dataclasses.fields(config_type):
        if dataclasses.is_dataclass(each.type):
            by_flag |= fields_by_flag(each.type, f"{prefix}{each.name}.")
        else:
            by_flag[prefix + each.name] = each
    return by_flag


def trajectory_differences(recorded: TrainConfig, given: TrainConfig) -> list[str]:
    """The settings that would change the weights, as lines `name: recorded -> given`.

    A precision that is left `auto`, as older runs record it, says nothing: what it came to is
    recorded beside the weights.
    """
    if "auto" in (recorded.mixed_precision, given.mixed_precision):
        given = dataclasses.replace(given, mixed_precision=recorded.mixed_precision)
    before, after = flatten(to_dict(recorded)), flatten(to_dict(given))
    return [
        f"{name}: {before[name]} -> {after[name]}"
        for name, each in fields_by_flag(TrainConfig).items()
        if not each.metadata.get("off_trajectory") and before[name] != after[name]
    ]


def to_dict(config: Any) -> dict[str, Any]:
    """A config dataclass as plain YAML and JSON values."""
    plain: dict[str, Any] = dataclasses.asdict(
        config,
        dict_factory=lambda items: {
            key: list(value) if isinstance(value, tuple) else value for key, value in items
        },
    )
    return plain


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under the names of their flags, as `data.name`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _at_least(flag: str, value: float, minimum: float) -> None:
    if not minimum <= value < float("inf"):
        raise UserError(f"{flag} {value}: expected at least {minimum}")


def _at_most(flag: str, value: float, maximum: float) -> None:
    if value > maximum:
        raise UserError(f"{flag} {value}: expected at most {maximum}")


def _number_or_share(flag: str, value: float) -> None:
    if not (0 <= value < 1 or (isinstance(value, int) and value > 0)):
        raise UserError(
            f"{flag} {value}: expected a number of images, or a share from 0 to below 1"
        )


def _positive(flag: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise UserError(f"{flag} {value}: expected a finite number above 0")
