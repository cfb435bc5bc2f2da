"""A run, each part of which is read once, when it is first asked for."""

from functools import cached_property
from pathlib import Path
from typing import Any

from vaekit.config import TrainConfig
from vaekit.errors import UserError
from vaekit.images.sets import Images, load_images
from vaekit.runs.folder import RunFolder
from vaekit.runs.latents import Latents, assemble, latents_sha256
from vaekit.runs.metrics import Row
from vaekit.runs.products import (
    ENVIRONMENT,
    LATENTS,
    METRICS,
    SVM,
    SVM_METRICS,
    WEIGHTS,
    Product,
    other,
    told,
)
from vaekit.runs.svm import Svm
from vaekit.runs.weights import Weights
from vaekit.storage.damage import damage_told
from vaekit.storage.files import file_sha256


class Run:
    """What training and the stages after it have left in a folder.

    Each part is read when it is first asked for, checked against the others, and kept: a part
    that is missing, damaged, or not of the rest raises `UserError`, with the command that makes
    it. Making a Run touches no disk.
    """

    def __init__(self, path: str | Path) -> None:
        self.folder = RunFolder(Path(path))
        self._sha256: dict[Path, str | None] = {}

    def __repr__(self) -> str:
        return f"Run({str(self.folder.path)!r})"

    @cached_property
    def config(self) -> TrainConfig:
        """The settings it was trained with."""
        return self.folder.require_config()

    @cached_property
    def environment(self) -> list[dict[str, Any]]:
        """What each start ran on, the first one first; none where that is not recorded."""
        return self._read(ENVIRONMENT) if self.folder.environment.exists() else []

    @cached_property
    def metrics(self) -> list[Row]:
        """A row an epoch, row 0 before training; none where training has not begun."""
        return self._read(METRICS) if self.folder.metrics.exists() else []

    @cached_property
    def weights(self) -> Weights:
        """The model with its weights, on the CPU, and the classes it was trained on."""
        model = self.config.model
        weights: Weights = self._read(WEIGHTS)
        if weights.vae.config != model:
            raise UserError(
                f"{self.folder.model}: of another model than {self.folder.config} asks for; put "
                f"the right one back"
            )
        return weights

    @cached_property
    def images(self) -> Images:
        """The images that it was trained and tested on, uint8 [N, C, H, W], with their labels."""
        images = load_images(self.config.data, self.config.seed)
        if images.sha256() != self.weights.images_sha256:
            raise UserError(
                f"--data.root {self.config.data.root}: other images, labels or classes than "
                f"{self.folder.path} was trained on; put those back, or train another --run"
            )
        return images

    @cached_property
    def latents(self) -> Latents:
        """Mean ++ log-variance of every image, float32 [N, 2 * latent_dim]."""
        metadata, parts = self._latents_metadata, LATENTS.parts
        assert parts is not None
        remedy = told(LATENTS.remedy, self.folder)
        arrays = {}
        for name, sha256 in parts.files(metadata).items():
            path = self.folder.latents / name
            with damage_told(path, remedy):
                arrays[name] = parts.read(path, sha256)
        with damage_told(self.folder.latents, remedy):
            return assemble(metadata, arrays)

    @cached_property
    def svm(self) -> Svm:
        """The SVM on the latents, of the classes and the latent dimensions of the weights."""
        svm: Svm = self._read(SVM, of=("weights",))
        num_features = 2 * self.weights.vae.config.latent_dim
        classes = self.weights.class_names
        if svm.class_names != classes or svm.table.feature_mean.shape != (num_features,):
            raise UserError(
                f"{SVM.path(self.folder)}: of other classes or latents than {self.folder.model}; "
                f"{told(SVM.made_of['weights'].remedy, self.folder)}"
            )
        return svm

    @cached_property
    def svm_metrics(self) -> dict[str, Any]:
        """What the SVM was measured to do on the test latents: svm/metrics.json."""
        metrics: dict[str, Any] = self._read(SVM_METRICS)
        return metrics

    @property
    def has_latents(self) -> bool:
        """Whether the images were encoded, be it well or not."""
        return self.folder.latents.exists()

    @property
    def has_svm(self) -> bool:
        """Whether an SVM was fitted, be it whole or not."""
        return self.folder.svm.exists()

    def sha256(self, name: str) -> str | None:
        """What others made of that product are bound to; None where there is none."""
        if name == LATENTS.name:
            return latents_sha256(self._latents_metadata)
        path = {product.name: product for product in (WEIGHTS, SVM)}[name].path(self.folder)
        if path not in self._sha256:
            self._sha256[path] = file_sha256(path) if path.is_file() else None
        return self._sha256[path]

    def forget(self, *parts: str) -> None:
        """Have these parts, which a stage has made anew, be read again."""
        for part in parts:
            vars(self).pop(part, None)
        self._sha256.clear()

    @cached_property
    def _latents_metadata(self) -> dict[str, Any]:
        _ = self.config  # a folder without one is no run
        metadata: dict[str, Any] = self._read(LATENTS)
        return metadata

    def _read(self, product: Product, of: tuple[str, ...] | None = None) -> Any:
        """The product, made of what is there now: of all that it says it is, or of `of` alone."""
        path = product.path(self.folder)
        if product.absent is not None and not path.is_file():
            raise UserError(f"{path}: {told(product.absent, self.folder)}")
        with damage_told(path, told(product.remedy, self.folder)):
            value = product.read(path)
        for name, origin in product.made_of.items():
            if of is not None and name not in of:
                continue
            if origin.sha256(value) != self.sha256(name):
                raise UserError(
                    f"{path}: made from {other(name)} than the run has now; "
                    f"{told(origin.remedy, self.folder)}"
                )
        return value
