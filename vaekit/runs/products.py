"""What lies in a run folder, as data: every product, how it is read, what it was made from."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vaekit.config import SvmConfig, TrainConfig
from vaekit.runs.baselines import read_baselines
from vaekit.runs.environment import read_environment
from vaekit.runs.evaluation import read_evaluation
from vaekit.runs.folder import RunFolder
from vaekit.runs.latents import read_metadata, read_part, summary_of_part
from vaekit.runs.metrics import read_metrics
from vaekit.runs.reading import read_reading
from vaekit.runs.svm import read_svm_metrics, read_table
from vaekit.settings import read_config
from vaekit.storage.damage import Damaged
from vaekit.storage.files import require_file
from vaekit.storage.pictures import require_png

if TYPE_CHECKING:
    from vaekit.runs.weights import Weights
    from vaekit.storage.tensors import TensorFile
    from vaekit.training.state import Checkpoint

MAP_FORMAT, MAP_VERSION = "vaekit-map", 1

_IN = RunFolder(Path())  # its paths are those within every run folder
_STEPS = f"{_IN.checkpoints}/step-*.safetensors"


class Origin(NamedTuple):
    """Another product, which one was made from."""

    sha256: Callable[[Any], str | None]  # of the other, as the one recorded it
    remedy: str  # where the other is another one by now


class Parts(NamedTuple):
    """Files that a product names, beside its own."""

    files: Callable[[Any], Mapping[str, str]]  # their names, and the sha256 of each
    read: Callable[[Path, str], Any]  # raises `Damaged` where a file has not that sha256
    summary: Callable[[Any], str]


class Product(NamedTuple):
    """A file of a run, or a number of files of one kind.

    Remedies are texts in which {run} stands for the folder and {train} for the command that goes
    on with its training.
    """

    name: str
    files: str  # its path in the run folder, or a pattern
    read: Callable[[Path], Any]  # raises `Damaged` for what vaekit did not write
    summary: Callable[[Any], str]  # of what was read
    remedy: str  # where it is damaged
    absent: str | None = None  # where there is none yet, and a stage wants it
    required_by: tuple[str, ...] = ()  # patterns of files that should not be there without it
    made_of: Mapping[str, Origin] = {}
    parts: Parts | None = None

    def path(self, run: RunFolder) -> Path:
        return run.path / self.files

    def paths(self, run: RunFolder) -> list[Path]:
        """All that are there, in order of names; of a single one where it should lie."""
        return sorted(run.path.glob(self.files)) if "*" in self.files else [self.path(run)]

    def is_required(self, run: RunFolder) -> bool:
        """Whether something is there that can't be of use without it."""
        return any(any(run.path.glob(pattern)) for pattern in self.required_by)


def remedy_text(remedy: str, run: RunFolder) -> str:
    """A remedy as a person can type it."""
    return remedy.format(run=run.quoted, train=f"`{run.train_again}`")


def fault_of_origins(
    product: Product, value: Any, run: RunFolder, present: Mapping[str, str | None]
) -> str | None:
    """Whether `value` was made from others than the products with these sha256."""
    for name, origin in product.made_of.items():
        if name in present and origin.sha256(value) != present[name]:
            others = "another SVM" if name == SVM.name else f"other {name}"
            return f"made from {others} than the run has now; {remedy_text(origin.remedy, run)}"
    return None


def _read_page(path: Path) -> int:
    """The bytes of a report."""
    require_file(path)
    content = path.read_bytes()
    if not content.rstrip().endswith(b"</html>"):
        raise Damaged("ends in the middle")
    return len(content)


# With what holds tensors PyTorch comes, which the rest of a run is read without.


def _read_checkpoint(path: Path) -> "Checkpoint":
    from vaekit.runs.checkpoints import load_checkpoint

    return load_checkpoint(path)


def _read_weights(path: Path) -> "Weights":
    from vaekit.runs.weights import read_weights

    return read_weights(path)


def _summary_of_weights(weights: "Weights") -> str:
    from vaekit.models.vae import num_parameters

    return f"{num_parameters(weights.vae):,} parameters"


def _read_map(path: Path) -> "TensorFile":
    from vaekit.storage.tensors import read_tensors

    return read_tensors(path, format_name=MAP_FORMAT, version=MAP_VERSION)


def _picture(name: str, files: str) -> Product:
    return Product(name, files, require_png, lambda _: "a whole picture", "delete it")


CONFIG = Product(
    "config",
    str(_IN.config),
    lambda path: read_config(TrainConfig, path),
    lambda _: "every setting is there and in its range",
    "put a good copy there",
    required_by=("*",),
)
ENVIRONMENT = Product(
    "environment",
    str(_IN.environment),
    read_environment,
    lambda starts: f"starts recorded: {len(starts)}",
    "remove it",
)
READING = Product(
    "images",
    "images.json",
    read_reading,
    lambda reading: f"{reading.num_train:,} images to train on, {reading.num_test:,} to test on",
    "remove it and make it again with {train}",
)
METRICS = Product(
    "metrics",
    str(_IN.metrics),
    read_metrics,
    lambda rows: f"epochs done: {len(rows) - 1}",
    "remove it and make it again with {train}",
    required_by=(str(_IN.model), _STEPS),
)
CHECKPOINTS = Product(
    "checkpoints",
    _STEPS,
    _read_checkpoint,
    lambda checkpoint: f"step {checkpoint.step}",
    "remove it",
)
WEIGHTS = Product(
    "weights",
    str(_IN.model),
    _read_weights,
    _summary_of_weights,
    "remove it and make it again with {train}",
    absent="no weights yet; make them with {train}",
    required_by=(str(_IN.metrics), _STEPS),
)
_ENCODE = "make them with `vaekit latents {run}`"
LATENTS = Product(
    "latents",
    f"{_IN.latents}/latents.json",
    read_metadata,
    lambda metadata: f"names {len(metadata['files'])} files",
    _ENCODE,
    absent=f"no latents yet; {_ENCODE}",
    required_by=(f"{_IN.latents}/*.npy", f"{_IN.latents}/index.*"),
    made_of={"weights": Origin(lambda metadata: metadata["model_sha256"], _ENCODE)},
    parts=Parts(lambda metadata: metadata["files"], read_part, summary_of_part),
)
_MEASURE_BASELINES = "make them with `vaekit report {run}`"
BASELINES = Product(
    "baselines",
    f"{_IN.baselines}/baselines.json",
    read_baselines,
    lambda baselines: (
        f"test MSE {baselines['vae']['mse']:.4f}, of the mean image "
        f"{baselines['mean_image']['mse']:.4f}"
    ),
    f"remove it and {_MEASURE_BASELINES}",
    required_by=(f"{_IN.baselines}/*.npy",),
    made_of={"weights": Origin(lambda baselines: baselines["model_sha256"], _MEASURE_BASELINES)},
    parts=Parts(lambda baselines: baselines["files"], read_part, summary_of_part),
)
_FIT_AGAIN = "make it again with `vaekit svm {run}`"
_ENCODE_AND_FIT_AGAIN = "make it again with `vaekit latents {run}` and `vaekit svm {run}`"
SVM = Product(
    "svm",
    f"{_IN.svm}/svm.safetensors",
    read_table,
    lambda svm: (
        f"{len(svm.table.classes)} classes, {len(svm.table.support_vectors):,} support vectors"
    ),
    _FIT_AGAIN,
    absent="no SVM yet; make it with `vaekit svm {run}`",
    required_by=(f"{_IN.svm}/config.yaml", f"{_IN.svm}/metrics.json"),
    made_of={
        "weights": Origin(lambda svm: svm.model_sha256, _ENCODE_AND_FIT_AGAIN),
        "latents": Origin(lambda svm: svm.latents_sha256, _FIT_AGAIN),
    },
)
SVM_CONFIG = Product(
    "SVM settings",
    f"{_IN.svm}/config.yaml",
    lambda path: read_config(SvmConfig, path),
    lambda config: f"C {config.C:g}, gamma {config.gamma:g}",
    _FIT_AGAIN,
    required_by=(f"{_IN.svm}/svm.safetensors", f"{_IN.svm}/metrics.json"),
)
_MEASURE_AGAIN = "measure anew with `vaekit svm {run}`"
SVM_METRICS = Product(
    "SVM metrics",
    f"{_IN.svm}/metrics.json",
    read_svm_metrics,
    lambda metrics: f"accuracy {metrics['accuracy']:.4f}",
    _MEASURE_AGAIN,
    absent="no SVM yet; make it with `vaekit svm {run}`",
    required_by=(f"{_IN.svm}/svm.safetensors", f"{_IN.svm}/config.yaml"),
    made_of={
        "svm": Origin(lambda metrics: metrics["svm_sha256"], _MEASURE_AGAIN),
        "latents": Origin(lambda metrics: metrics["latents_sha256"], _MEASURE_AGAIN),
    },
)
_EVALUATE_AGAIN = "measure anew with `vaekit evaluate {run}`"
EVALUATION = Product(
    "evaluation",
    "evaluation/evaluation.json",
    read_evaluation,
    lambda evaluation: (
        f"minus log-likelihood {evaluation['likelihood']['nats']:.2f} "
        f"{evaluation['likelihood']['unit']}"
    ),
    _EVALUATE_AGAIN,
    absent="not evaluated yet; do it with `vaekit evaluate {run}`",
    made_of={
        "weights": Origin(lambda evaluation: evaluation["model_sha256"], _EVALUATE_AGAIN),
        "latents": Origin(lambda evaluation: evaluation["latents_sha256"], _EVALUATE_AGAIN),
    },
)
MAP = Product(
    "map",
    f"{_IN.figures}/tsne.safetensors",
    _read_map,
    lambda _: "the map of the latents",
    "delete it",
)
REPORT = Product(
    "report",
    str(_IN.report),
    _read_page,
    lambda num_bytes: f"{num_bytes / 1e6:.1f} MB",
    "make it again with `vaekit report {run}`",
)

# In the order in which they are made.
PRODUCTS = (
    CONFIG,
    ENVIRONMENT,
    READING,
    METRICS,
    CHECKPOINTS,
    WEIGHTS,
    _picture("samples", "samples/epoch-*.png"),
    _picture("reconstructions", "reconstructions/epoch-*.png"),
    BASELINES,
    LATENTS,
    SVM,
    SVM_CONFIG,
    SVM_METRICS,
    EVALUATION,
    _picture("figures", f"{_IN.figures}/[!.]*.png"),
    MAP,
    REPORT,
)
