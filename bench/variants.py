"""Other ways to do a training step, and a step without one of its parts: for a GPU to tell apart.

None is a setting of vaekit. One that a GPU finds faster becomes the step.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn

from vaekit.training.state import Training
from vaekit.training.step import Stepper


class Variant(NamedTuple):
    """`within` changes a training's steps while it is entered; it is before the first one."""

    name: str
    within: Callable[[Training], AbstractContextManager[Any]]


@contextmanager
def foreach_norm(training: Training) -> Iterator[None]:
    """The check for gradients that are not finite by two launches instead of one a tensor."""

    def update(self: Stepper, loss: Tensor) -> None:
        if self._scaler is not None:
            return unchanged(self, loss)
        _backward(self, loss)
        norms = torch._foreach_norm([p.grad for p in self._vae.parameters()], 1)
        self._failed.copy_(~torch.stack(norms).sum().isfinite())
        self._optimizer.step()

    unchanged = Stepper._update_weights
    with patch.object(Stepper, "_update_weights", update):
        yield


@contextmanager
def foreach_lerp(training: Training) -> Iterator[None]:
    """The average of all weights by one call instead of one a tensor."""

    def update(self: Stepper) -> None:
        average, current = list(self._average.parameters()), list(self._vae.parameters())
        share_of_new = self._share_of_new * (1 - self._failed)
        with torch.no_grad():
            torch._foreach_lerp_(average, current, [share_of_new] * len(average))

    with patch.object(Stepper, "_update_average", update):
        yield


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
def flat(training: Training) -> Iterator[None]:
    """Weights, gradients, moments and average in one tensor each, and one launch for each."""
    stepper = training.stepper
    if not hasattr(stepper, "flat_gradient"):
        weights, average = _in_one(training.vae), _in_one(training.ema)
        weight = nn.Parameter(weights)
        weight.grad = stepper.flat_gradient = torch.zeros_like(weights)  # type: ignore[attr-defined]
        stepper.flat_weights, stepper.flat_average = weights, average  # type: ignore[attr-defined]
        group = stepper._optimizer.param_groups[0]
        options = {name: group[name] for name in ("lr", "capturable", "fused")}
        stepper._optimizer = torch.optim.AdamW([weight], weight_decay=0.0, **options)
        stepper._optimizer.found_inf = stepper._failed  # type: ignore[attr-defined]
        _point_at(training.vae, stepper.flat_gradient)  # type: ignore[attr-defined]

    def update(self: Any, loss: Tensor) -> None:
        self.flat_gradient.zero_()
        is_sound = loss.detach().isfinite() & (self._failed == 0)
        (loss * torch.where(is_sound, self._one, self._not_a_number)).backward()
        self._failed.copy_(~self.flat_gradient.sum().isfinite())
        self._optimizer.step()

    def update_average(self: Any) -> None:
        with torch.no_grad():
            share_of_new = self._share_of_new * (1 - self._failed)
            self.flat_average.lerp_(self.flat_weights, share_of_new)

    with (
        patch.object(Stepper, "_update_weights", update),
        patch.object(Stepper, "_update_average", update_average),
    ):
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


def _in_one(vae: nn.Module) -> Tensor:
    """The parameters as parts of one tensor, which is returned."""
    with torch.no_grad():
        whole = torch.cat([parameter.flatten() for parameter in vae.parameters()])
        start = 0
        for parameter in vae.parameters():
            end = start + parameter.numel()
            parameter.data = whole[start:end].view_as(parameter)
            start = end
    return whole


def _point_at(vae: nn.Module, gradient: Tensor) -> None:
    start = 0
    for parameter in vae.parameters():
        end = start + parameter.numel()
        parameter.grad = gradient[start:end].view_as(parameter)
        start = end


_cudnn, _products = torch.backends.cudnn, torch.backends.cuda.matmul

VARIANTS = (
    Variant("as it is", nullcontext),
    Variant("no check for failed steps", no_check),
    Variant("check by foreach norm", foreach_norm),
    Variant("average by foreach lerp", foreach_lerp),
    Variant("no average of the weights", no_average),
    Variant("no Adam", no_adam),
    Variant("one flat tensor", flat),
    Variant("cuDNN not deterministic", partial(setting, _cudnn, "deterministic", False)),
    Variant("cuDNN chooses by trial", partial(setting, _cudnn, "benchmark", True)),
    Variant("products in TF32", partial(setting, _products, "allow_tf32", True)),
    Variant("convolutions without TF32", partial(setting, _cudnn.conv, "fp32_precision", "ieee")),
)
