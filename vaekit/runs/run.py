"""A run, each part of which is read once, when it is first asked for."""

import dataclasses
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vaekit.config import IN_MEMORY, DataConfig, TrainConfig
from vaekit.errors import UserError
from vaekit.images.image_set import Images
from vaekit.images.in_memory import settings_of
from vaekit.images.reading import Reading
from vaekit.images.sets import images_in_memory, load_images
from vaekit.models.settle import settle_model
from vaekit.runs.baselines import SCORES, PcaScores
from vaekit.runs.folder import RunFolder
from vaekit.runs.latents import Latents, assemble, latents_sha256
from vaekit.runs.metrics import Row
from vaekit.runs.products import (
    BASELINES,
    ENVIRONMENT,
    EVALUATION,
    LATENTS,
    METRICS,
    READING,
    SVM,
    SVM_METRICS,
    WEIGHTS,
    Product,
    fault_of_origins,
    remedy_text,
)
from vaekit.runs.svm import Svm
from vaekit.storage.damage import damage_told
from vaekit.storage.files import file_sha256

if TYPE_CHECKING:  # PyTorch is imported once a weight is needed, decoders once images are
    from vaekit.evaluation.mislabelled import Suspicions
    from vaekit.evaluation.neighbours import Neighbours
    from vaekit.images.inputs import GivenImages, Inputs
    from vaekit.runs.inference import Encoding, Prediction
    from vaekit.runs.scores import Scores
    from vaekit.runs.weights import Weights

_WHERE_IMAGES_ARE = "put its images back there, or say with --data.root where they lie now"


class Run:
    """What training and the stages after it have left in a folder.

    Each part is read when it is first asked for, checked against the others, and kept: a part
    that is missing, damaged, or not of the rest raises `UserError`, with the command that makes
    it. Making a Run touches no disk. `data_root` says where its images lie now, should they have
    moved since it was trained; one that was trained on arrays in memory takes those, `images` and
    `labels`, where a stage needs them.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        data_root: str | PathLike[str] | None = None,
        *,
        images: NDArray[np.uint8] | None = None,
        labels: ArrayLike | None = None,
    ) -> None:
        self.folder = RunFolder(Path(path))
        self._data_root = data_root
        self._in_memory = None if images is None else (images, labels)
        self._sha256: dict[str, str | None] = {}

    @classmethod
    def from_hub(cls, name: str, revision: str | None = None) -> Self:
        """A run that was published: a repository `owner/name` of the Hub, or a folder.

        `revision` is a commit, a branch or a tag; with a commit it is the same run for ever. Of a
        repository only formats are fetched that can hold no code, and what is fetched is checked
        as any run is. Raises `UserError` where there is none, or it can't be had.
        """
        from vaekit.runs.hub import fetch

        return cls(fetch(name, revision))

    def __repr__(self) -> str:
        return f"Run({str(self.folder.path)!r})"

    def _repr_html_(self) -> str:
        """What a notebook shows: its losses, samples, reconstructions and figures."""
        from vaekit.runs.display import as_html

        return as_html(repr(self), self._summary(), self.folder)

    def _summary(self) -> str:
        """What there is to say in a line, of whatever age and in whatever state it is."""
        try:
            if not self.metrics:
                return "not trained yet"
            last = self.metrics[-1]
            said = f"epoch {last['epoch']} of {self.config.epochs}, "
            said += f"test loss {last['test_loss']:.2f}"
        except UserError as error:
            return str(error)
        with suppress(UserError):  # a published run has an SVM, and not the latents it is of
            if self.has_svm:
                said += f", SVM accuracy {self.svm_metrics['accuracy']:.4f}"
        return said

    @cached_property
    def config(self) -> TrainConfig:
        """The settings it was trained with."""
        return self.folder.require_config()

    @property
    def data(self) -> DataConfig:
        """Which images it was trained on, and where they lie now."""
        recorded = self.config.data
        if self._data_root is None:
            return recorded
        return dataclasses.replace(recorded, root=str(self._data_root))

    @cached_property
    def environment(self) -> list[dict[str, Any]]:
        """What each start ran on, the first one first; none where that is not recorded."""
        return self._read_if_there(ENVIRONMENT) or []

    @cached_property
    def metrics(self) -> list[Row]:
        """A row an epoch, row 0 before training; none where training has not begun."""
        return self._read_if_there(METRICS) or []

    @cached_property
    def reading(self) -> Reading | None:
        """What of its files it was trained on; None where that is not recorded."""
        reading: Reading | None = self._read_if_there(READING)
        return reading

    @cached_property
    def weights(self) -> "Weights":
        """The model with its weights, on the CPU, and the classes it was trained on."""
        weights: Weights = self._read(WEIGHTS)
        self.sha256(WEIGHTS.name)  # of what was read, should others be written later
        if fault := fault_against_config(weights, self.config, self.folder):
            raise UserError(f"{self.folder.model}: {fault}")
        return weights

    @cached_property
    def images(self) -> Images:
        """The images that it was trained and tested on, uint8 [N, C, H, W], with their labels."""
        expected = self.weights.images_sha256
        images = self.unchecked_images
        if images.sha256() != expected:
            others = f"other images, labels or classes than {self.folder.path} was trained on"
            if self._in_memory is not None:
                raise UserError(f"images: {others}; give the arrays that it was trained on")
            raise UserError(f"--data.root {self.data.root}: {others}; {_WHERE_IMAGES_ARE}")
        return images

    @cached_property
    def unchecked_images(self) -> Images:
        """`images`, be they those it was trained on or not; nothing is downloaded."""
        data, seed = self.data, self.config.seed
        if self._in_memory is not None:
            return images_in_memory(*self._in_memory, settings_of(self._in_memory[0], data), seed)
        if data.root == IN_MEMORY:
            raise UserError(
                f"{self.folder.path}: trained on arrays in memory; give them again, as "
                f"vaekit.Run({str(self.folder.path)!r}, images=images, labels=labels), or save "
                f"them with numpy.savez('set.npz', images=images, labels=labels) and say where "
                f"with --data.root set.npz"
            )
        try:
            return load_images(data, seed, download=False)
        except UserError as error:
            fault = str(error).split("; ")[0]  # the rest speaks to who trains
            raise UserError(
                f"{fault}; {self.folder.path} was trained on other images or has lost them: "
                f"{_WHERE_IMAGES_ARE}"
            ) from error

    @cached_property
    def latents(self) -> Latents:
        """Mean ++ log-variance of every image, float32 [N, 2 * latent_dim]."""
        arrays = self._read_parts(LATENTS, self._latents_metadata)
        with damage_told(self.folder.latents, remedy_text(LATENTS.remedy, self.folder)):
            return assemble(self._latents_metadata, arrays)

    @cached_property
    def baselines(self) -> dict[str, Any] | None:
        """What takes no training, measured on its images; None where that is still to be done."""
        baselines: dict[str, Any] | None = self._read_if_there(BASELINES, of=())
        if baselines is None or baselines["model_sha256"] != self.sha256(WEIGHTS.name):
            return None
        return baselines

    @cached_property
    def pca_scores(self) -> PcaScores | None:
        """Those of its images; None where the baselines are still to be measured."""
        if self.baselines is None:
            return None
        scores = self._read_parts(BASELINES, self.baselines)
        return PcaScores(*(scores[name] for name in SCORES))

    @cached_property
    def svm(self) -> Svm:
        """The SVM on the latents, of the classes and the latent dimensions of the weights."""
        svm: Svm = self._read(SVM, of=("weights",))
        self.sha256(SVM.name)
        if fault := fault_against_weights(svm, self.weights, self.folder):
            raise UserError(f"{SVM.path(self.folder)}: {fault}")
        return svm

    @cached_property
    def svm_metrics(self) -> dict[str, Any]:
        """What the SVM was measured to do on the test latents: svm/metrics.json."""
        metrics: dict[str, Any] = self._read(SVM_METRICS)
        return metrics

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """What its latents were measured to be worth: evaluation/evaluation.json."""
        evaluation: dict[str, Any] = self._read(EVALUATION)
        return evaluation

    def encode(self, images: "GivenImages", *, skip_unreadable: bool = False) -> "Encoding":
        """What the encoder says of images: mean and log-variance, float32 [N, L] each.

        `images` are an array, uint8 [N, H, W], [N, H, W, C] or [N, C, H, W] of the size that the
        model takes; or image files, or folders of them, which are prepared as the images were
        that the run was trained on. Raises `UserError` for others, and for files that can't be
        read, unless they are to be skipped.
        """
        from vaekit.runs import inference

        return inference.encode(self.weights, self.inputs(images, skip_unreadable).pixels)

    def decode(self, latents: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Images uint8 [N, C, H, W], the means of the pixels, from latents [N, L]."""
        from vaekit.runs import inference

        return inference.decode(self.weights, latents)

    def reconstruct(
        self, images: "GivenImages", *, skip_unreadable: bool = False
    ) -> NDArray[np.uint8]:
        """`images`, as `encode` takes them, decoded from their means: uint8 [N, C, H, W]."""
        from vaekit.runs import inference

        return inference.reconstruct(self.weights, self.inputs(images, skip_unreadable).pixels)

    def sample(self, count: int, seed: int = 0) -> NDArray[np.uint8]:
        """New images, uint8 [count, C, H, W], from latents of a standard normal.

        The same seed gives the same images, and those of `vaekit generate`.
        """
        from vaekit.runs import inference

        return inference.sample(self.weights, count, seed)

    def interpolate(
        self, first: "GivenImages", last: "GivenImages", steps: int = 8
    ) -> NDArray[np.uint8]:
        """Images uint8 [steps, C, H, W] on the straight line between the means of two images.

        Either is one image: a file, or an array as `encode` takes them, with or without its
        first axis. The ends are their reconstructions.
        """
        from vaekit.runs import inference

        ends = (self._single(first, "first"), self._single(last, "last"))
        return inference.interpolate(self.weights, *ends, steps)

    def predict(self, images: "GivenImages", *, skip_unreadable: bool = False) -> "Prediction":
        """The classes of `images`, as `encode` takes them: labels [N], scores [N, K], names.

        Raises `UserError` where the run has no SVM.
        """
        from vaekit.runs import inference

        self.require_classes()
        svm = self.svm  # before images are read
        return inference.predict_latents(svm, self.encode(images, skip_unreadable=skip_unreadable))

    def score(
        self,
        images: "GivenImages",
        k: int = 10,
        false_alarms: float = 0.01,
        *,
        skip_unreadable: bool = False,
    ) -> "Scores":
        """How strange `images`, as `encode` takes them, are: strangeness, percentile ..., each [N].

        Measured are the distance from the k nearest training latents, and the reconstruction;
        `is_strange` is said of about a share `false_alarms` of images that are like the test
        images. Raises `UserError` where the run has no latents, or fewer images than neighbours.
        """
        from vaekit.runs import scores

        latents = self.latents  # before images are read
        pixels = self.inputs(images, skip_unreadable).pixels
        return scores.score(self.weights, latents, self.images, pixels, k, false_alarms)

    def neighbours(
        self, images: "GivenImages", k: int = 9, *, skip_unreadable: bool = False
    ) -> "Neighbours":
        """The k images of the run nearest to each of `images`, as `encode` takes them.

        `indices` [N, k] count the training images and then the test images, as `latents.rows`
        does; `distances` [N, k] are of means of latents. Raises `UserError` where the run has no
        latents, or fewer images than neighbours.
        """
        from vaekit.runs import scores

        latents = self.latents  # before images are read
        pixels = self.inputs(images, skip_unreadable).pixels
        return scores.find_alike(self.weights, latents, pixels, k)

    def suspect_labels(self, k: int = 10) -> "Suspicions":
        """Which labels of its images the k nearest images contradict, and what they say instead.

        `rows` count the training images and then the test images, as `latents.rows` does;
        `suspicion` is from 0 to 1, and `likely_wrong()` those beyond a half, the most suspicious
        first. Raises `UserError` where the run has no latents or no labels of two classes.
        """
        from vaekit.runs import scores

        return scores.suspect(self.latents, k)

    def evaluate(self, samples: int = 500, images: int = 200) -> dict[str, Any]:
        """Measure what the latents are worth, beside PCA and raw pixels; nothing is written.

        The likelihood is that of `images` test images, by `samples` samples of each. The parts
        are those of `evaluation`, which is what `vaekit evaluate` left in the folder. Raises
        `UserError` where the run has no latents.
        """
        from vaekit.runs import worth

        latents = self.latents  # before images are read
        return worth.measure_worth(self.weights.vae, latents, self.images, samples, images)

    def inputs(self, images: "GivenImages", skip_unreadable: bool = False) -> "Inputs":
        """Images, as `encode` takes them, as the model does: uint8 [N, C, H, W], and their files.

        What was left out, used as something else, or looks unlike those that the run was trained
        on, is said on standard error.
        """
        from vaekit.images.inputs import Trained, read_inputs

        weights = self.weights
        trained = Trained(
            weights.vae.image_shape, self.config.data, weights.class_names, weights.appearance
        )
        return read_inputs(images, trained, skip_unreadable=skip_unreadable)

    def _single(self, given: "GivenImages", name: str) -> NDArray[np.uint8]:
        """The one image that is given, [1, C, H, W]."""
        channels, height, width = self.weights.vae.image_shape
        shapes = ((channels, height, width), (height, width, channels), (height, width))
        if isinstance(given, np.ndarray) and given.shape in shapes:
            given = given[None]
        pixels = self.inputs(given).pixels
        if len(pixels) != 1:
            raise UserError(f"{name}: {len(pixels)} images; give one")
        return pixels

    def require_classes(self) -> None:
        """Raise `UserError` where it was trained without labels: nothing can be predicted then."""
        if not self.weights.class_names and not self.has_svm:
            raise UserError(
                f"{self.folder.path}: trained on images without labels, so there is nothing to "
                f"predict; `vaekit encode {self.folder.quoted}` gives the latents of files"
            )

    @property
    def has_latents(self) -> bool:
        """Whether the images were encoded, be it well or not."""
        return self.folder.latents.exists()

    @property
    def has_evaluation(self) -> bool:
        """Whether it was evaluated, be that whole or not."""
        return EVALUATION.path(self.folder).exists()

    @property
    def has_svm(self) -> bool:
        """Whether an SVM was fitted, be it whole or not."""
        return self.folder.svm.exists()

    def sha256(self, name: str) -> str | None:
        """What others made of that product are bound to; None where there is none."""
        if name == LATENTS.name:
            return latents_sha256(self._latents_metadata)
        if name not in self._sha256:
            path = {product.name: product for product in (WEIGHTS, SVM)}[name].path(self.folder)
            self._sha256[name] = file_sha256(path) if path.is_file() else None
        return self._sha256[name]

    def forget(self, *parts: str) -> None:
        """Have these parts be read again, where a stage makes them anew or needs them no more."""
        for part in parts:
            vars(self).pop(part, None)
            self._sha256.pop(part, None)

    @cached_property
    def _latents_metadata(self) -> dict[str, Any]:
        metadata: dict[str, Any] = self._read(LATENTS)
        return metadata

    def _read_if_there(self, product: Product, of: Iterable[str] | None = None) -> Any:
        """What `_read` gives; None where there is no such file."""
        _ = self.config
        return self._read(product, of) if product.path(self.folder).exists() else None

    def _read_parts(self, product: Product, index: Any) -> dict[str, Any]:
        """The files that a product names in its `index`, by their names."""
        assert product.parts is not None
        folder, arrays = product.path(self.folder).parent, {}
        for name, sha256 in product.parts.files(index).items():
            with damage_told(folder / name, remedy_text(product.remedy, self.folder)):
                arrays[name] = product.parts.read(folder / name, sha256)
        return arrays

    def _read(self, product: Product, of: Iterable[str] | None = None) -> Any:
        """The product, made of what is there now: of all that it says it is, or of `of` alone."""
        _ = self.config  # a folder without one is no run
        path = product.path(self.folder)
        if product.absent is not None and not path.is_file():
            raise UserError(f"{path}: {remedy_text(product.absent, self.folder)}")
        with damage_told(path, remedy_text(product.remedy, self.folder)):
            value = product.read(path)
        present = {name: self.sha256(name) for name in (product.made_of if of is None else of)}
        if fault := fault_of_origins(product, value, self.folder, present):
            raise UserError(f"{path}: {fault}")
        return value


def fault_against_config(weights: "Weights", config: TrainConfig, run: RunFolder) -> str | None:
    """Whether the config asks for another model."""
    vae = weights.vae
    if vae.config == settle_model(config.model, vae.image_shape, config.data.name):
        return None
    again = remedy_text(WEIGHTS.remedy, run)
    return f"of another model than {run.config.name} asks for; put the right one back, or {again}"


def fault_against_weights(svm: Svm, weights: "Weights", run: RunFolder) -> str | None:
    """Whether it is of other classes, or takes other latents."""
    num_features = 2 * weights.vae.latent_dim
    if svm.class_names == weights.class_names and svm.table.feature_mean.shape == (num_features,):
        return None
    again = remedy_text(SVM.made_of["weights"].remedy, run)
    return f"of other classes or latents than {run.model.name}; {again}"
