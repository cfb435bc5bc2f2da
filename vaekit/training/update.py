"""What follows a backward pass: Adam's update of the weights, and their average."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from vaekit.config import TrainConfig, settled
from vaekit.models.linear_way import linear_way_parameters
from vaekit.models.vae import VAE

ADAM_BETA1 = 0.9

Moments = dict[int, dict[str, Tensor]]  # the optimizer's state, by the number of the parameter


class Update(Protocol):
    """One step of the optimizer and of the average of the weights.

    Each sets a flag, 1 where a gradient is not finite (or a loss, where a loss scale lets gradients
    overflow), and changes nothing then. The step has a loss that is no number from there on.
    """

    passes: VAE  # what is to see the images; after an update, and one that failed, as the weights

    def set_rate(self, rate: float, number: int) -> None:
        """Take `rate` at update `number` of the run, from 1 on."""

    def apply(self, loss: Tensor, share_of_new: Tensor) -> None:
        """Descend from a `loss`; the average takes over a share of the new weights."""

    def moments(self) -> Moments:
        """As `load` takes them."""

    def scaler_state(self) -> dict[str, Any] | None:
        """That of the fp16 loss scale, JSON values; None where there is none."""

    def load(self, moments: Moments, scaler_state: dict[str, Any] | None) -> None:
        """The inverse of `moments` and `scaler_state`, before the first update."""


class UpdateByParameter:
    """PyTorch's optimizer, one parameter after the other; on any device, in any precision."""

    def __init__(
        self,
        config: TrainConfig,
        accelerator: Accelerator,
        vae: VAE,
        average: VAE,
        failed: Tensor,
    ) -> None:
        self.passes, self._average, self._failed = vae, average, failed
        self._scaler = accelerator.scaler
        self._optimizer = torch.optim.AdamW(
            [
                {"params": group.parameters, "weight_decay": group.weight_decay}
                for group in decay_groups(vae, settled(config.weight_decay))
            ],
            lr=settled(config.learning_rate),
            betas=(ADAM_BETA1, settled(config.adam_beta2)),
            fused=True,
        )
        zero_moments = {
            index: {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
            for index, parameter in enumerate(self._parameters())
        }
        self._load_moments(zero_moments)  # it would make them only at the first step
        if self._scaler is None:
            mask_where(self._optimizer, failed)

    def set_rate(self, rate: float, number: int) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def apply(self, loss: Tensor, share_of_new: Tensor) -> None:
        self._optimizer.zero_grad()
        if self._scaler is None:
            loss.backward()
            self._failed.copy_(~are_finite([gradient_of(p) for p in self.passes.parameters()]))
            self._optimizer.step()
        else:
            # Here gradients may overflow: the scaler leaves the step out and lowers its scale.
            self._failed.copy_(~loss.detach().isfinite())
            self._scaler.scale(loss).backward()
            self._scaler.step(self._optimizer)
            self._scaler.update()
        self._average_weights(share_of_new * (1 - self._failed))

    @torch.no_grad()
    def _average_weights(self, share_of_new: Tensor) -> None:
        pairs = zip(self._average.parameters(), self.passes.parameters(), strict=True)
        for average, current in pairs:
            average.lerp_(current, share_of_new)

    def moments(self) -> Moments:
        state: Moments = self._optimizer.state_dict()["state"]
        return state

    def scaler_state(self) -> dict[str, Any] | None:
        return None if self._scaler is None else self._scaler.state_dict()

    def load(self, moments: Moments, scaler_state: dict[str, Any] | None) -> None:
        self._load_moments(moments)
        if self._scaler is not None and scaler_state is not None:
            self._scaler.load_state_dict(scaler_state)

    def _load_moments(self, moments: Moments) -> None:
        groups = self._optimizer.state_dict()["param_groups"]
        parameters = self._parameters()
        state = {
            index: {name: like(parameters[index], moment) for name, moment in each.items()}
            for index, each in moments.items()
        }
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})

    def _parameters(self) -> list[nn.Parameter]:
        return [each for group in self._optimizer.param_groups for each in group["params"]]


def like(parameter: Tensor, value: Tensor) -> Tensor:
    """A `value` of the parameter's shape in its layout; one of another shape as it is."""
    if value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def are_finite(gradients: Sequence[Tensor]) -> Tensor:
    """Whether all are, a bool on their device, which nobody waits for."""
    if gradients[0].is_cuda:
        return get_total_norm(gradients, norm_type=1.0).isfinite()  # some launches for all of them
    # On a CPU a sum of each is 3 to 10 times as fast.
    return torch.stack([gradient.sum() for gradient in gradients]).sum().isfinite()


def gradient_of(parameter: nn.Parameter) -> Tensor:
    """That of the last backward pass, which reaches all parameters."""
    assert parameter.grad is not None
    return parameter.grad


def mask_where(optimizer: torch.optim.Optimizer, failed: Tensor) -> None:
    """Have a fused update change nothing where `failed` is 1, without waiting for it."""
    optimizer.found_inf = failed  # type: ignore[attr-defined]  # the hook of gradient scalers


class DecayGroup(NamedTuple):
    """Parameters of the same weight decay."""

    weight_decay: float
    parameters: list[nn.Parameter]


def decay_groups(vae: nn.Module, weight_decay: float) -> list[DecayGroup]:
    """All parameters: weights, and then biases, which don't decay.

    Nor do the weights of a linear way, that start as principal components. The order is that of
    the module: by it a checkpoint knows the moments.
    """
    parameters = list(vae.parameters())
    spared = {id(each) for each in linear_way_parameters(vae)}
    weights = [each for each in parameters if each.ndim > 1]
    biases = [each for each in parameters if each.ndim == 1]
    decays = groupby(weights, key=lambda each: 0.0 if id(each) in spared else weight_decay)
    return [DecayGroup(decay, list(group)) for decay, group in decays] + [DecayGroup(0.0, biases)]
