"""Settings of training tried on MNIST, each with one thing changed:

    python -m bench.search SECONDS PRECISION [TRIAL...]

A fixed 5,000 of the 60,000 training images are held out to choose by. Where a trial's name ends
with `@SEED`, it is trained on all of them instead and measured on the test set: for a choice that
has been made. Some trials run at once on a GPU, each on a stream of its own, since one alone leaves
most of it idle. Without a GPU the trials are of scikit-learn's digits, and tiny.
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast
from unittest.mock import patch

import torch
from accelerate.state import AcceleratorState
from torch.nn.functional import dropout

from bench.answers import answer
from bench.defaults import set_for_training
from bench.questions import DEVICE, MNIST, MODELS, ON_GPU, going_on
from vaekit.config import MixedPrecision, SvmConfig, TrainConfig
from vaekit.images.image_set import Images
from vaekit.images.pixels import as_floats
from vaekit.images.sets import load_images
from vaekit.models import conv
from vaekit.models.vae import VAE, num_parameters
from vaekit.svm.fit import fit_table
from vaekit.svm.table import predict
from vaekit.training.loop import Event, run
from vaekit.training.ranks import start_accelerator
from vaekit.training.state import Training

HELD_OUT = 5000 if ON_GPU else 50
EPOCHS = 20 if ON_GPU else 1
AT_ONCE = 10
LATENT_DIM = 10
ENCODED = 5000  # images at once


@dataclass(frozen=True)
class Trial:
    """`within` is entered while the model is made, `prepare` changes it before the first step."""

    settings: dict[str, Any] = field(default_factory=dict)  # of `TrainConfig`
    model: dict[str, Any] = field(default_factory=dict)  # of `ModelConfig`
    within: Callable[[], AbstractContextManager[Any]] = nullcontext
    prepare: Callable[[Training], object] = lambda training: None


def of_conv(name: str, value: Any) -> Trial:
    """With another constant of the strided architecture."""
    return Trial(within=partial(patch.object, conv, name, value))


def dropped(share: float) -> Trial:
    """Dropout of the encoder's last hidden layer."""

    def prepare(training: Training) -> None:
        training.stepper.passes.enc.linear.register_forward_hook(
            lambda module, _inputs, outputs: dropout(outputs, share, module.training)
        )

    return Trial(prepare=prepare)


def rate(learning_rate: float, batch_size: int = 128) -> Trial:
    return Trial({"learning_rate": learning_rate, "batch_size": batch_size})


CONV = {
    "as it is": Trial(),
    "seed 1": Trial({"seed": 1}),
    "weight decay 0": Trial({"weight_decay": 0.0}),
    "weight decay 0.1": Trial({"weight_decay": 0.1}),
    "rate 0.006": rate(6e-3),
    "rate 0.008": rate(8e-3),
    "rate 0.0025": rate(2.5e-3),
    "batch 64": rate(3e-3, 64),
    "batch 256": rate(6e-3, 256),
    "block at 14x14": of_conv("LARGEST_BLOCK", 14),
    "dropout 0.1": dropped(0.1),
    "average 0.9995": Trial({"ema_decay": 0.9995}),
    "width 36": Trial(model={"width": 36}),
    "weight decay 0.3": Trial({"weight_decay": 0.3}),
    "beta2 0.95": Trial({"adam_beta2": 0.95}),
    "beta2 0.999": Trial({"adam_beta2": 0.999}),
    "beta2 0.999, weight decay 0": Trial({"adam_beta2": 0.999, "weight_decay": 0.0}),
    "exact gradient of the KL": Trial({"kl_gradient": "exact"}),
    "hidden 512": of_conv("HIDDEN_DIM", 512),
    "hidden 128": of_conv("HIDDEN_DIM", 128),
    "input noise 0.03": Trial({"input_noise": 0.03}),
    "2 samples": Trial({"num_samples": 2}),
    "width 48": Trial(model={"width": 48}),
    "no block": of_conv("LARGEST_BLOCK", 0),
    "transposed": Trial(model={"to_pixels": "transposed"}),
}
REFERENCE = {
    "as it is": Trial(),
    "rate 0.0005": rate(5e-4),
    "rate 0.002": rate(2e-3),
    "weight decay 0.1": Trial({"weight_decay": 0.1}),
    "weight decay 0.5": Trial({"weight_decay": 0.5}),
    "beta2 0.99": Trial({"adam_beta2": 0.99}),
    "batch 64": rate(7e-4, 64),
    "batch 256": rate(1.4e-3, 256),
    "average 0.9998": Trial({"ema_decay": 0.9998}),
}
TRIALS = {
    f"{architecture}, {name}": (architecture, trial)
    for architecture, trials in (("conv", CONV), ("reference", REFERENCE))
    for name, trial in trials.items()
}


def main(names: Iterable[str], precision: MixedPrecision, seconds: float) -> None:
    """Try these; none is begun after so many seconds.

    All in one precision, which Accelerate keeps for the whole process.
    """
    start = time.monotonic()
    waiting = deque(names)
    running: deque[tuple[str, torch.cuda.Stream | None, Iterator[Event | None]]] = deque()
    images = {held_out: load(held_out) for held_out in {"@" not in name for name in waiting}}
    classified: list[Future[None]] = []
    with ThreadPoolExecutor(1) as classifier:
        later = lambda *work: classified.append(classifier.submit(*work))  # noqa: E731
        while True:
            in_time = time.monotonic() - start < seconds
            while waiting and in_time and len(running) < AT_ONCE:
                name = waiting.popleft()
                stream = torch.cuda.Stream() if ON_GPU else None
                events = trying(name, precision, images["@" not in name], later)
                running.append((name, stream, events))
            if not running:
                break
            name, stream, events = running.popleft()
            with torch.cuda.stream(stream) if stream else nullcontext(), going_on(name):
                if next(events, "over") != "over":
                    running.append((name, stream, events))
    for each in classified:
        each.result()
    for name in waiting:
        answer("trial", name=name, why="no time was left")


def load(held_out: bool) -> Images:
    return load_images(replace(MNIST, holdout=HELD_OUT if held_out else None), seed=0)


def trying(
    name: str, precision: MixedPrecision, images: Images, later: Callable[..., None]
) -> Iterator[Event | None]:
    """Train, going on with each `next`, and say `later` what came of it."""
    begun = time.monotonic()
    key, _, seed = name.partition("@")
    architecture, trial = TRIALS[key]
    settings = {"batch_size": 128, "seed": int(seed or 0), "mixed_precision": precision}
    settings |= trial.settings
    config = TrainConfig(
        data=MNIST,
        model=replace(MODELS[architecture], latent_dim=LATENT_DIM, **trial.model),
        epochs=EPOCHS,
        **settings if ON_GPU else settings | {"batch_size": 16},
    )
    AcceleratorState._reset_state()
    with trial.within():
        training = Training(config, images, start_accelerator(config))
    trial.prepare(training)
    yield from run(training)
    row = training.metrics[-1]
    facts = {
        "name": name,
        "parameters": num_parameters(training.vae),
        "precision": training.accelerator.mixed_precision,
        "loss": row["test_loss"],
        "kl": row["test_kl"],
        "train_loss": row["final_train_loss"],
        "seconds": time.monotonic() - begun,
        "seconds_of_steps": sum(each["seconds"] for each in training.metrics[1:]),
    }
    latents = [encode(training.ema, each.pixels) for each in (images.train, images.test)]
    later(classify, latents, images, facts)


@torch.no_grad()
def encode(vae: VAE, pixels: Any) -> Any:
    batches = torch.from_numpy(pixels[:]).split(ENCODED)
    rows = [torch.cat(vae.encode(as_floats(batch.to(DEVICE))), dim=1).cpu() for batch in batches]
    return torch.cat(rows).numpy()


def classify(latents: Any, images: Images, facts: dict[str, Any]) -> None:
    with going_on(facts["name"]):
        assert images.train.labels is not None
        table = fit_table(latents[0], images.train.labels, SvmConfig())
        right = predict(table, latents[1]).labels == images.test.labels
        answer("trial", accuracy=float(right.mean()), **facts)


if __name__ == "__main__":
    _, limit, asked, *chosen = sys.argv
    with set_for_training(DEVICE):
        main(chosen or TRIALS, cast("MixedPrecision", asked), float(limit))
