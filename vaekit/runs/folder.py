"""Where each thing lies in a run folder, and who may write to it."""

import errno
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vaekit.config import TrainConfig, flatten, to_dict, trajectory_differences
from vaekit.errors import UserError
from vaekit.settings import from_dict, read_config, write_config


class RunFolder:
    """The paths of one run. Making one touches no disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.environment = path / "environment.json"
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.model = path / "model.safetensors"
        self.latents = path / "latents"
        self.baselines = path / "baselines"
        self.svm = path / "svm"
        self.figures = path / "figures"
        self.report = path / "report.html"
        self._lock = path / ".lock"

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

        Raises `UserError` where the folder holds a run of other settings. A config that is there
        stays as it is: only a start that succeeds may renew it.
        """
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

    def as_recorded(self, config: TrainConfig) -> TrainConfig:
        """`config` with the run's own choice for each `auto`, where the folder holds a run."""
        if not self.config.is_file():
            return config
        recorded = flatten(to_dict(read_config(TrainConfig, self.config)))
        given = flatten(to_dict(config))
        auto = {name for name, it in given.items() if it == "auto"}
        return from_dict(TrainConfig, given | {name: recorded[name] for name in auto})

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
        try:
            with FileLock(self._lock, blocking=False):
                return False
        except Timeout:
            return True
        except OSError as error:
            # Who may not write, or can't on this disk, is not told; and needs no more to read.
            if error.errno in (errno.EACCES, errno.EROFS):
                return False
            raise

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for writing; a second writer gets a `UserError` at once."""
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            # The file stays: whoever removed it could lock another one than who waits for it.
            held = FileLock(self._lock, blocking=False).acquire()
        except Timeout as error:
            raise UserError(
                f"{self.path}: another process is writing to this run folder; "
                f"wait for it, or use another folder"
            ) from error
        with held:
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
