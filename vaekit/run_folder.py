"""Where each thing lies in a run folder, who may write to it, its metrics and its weights."""

import fcntl
import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vaekit.config import (
    ModelConfig,
    TrainConfig,
    from_dict,
    read_config,
    to_dict,
    trajectory_differences,
    write_config,
)
from vaekit.errors import UserError
from vaekit.files import file_sha256, read_json, write_json, write_text
from vaekit.images import Images
from vaekit.model import VAE
from vaekit.tensor_files import read_tensors, write_tensors

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
        if any(path.name != ".lock" for path in self.path.iterdir()):
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
            yield

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Replace the metrics; each row is one epoch."""
        write_text(self.metrics, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))

    def read_metrics(self) -> list[dict[str, Any]]:
        """One row an epoch, row 0 before training; none where training has not begun."""
        if not self.metrics.exists():
            return []
        try:
            lines = self.metrics.read_text(encoding="utf-8").splitlines()
            rows = [json.loads(line) for line in lines]
            if not all(isinstance(row, dict) for row in rows):
                raise ValueError("expected an object a line")
        except ValueError as error:
            raise UserError(
                f"{self.metrics}: damaged ({error}); make it again with `{self.train_again}`"
            ) from error
        return rows

    def append_environment(self, facts: dict[str, Any]) -> None:
        """Add the facts of one start."""
        starts = []
        if self.environment.exists():
            starts = read_json(self.environment, remedy="remove it")
        write_json(self.environment, [*starts, facts])

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
        if not self.model.is_file():
            raise UserError(f"{self.model}: no weights yet; make them with `{self.train_again}`")
        state, facts = read_tensors(
            self.model,
            format_name=WEIGHTS_FORMAT,
            version=WEIGHTS_VERSION,
            remedy=f"remove it and make it again with `{self.train_again}`",
        )
        channels, height, width = facts["image_shape"]
        vae = VAE(from_dict(ModelConfig, facts["model"]), (channels, height, width))
        try:
            vae.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise UserError(f"{self.model}: not the weights of its model ({error})") from error
        vae.eval().requires_grad_(False)
        return Weights(
            vae, tuple(facts["class_names"]), facts["images_sha256"], file_sha256(self.model)
        )

    def require_images(self, weights: Weights, images: Images) -> None:
        """Raise `UserError` where `images` are not those that the run was trained on."""
        if images.sha256() != weights.images_sha256:
            raise UserError(
                f"--data.root {self.require_config().data.root}: other images, labels or classes "
                f"than {self.path} was trained on; put those back, or train another --run"
            )
