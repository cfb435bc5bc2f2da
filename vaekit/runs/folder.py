"""Where each thing lies in a run folder, who may write to it, its metrics and its weights."""

import fcntl
import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vaekit.config import (
    MAX_CHANNELS,
    MAX_IMAGE_SIZE,
    ModelConfig,
    TrainConfig,
    to_dict,
    trajectory_differences,
)
from vaekit.errors import UserError
from vaekit.images.sets import Images
from vaekit.models.vae import VAE
from vaekit.settings import from_dict, read_config, write_config
from vaekit.storage.files import file_sha256, read_json, require_file, write_json, write_text
from vaekit.storage.sealed import expected_of, number, strings, typed
from vaekit.storage.tensors import difference, read_tensors, write_tensors

WEIGHTS_FORMAT = "vaekit-weights"
WEIGHTS_VERSION = 1


class Weights(NamedTuple):
    """The weights of a run with what is needed to use them."""

    vae: VAE
    class_names: tuple[str, ...]
    images_sha256: str  # of the images it was trained and tested on
    sha256: str  # of model.safetensors: what latents and an SVM are bound to


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run. Making one touches no disk."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def latents(self) -> Path:
        return self.path / "latents"

    @property
    def svm(self) -> Path:
        return self.path / "svm"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def quoted(self) -> str:
        """The folder as a user would type it into a shell."""
        return shlex.quote(str(self.path))

    @property
    def train_again(self) -> str:
        """The command that resumes this run, wherever its folder lies now."""
        return f"vaekit train --config {shlex.quote(str(self.config))} --run {self.quoted}"

    def samples(self, epoch: int) -> Path:
        return self.path / "samples" / f"epoch-{epoch:03d}.png"

    def reconstructions(self, epoch: int) -> Path:
        return self.path / "reconstructions" / f"epoch-{epoch:03d}.png"

    def require_free_or_own(self) -> None:
        """Raise `UserError`, touching nothing, where the path holds something that is no run."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--run {self.path}: a file, expected a folder; give another --run")
        if self.config.exists() or not self.path.exists():
            return
        # A start that was killed leaves its lock, and perhaps half a config.
        if any(not path.name.startswith((".lock", ".tmp-")) for path in self.path.iterdir()):
            raise UserError(
                f"--run {self.path}: the folder is not empty and holds no run (no config.yaml); "
                f"give a new or an empty folder"
            )

    def start(self, config: TrainConfig) -> None:
        """Claim the folder for `config`, or check that it already belongs to it.

        Raises `UserError` where the folder holds something else or a run of other settings. A
        config that is there stays as it is: only a start that succeeds may renew it.
        """
        self.require_free_or_own()
        if not self.config.exists():
            write_config(self.config, config)
            return
        differences = trajectory_differences(read_config(TrainConfig, self.config), config)
        if differences:
            raise UserError(
                f"--run {self.path}: this run was started with other settings "
                f"({'; '.join(differences)}); give those again to resume it, "
                f"or another --run folder to start anew"
            )

    def require_config(self) -> TrainConfig:
        """The config of the run, for the stages after training."""
        if not self.config.is_file():
            raise UserError(
                f"{self.path}: not a run folder (no config.yaml); make one with "
                f"`vaekit train --run {self.quoted}`"
            )
        return read_config(TrainConfig, self.config)

    def is_being_written(self) -> bool:
        """Whether a live process holds the lock, which must be there."""
        with (self.path / ".lock").open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for writing; a second writer gets a `UserError` at once."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"{self.path}: another process is writing to this run folder; "
                    f"wait for it, or use another folder"
                ) from error
            self._remove_leftovers()
            yield

    def _remove_leftovers(self) -> None:
        """Of writers that were killed: with the lock in hand, nobody else writes.

        Theirs are .tmp-NAME, and .tmp and letters where safetensors was killed.
        """
        folders = [path for path in self.path.iterdir() if path.is_dir() and not path.is_symlink()]
        for folder in (self.path, *folders):
            for path in folder.glob(".tmp*"):
                if path.is_symlink() or path.is_file():
                    path.unlink()

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Replace the metrics; each row is one epoch."""
        write_text(self.metrics, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))

    def read_metrics(self) -> list[dict[str, Any]]:
        """One row an epoch, row 0 before training; none where training has not begun."""
        if not self.metrics.exists():
            return []
        require_file(self.metrics, f"remove it and make it again with `{self.train_again}`")
        try:
            lines = self.metrics.read_text(encoding="utf-8").splitlines()
            rows = [json.loads(line) for line in lines]
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{self.metrics}: damaged ({error}); make it again with `{self.train_again}`"
            ) from error
        with expected_of(self.metrics, f"make it again with `{self.train_again}`"):
            for epoch, row in enumerate(rows):
                _require_row_of(epoch, row)
        return rows

    def append_environment(self, facts: dict[str, Any]) -> None:
        """Add the facts of one start."""
        write_json(self.environment, [*self.read_environment(), facts])

    def read_environment(self) -> list[dict[str, Any]]:
        """The facts of each start; none where training has not begun."""
        if not self.environment.exists():
            return []
        starts = read_json(self.environment, remedy="remove it")
        if not (isinstance(starts, list) and all(isinstance(facts, dict) for facts in starts)):
            raise UserError(f"{self.environment}: damaged, expected a list of starts; remove it")
        return starts

    def write_weights(self, vae: VAE, class_names: tuple[str, ...], images_sha256: str) -> None:
        """Write the weights to use, with the model, the classes and the images they are of."""
        facts = {
            "model": to_dict(vae.config),
            "image_shape": vae.image_shape,
            "class_names": class_names,
            "images_sha256": images_sha256,
        }
        write_tensors(
            self.model,
            vae.state_dict(),
            facts,
            format_name=WEIGHTS_FORMAT,
            version=WEIGHTS_VERSION,
        )

    def read_weights(self) -> Weights:
        """The weights to use, strictly: every tensor of the model, no other.

        Raises `UserError` where there are none, or where the file is damaged.
        """
        self.require_config()
        return self.read_model()

    def read_model(self) -> Weights:
        """`read_weights`, whatever the state of the rest of the folder."""
        if not self.model.is_file():
            raise UserError(f"{self.model}: no weights yet; make them with `{self.train_again}`")
        remedy = f"remove it and make it again with `{self.train_again}`"
        state, facts = read_tensors(
            self.model, format_name=WEIGHTS_FORMAT, version=WEIGHTS_VERSION, remedy=remedy
        )
        with expected_of(self.model, remedy):
            image_shape = _image_shape(facts["image_shape"])
            settings = typed(facts["model"], dict)
            class_names = strings(facts["class_names"])
            images_sha256 = typed(facts["images_sha256"], str)
        with torch.device("meta"):  # takes no memory, however large a forged model would be
            vae = VAE(from_dict(ModelConfig, settings), image_shape)
        fault = difference(state, vae.state_dict())
        if fault is not None:
            raise UserError(f"{self.model}: not the weights of its model ({fault}); {remedy}")
        vae.to_empty(device="cpu").load_state_dict(state)
        vae.eval().requires_grad_(False)
        return Weights(vae, class_names, images_sha256, file_sha256(self.model))

    def require_images(self, weights: Weights, images: Images) -> None:
        """Raise `UserError` where `images` are not those that the run was trained on."""
        if images.sha256() != weights.images_sha256:
            raise UserError(
                f"--data.root {self.require_config().data.root}: other images, labels or classes "
                f"than {self.path} was trained on; put those back, or train another --run"
            )


def _require_row_of(epoch: int, row: Any) -> None:
    """Raise what `expected_of` reports where `row` is not the metrics of `epoch`."""
    if typed(row, dict)["epoch"] != epoch:
        raise ValueError(f"line {epoch + 1} is of epoch {row['epoch']!s:.20}")
    for part in ("loss", "reconstruction", "kl"):
        number(row[f"test_{part}"])
        if epoch > 0:
            number(row[f"train_{part}"])
    if epoch > 0:
        number(row["seconds"])


def _image_shape(value: Any) -> tuple[int, int, int]:
    channels, height, width = (typed(length, int) for length in value)
    if not 1 <= channels <= MAX_CHANNELS or min(height, width) < 1:
        raise ValueError(f"images of shape {value}")
    if max(height, width) > MAX_IMAGE_SIZE:
        raise ValueError(f"images of shape {value}, expected at most {MAX_IMAGE_SIZE} pixels")
    return channels, height, width
