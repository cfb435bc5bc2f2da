"""Other ways to do a training step, and a step without one of its parts: for a GPU to tell apart.

None is a setting of vaekit. One that a GPU finds faster becomes the step.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor

from vaekit.training.graph import compiled
from vaekit.training.state import Training
from vaekit.training.step import Stepper


class Variant(NamedTuple):
    """`within` changes a training's steps while it is entered; it is before the first one."""

    name: str
    within: Callable[[Training], AbstractContextManager[Any]]


@contextmanager
def no_check(training: Training) -> Iterator[None]:
    """Without that check."""

    def update(self: Stepper, loss: Tensor) -> None:
        _backward(self, loss)
        self._optimizer.step()

    with patch.object(Stepper, "_update_weights", update):
        yield


@contextmanager
def no_adam(training: Training) -> Iterator[None]:
    """Without the update of the weights."""

    def update(self: Stepper, loss: Tensor) -> None:
        _backward(self, loss)

    with patch.object(Stepper, "_update_weights", update):
        yield


@contextmanager
def no_average(training: Training) -> Iterator[None]:
    """Without the average of the weights."""
    with patch.object(Stepper, "_update_average", lambda self: None):
        yield


@contextmanager
def passes_compiled(training: Training) -> Iterator[None]:
    """Forward and backward pass compiled, as by --compile."""
    stepper = training.stepper
    if stepper._pass == stepper._bound:
        stepper._pass = compiled(stepper._bound)
    yield


@contextmanager
def setting(module: Any, name: str, value: Any, _training: Training) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _backward(stepper: Stepper, loss: Tensor) -> None:
    is_sound = loss.detach().isfinite() & (stepper._failed == 0)
    loss = loss * torch.where(is_sound, stepper._one, stepper._not_a_number)
    stepper._optimizer.zero_grad()
    loss.backward()


_cudnn, _products = torch.backends.cudnn, torch.backends.cuda.matmul

VARIANTS = (
    Variant("as it is", nullcontext),
    Variant("no check for failed steps", no_check),
    Variant("no average of the weights", no_average),
    Variant("no Adam", no_adam),
    *([Variant("compiled", passes_compiled)] if torch.cuda.is_available() else []),
    Variant("cuDNN not deterministic", partial(setting, _cudnn, "deterministic", False)),
    Variant("cuDNN chooses by trial", partial(setting, _cudnn, "benchmark", True)),
    Variant("products in TF32", partial(setting, _products, "allow_tf32", True)),
    Variant("convolutions without TF32", partial(setting, _cudnn.conv, "fp32_precision", "ieee")),
)
