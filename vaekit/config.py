"""The settings of a run and of an SVM: frozen, validated, and what is to be known of each."""

import dataclasses
import re
from dataclasses import MISSING, dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from vaekit.errors import UserError

ImageSetName = Literal[
    "mnist", "fashion-mnist", "kmnist", "digits", "folder", "arrays", "idx", "datasets"
]

IN_MEMORY = "(arrays in memory)"  # the root of images that were handed over, and lie nowhere
MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 8, 1024  # pixels: the kit is for small images
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
ArchitectureName = Literal["auto", "reference", "conv"]
LikelihoodName = Literal["auto", "bernoulli", "gaussian", "logistic"]
ToPixels = Literal["auto", "shuffled", "transposed"]
KlGradient = Literal["auto", "exact", "path"]
Auto = Literal["auto"]
AutoWidths = tuple[int, ...] | Auto
AutoInt = int | Auto  # follows from the images; a run records what it came to

LONG_EPOCH = 600.0  # seconds
PAYING = 10.0

_CADENCE = re.compile(r"([1-9][0-9]{0,8})(steps|min)?")


_COLOUR = re.compile(r"auto|none|white|black|grey|#[0-9a-fA-F]{6}")
_RANGE = re.compile(r"(-?[0-9.]+(?:e[-+]?[0-9]+)?),(-?[0-9.]+(?:e[-+]?[0-9]+)?)")
_SIZE = re.compile(r"([0-9]{1,9})(?:,([0-9]{1,9}))?")

Known = TypeVar("Known")


def settled(value: Known | Auto | None) -> Known:
    """A setting that followed from the images, which have settled it by now."""
    assert value is not None
    assert value != "auto"
    return value


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
            _at_least("--data.image_size", side, MIN_IMAGE_SIZE)
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
    """The convolutional VAE. Image shapes come from the data, and so does what is left `auto`."""

    architecture: ArchitectureName = setting("auto", before="reference")
    """reference, without downsampling (auto for MNIST and its kin), or conv, strided."""

    likelihood: LikelihoodName = setting("auto", before="bernoulli")
    """Of pixels: bernoulli (auto for grey but photographs), gaussian (for others) or logistic."""

    latent_dim: AutoInt = "auto"
    """Number of latent dimensions (auto: 10 of the reference, of conv by the size of images)."""

    width: AutoInt | None = setting("auto", before=None)
    """Of conv: channels of the largest features; those of 4x4 pixels are 4 times as many."""

    conv_channels: AutoWidths | None = "auto"
    """Of the reference: output channels of each 3x3 convolution; the decoder mirrors them."""

    hidden_dims: AutoWidths | None = "auto"
    """Of the reference: widths of the encoder's linear layers; the decoder mirrors them."""

    to_pixels: ToPixels = setting("auto", before="transposed")
    """Of conv: the last convolution, shuffled (auto, but with components) or transposed."""

    thumbnail: bool | Auto = setting("auto", before=False)
    """Of conv: shown to the encoder (auto where pixels are means; false: start from components)."""

    block_norm: bool | Auto = setting("auto", before=False)
    """Of conv: norm and SiLU after the decoder's residual blocks, too (auto for Bernoulli)."""

    block_bottleneck: bool | Auto = setting("auto", before=False)
    """Of conv: half the channels inside the encoder's blocks (auto: from 10,000 images on)."""

    def __post_init__(self) -> None:
        _at_least_or_auto("--model.latent_dim", self.latent_dim, 1)
        if self.latent_dim != "auto":
            _at_most("--model.latent_dim", self.latent_dim, MAX_WIDTH)
        width = None if self.width == "auto" else self.width
        if width is not None:
            _at_least("--model.width", width, 1)
            _at_most("--model.width", width, MAX_WIDTH)
        for flag, widths in self._of_reference().items():
            if self.architecture == "conv":
                raise UserError(
                    f"{flag} {list(widths)}: is of the architecture reference, this is conv; give "
                    f"--model.width, or --model.architecture reference"
                )
            if width is not None:
                raise UserError(
                    f"--model.width {width}: is of the architecture conv, and {flag} of "
                    f"reference; leave one of them out"
                )
            if not widths:
                raise UserError(f"{flag} {list(widths)}: expected at least one width, as in [16]")
            for each in widths:
                _at_least(flag, each, 1)
                _at_most(flag, each, MAX_WIDTH)
        for name, given, of_conv in (
            ("to_pixels", self.to_pixels, "shuffled"),
            ("thumbnail", self.thumbnail, True),
            ("block_norm", self.block_norm, True),
            ("block_bottleneck", self.block_bottleneck, True),
        ):
            if given == of_conv and (self.architecture == "reference" or self._of_reference()):
                raise UserError(
                    f"--model.{name} {str(given).lower()}: is of the architecture conv, this is "
                    f"reference; leave it out"
                )
        if self.architecture == "reference" and width is not None:
            raise UserError(
                f"--model.width {width}: is of the architecture conv, this is reference; give "
                f"--model.conv_channels and --model.hidden_dims, or --model.architecture conv"
            )

    def _of_reference(self) -> dict[str, tuple[int, ...]]:
        """The settings of the reference's architecture that are set, by flag."""
        flags = {"conv_channels": self.conv_channels, "hidden_dims": self.hidden_dims}
        return {
            f"--model.{name}": widths
            for name, widths in flags.items()
            if widths is not None and widths != "auto"
        }


@dataclass(frozen=True)
class TrainConfig:
    """Train a VAE on images. Together with them this determines every weight of the result.

    As in `vaekit train --data.name folder --data.root my_images --run runs/mine`.
    """

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

    epochs: AutoInt = "auto"
    """Passes over the training set (auto: 20, or what gives a small set its steps)."""

    batch_size: AutoInt = "auto"
    """Images a step, over all processes together (auto: 128, or less for a small set)."""

    learning_rate: float | Auto = "auto"
    """Peak learning rate of Adam; a cosine takes it to zero (auto: by the model)."""

    warmup_steps: AutoInt = "auto"
    """Steps over which the learning rate rises linearly (auto: 200, at most 5 % of the run)."""

    adam_beta2: float | Auto = setting("auto", before=0.999)
    """Decay of Adam's mean of squared gradients (auto: 0.99 for conv, 0.999 from components)."""

    weight_decay: float | Auto = setting("auto", before=0.0)
    """Decoupled (AdamW), of weights (auto: 0.05 for grey conv, 4 a run for colour, else 0)."""

    beta: float = setting(1.0, before=1.0)
    """Weight of the KL in what a step minimises; every loss that is reported has it at 1."""

    kl_warmup: float | Auto = setting("auto", before=0.0)
    """Share of the run over which that weight rises linearly from 0 (auto: 0.25 for reference)."""

    free_bits: float = setting(0.0, before=0.0)
    """Nats of KL that each latent dimension of an image may have for nothing in a step."""

    kl_gradient: KlGradient = setting("auto", before="exact")
    """Of the KL itself, or of a sample's path alone, with less noise (auto: path for grey conv)."""

    temperature: float | Auto = setting("auto", before=1.0)
    """Variance of posteriors in a step, and KL, times that (auto: 0.6 for conv of few in grey)."""

    num_samples: int = setting(1, before=1)
    """Latents drawn for each image in a step."""

    importance_weighted: bool = setting(False, before=False)
    """Minimise the importance-weighted bound of these samples instead of their mean."""

    input_noise: float = setting(0.0, before=0.0)
    """Standard deviation of Gaussian noise on what the encoder sees; the target stays clean."""

    augment: bool | Auto = setting("auto", before=False)
    """Rotate, scale and shift images a little (auto: of conv few in colour, long runs in grey)."""

    augment_share: float | Auto = setting("auto", before=1.0)
    """Share of the images of a step that are augmented (auto: 0.5 for grey conv, else 1)."""

    augment_until: float | Auto = setting("auto", before=1.0)
    """Share of the run after which none is augmented (auto: 0.75 for grey conv, else 1)."""

    ema_decay: float | Auto = "auto"
    """Decay a step of the averaged weights, ramped up; 0: no average (auto: 0.999 or less)."""

    keep: Keep = setting("auto", before="last")
    """Weights to use: of the last epoch, or of the best on a validation set (auto: if any)."""

    seed: int = 0
    """Seed of the initial weights, the order of the images and the noise."""

    mixed_precision: MixedPrecision = "auto"
    """auto is bf16 on GPUs that compute it natively, and elsewhere no, which is float32."""

    compile: bool = setting(False, before=False)
    """Compile the step that a GPU records: worth its half minute in runs of many steps."""

    gradient_exchange: GradientExchange = setting("float32", before="float32")
    """Precision in which several processes exchange gradients; bf16 halves the traffic."""

    sample_every: int = setting(5, off_trajectory=True)
    """Epochs between pictures of generated images and reconstructions."""

    checkpoint_every: int | str = setting("auto", off_trajectory=True)
    """Epochs, steps or minutes between checkpoints, as 2, 500steps or 10min; auto: as they pay."""

    tracker: str | None = setting(None, off_trajectory=True)
    """Experiment trackers that Accelerate knows, as tensorboard or wandb,mlflow (default: none)."""

    def __post_init__(self) -> None:
        if self.run is None:
            object.__setattr__(self, "run", str(Path("runs") / self.data.name))
        if self.init_from is None and self.init_sha256 != "auto":
            raise UserError(f"--init_sha256 {self.init_sha256:.100}: give --init_from RUN with it")
        _at_least_or_auto("--epochs", self.epochs, 1)
        _at_least_or_auto("--batch_size", self.batch_size, 1)
        _at_least_or_auto("--warmup_steps", self.warmup_steps, 0)
        _at_least("--seed", self.seed, 0)
        _at_least("--sample_every", self.sample_every, 1)
        parse_cadence(str(self.checkpoint_every))
        if self.adam_beta2 != "auto" and not 0 <= self.adam_beta2 < 1:
            raise UserError(f"--adam_beta2 {self.adam_beta2}: expected a number from 0 to below 1")
        _at_least_or_auto("--weight_decay", self.weight_decay, 0)
        _at_least("--input_noise", self.input_noise, 0)
        _at_least("--beta", self.beta, 0)
        _at_least("--free_bits", self.free_bits, 0)
        _at_least("--num_samples", self.num_samples, 1)
        if self.kl_warmup != "auto" and not 0 <= self.kl_warmup <= 1:
            raise UserError(
                f"--kl_warmup {self.kl_warmup}: expected a share of the run, from 0 to 1"
            )
        if self.temperature != "auto" and not 0 < self.temperature <= 1:
            raise UserError(
                f"--temperature {self.temperature}: expected a number above 0, at most 1"
            )
        self._check_augmentation()
        if self.importance_weighted:
            self._require_importance_weighted()
        if self.kl_gradient == "path" and self.free_bits:
            raise UserError(
                f"--kl_gradient path: --free_bits {self.free_bits} is of the KL itself; give "
                f"exact, or leave --free_bits out"
            )
        if self.learning_rate != "auto":
            _positive("--learning_rate", self.learning_rate)
        if self.ema_decay != "auto" and not 0 <= self.ema_decay < 1:
            raise UserError(f"--ema_decay {self.ema_decay}: expected a number from 0 to below 1")

    def _check_augmentation(self) -> None:
        shares = {"--augment_share": self.augment_share, "--augment_until": self.augment_until}
        for flag, share in shares.items():
            if share != "auto" and not 0 < share <= 1:
                raise UserError(f"{flag} {share}: expected a share above 0, at most 1")
        parts = [flag for flag, share in shares.items() if share not in ("auto", 1)]
        if parts and self.augment is False:
            given = " and ".join(f"{flag} {shares[flag]}" for flag in parts)
            left_open = " and ".join(f"{flag} auto" for flag in parts)
            raise UserError(
                f"--augment false with {given}: there is no share of none; give --augment true, "
                f"or {left_open}"
            )

    def _require_importance_weighted(self) -> None:
        if self.num_samples == 1:
            raise UserError(
                "--num_samples 1: the importance-weighted bound of a single sample is the usual "
                "one; give --num_samples 2 or more with --importance_weighted"
            )
        for flag, value, usual in (
            ("--beta", self.beta, 1),
            ("--kl_warmup", 0 if self.kl_warmup == "auto" else self.kl_warmup, 0),
            ("--temperature", 1 if self.temperature == "auto" else self.temperature, 1),
            ("--free_bits", self.free_bits, 0),
            ("--kl_gradient", "path" if self.kl_gradient == "path" else "", ""),
        ):
            if value != usual:
                raise UserError(
                    f"{flag} {value}: the importance-weighted bound has no KL to weigh; leave "
                    f"{flag} or --importance_weighted out"
                )


MAX_TRAIN = 100_000  # latents: half a minute of two cores where there are ten classes


@dataclass(frozen=True)
class SvmConfig:
    """An RBF support vector machine on standardised latents."""

    C: float = 10.0
    """Penalty of a margin violation."""

    class_weight: ClassWeight | None = setting(None, before=None)
    """balanced makes C greater for rare classes: by number of images / (classes * its images)."""

    max_train: int | None = setting(MAX_TRAIN, before=None)
    """Latents that it is fitted on at most, of more a draw in which every class has its share."""

    log_variances: float | Auto = setting("auto", before=1.0)
    """Weight of log-variances beside means (auto: 0.5 with less than 10,000 latents, else 1)."""

    # Last, since a file that was cut off behind a setting of the first version is seen to be.
    gamma: float = 1.0
    """Inverse width of the kernel, in units of 1 / sum of squared weights of what varies."""

    def __post_init__(self) -> None:
        _positive("--C", self.C)
        _positive("--gamma", self.gamma)
        if self.log_variances != "auto":
            _positive("--log_variances", self.log_variances)
        if self.max_train is not None:
            _at_least("--max_train", self.max_train, 2)


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


def parse_cadence(text: str) -> Cadence:
    """`2` epochs, `500steps`, `10min` or `auto`. Raises `UserError` for anything else."""
    if text == "auto":
        return Cadence()
    match = _CADENCE.fullmatch(text)
    if match is None:
        raise UserError(
            f"--checkpoint_every {text}: expected a number of epochs, of steps or of minutes, as "
            f"2, 500steps or 10min, or auto"
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


def _at_least(flag: str, value: object, minimum: float) -> None:
    # From Python anything may come; NumPy's numbers are real ones, too.
    if not (isinstance(value, Real) and minimum <= float(value) < float("inf")):
        raise UserError(f"{flag} {value}: expected at least {minimum}")


def _at_least_or_auto(flag: str, value: object, minimum: float) -> None:
    if value != "auto":
        _at_least(flag, value, minimum)


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
