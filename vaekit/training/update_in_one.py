"""The update of a recorded step: as few kernels as there are kinds of parameters.

A GPU spends it on moving memory and on launches. So parameters that are updated alike lie in one
piece, and so do their average, moments and gradients. In bf16 the passes take copies of the
weights, which the update makes: neither weights nor gradients are cast a tensor at a time.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm

from vaekit.config import TrainConfig, settled
from vaekit.models.vae import VAE
from vaekit.training.graph import compiled
from vaekit.training.update import ADAM_BETA1, Moments, decay_groups, gradient_of, mask_where

ADAM_EPSILON = 1e-8  # PyTorch's default
ALIGNMENT = 64  # numbers: matrix units read in full only what begins at a multiple
# Numbers of a parameter that a compiled update takes by itself, whose gradient needs no copy then.
# PyTorch's own keeps fewer multiprocessors busy with one such than with all (docs/performance.md).
LARGE = 2**20

# Autocast takes the weights of these in the lower precision, of no others.
TAKEN_IN_LOW_PRECISION = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


class Kind(NamedTuple):
    """What the parameters of a block have in common."""

    weight_decay: float
    is_copied: bool  # for the passes, in their precision
    alone: int | None  # the number of the block's only one


class Member(NamedTuple):
    """A parameter, its number in a checkpoint, and what stands for it elsewhere."""

    number: int
    parameter: nn.Parameter
    average: nn.Parameter
    in_passes: nn.Parameter


class Wholes(NamedTuple):
    """What an update of a block reads and writes, each [N]."""

    weights: Tensor
    average: Tensor
    first_moments: Tensor
    second_moments: Tensor
    copies: Tensor  # of the weights, in the precision of the passes; or the weights themselves


class Block:
    """Parameters of one kind, which become parts of the same memory.

    `gradient_dtype` is that in which the update takes gradients of copies.
    """

    def __init__(self, kind: Kind, members: list[Member], gradient_dtype: torch.dtype) -> None:
        self.kind, self._members = kind, members
        rounded = [-(-each.parameter.numel() // ALIGNMENT) * ALIGNMENT for each in members]
        *self._starts, _ = accumulate(rounded, initial=0)
        size = self._starts[-1] + members[-1].parameter.numel()
        weights = torch.zeros(size, device=members[0].parameter.device)
        copies = torch.zeros_like(weights, dtype=torch.bfloat16) if kind.is_copied else weights
        average, first, second = (torch.zeros_like(weights) for _ in range(3))
        self.wholes = Wholes(weights, average, first, second, copies)
        for whole, values in (
            (weights, [each.parameter for each in members]),
            (average, [each.average for each in members]),
            (copies, [each.in_passes for each in members]),
        ):
            for part, value in zip(self._parts(whole), values, strict=True):
                part.copy_(value.data)
                value.data = part
        dtype = gradient_dtype if kind.is_copied else weights.dtype
        self._gradients: Tensor | None = None
        if kind.alone is None or dtype != copies.dtype:
            self._gradients = torch.zeros_like(weights, dtype=dtype)

    def gradients(self) -> Tensor:
        """[N], of the last backward pass."""
        found = [gradient_of(each.in_passes) for each in self._members]
        if self._gradients is None:
            (gradient,) = found
            return gradient.as_strided((gradient.numel(),), (1,))
        torch._foreach_copy_(self._parts(self._gradients), found)
        return self._gradients

    def refresh(self) -> None:
        """Have the passes see the weights of now."""
        if self.kind.is_copied:
            self.wholes.copies.copy_(self.wholes.weights)

    def moments(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """The number of each parameter, and its two moments, where they lie."""
        firsts = self._parts(self.wholes.first_moments)
        seconds = self._parts(self.wholes.second_moments)
        for member, first, second in zip(self._members, firsts, seconds, strict=True):
            yield member.number, first, second

    def _parts(self, whole: Tensor) -> list[Tensor]:
        """Those of the parameters, in their shapes and layouts."""
        return [
            whole.as_strided(each.parameter.shape, each.parameter.stride(), start)
            for each, start in zip(self._members, self._starts, strict=True)
        ]


class UpdateInOne:
    """An `Update` for one process, in float32 or bf16.

    By PyTorch's optimizer; or, where the config has the step compiled, by kernels made of
    `adam_and_average`, which read and write everything once.
    """

    def __init__(
        self, config: TrainConfig, vae: VAE, average: VAE, failed: Tensor, *, is_bf16: bool
    ) -> None:
        self.passes = deepcopy(vae) if is_bf16 else vae
        self._failed, self._beta2 = failed, settled(config.adam_beta2)
        kinds: dict[Kind, list[Member]] = {}
        for kind, member in _members(config, vae, average, self.passes):
            kinds.setdefault(kind, []).append(member)
        gradient_dtype = torch.bfloat16 if config.compile else torch.float32
        self._blocks = [Block(kind, each, gradient_dtype) for kind, each in kinds.items()]
        self._count, self._rate, self._correction, self._correction2 = (
            torch.zeros((), device=failed.device) for _ in range(4)
        )
        self._compiled = compiled(adam_and_average) if config.compile else None
        self._optimizer = None if config.compile else self._library_optimizer()

    def _library_optimizer(self) -> torch.optim.Optimizer:
        groups = [
            {"params": [nn.Parameter(each.wholes.weights)], "weight_decay": each.kind.weight_decay}
            for each in self._blocks
        ]
        optimizer = torch.optim.AdamW(
            groups,
            lr=self._rate,
            betas=(ADAM_BETA1, self._beta2),
            eps=ADAM_EPSILON,
            fused=True,
            capturable=self._failed.is_cuda,
        )
        for block, group in zip(self._blocks, optimizer.param_groups, strict=True):
            optimizer.state[group["params"][0]] = {
                "step": torch.zeros_like(self._count),
                "exp_avg": block.wholes.first_moments,
                "exp_avg_sq": block.wholes.second_moments,
            }
        mask_where(optimizer, self._failed)
        return optimizer

    def set_rate(self, rate: float, number: int) -> None:
        self._rate.fill_(rate)
        if self._compiled is not None:
            self._correction.fill_(1 - ADAM_BETA1**number)
            self._correction2.fill_(1 - self._beta2**number)

    def refresh(self) -> None:
        for block in self._blocks:
            block.refresh()

    def apply(self, loss: Tensor, share_of_new: Tensor) -> None:
        self.passes.zero_grad()
        loss.backward()
        gradients = [block.gradients() for block in self._blocks]
        with torch.no_grad():
            if self._compiled is None:
                self._by_library(gradients, share_of_new)
            else:
                self._compiled(
                    [block.wholes for block in self._blocks],
                    gradients,
                    [block.kind.weight_decay for block in self._blocks],
                    self._beta2,
                    Schedule(self._rate, self._correction, self._correction2, share_of_new),
                    self._failed,
                )
            self._count += 1 - self._failed

    def _by_library(self, gradients: list[Tensor], share_of_new: Tensor) -> None:
        assert self._optimizer is not None
        norms = torch.stack([vector_norm(each, 1) for each in gradients])
        self._failed.copy_(~norms.isfinite().all())
        for group, gradient in zip(self._optimizer.param_groups, gradients, strict=True):
            group["params"][0].grad = gradient
        self._optimizer.step()
        share_of_new = share_of_new * (1 - self._failed)
        for block in self._blocks:
            block.wholes.average.lerp_(block.wholes.weights, share_of_new)
            block.refresh()

    def moments(self) -> Moments:
        state = {
            number: {"step": self._count.clone(), "exp_avg": first, "exp_avg_sq": second}
            for block in self._blocks
            for number, first, second in block.moments()
        }
        return dict(sorted(state.items()))

    def scaler_state(self) -> dict[str, Any] | None:
        return None

    @torch.no_grad()
    def load(self, moments: Moments, scaler_state: dict[str, Any] | None) -> None:
        for block in self._blocks:
            for number, first, second in block.moments():
                first.copy_(moments[number]["exp_avg"])
                second.copy_(moments[number]["exp_avg_sq"])
        self._count.copy_(moments[0]["step"])
        if self._optimizer is not None:
            for state in self._optimizer.state.values():
                state["step"].copy_(self._count)


def _members(
    config: TrainConfig, vae: VAE, average: VAE, passes: VAE
) -> Iterator[tuple[Kind, Member]]:
    """All parameters, in the order of their numbers."""
    modules = vae.modules() if passes is not vae else ()
    copied = {id(each.weight) for each in modules if isinstance(each, TAKEN_IN_LOW_PRECISION)}
    of_all = zip(vae.parameters(), average.parameters(), passes.parameters(), strict=True)
    beside = {id(parameter): others for parameter, *others in of_all}
    numbered = enumerate(
        (group.weight_decay, parameter)
        for group in decay_groups(vae, settled(config.weight_decay))
        for parameter in group.parameters
    )
    for number, (weight_decay, parameter) in numbered:
        is_alone = config.compile and parameter.numel() >= LARGE
        kind = Kind(weight_decay, id(parameter) in copied, number if is_alone else None)
        yield kind, Member(number, parameter, *beside[id(parameter)])


class Schedule(NamedTuple):
    """What changes from update to update; scalars on the device."""

    rate: Tensor
    correction: Tensor  # of the first moments for their start at zero
    correction2: Tensor  # of the second
    share_of_new: Tensor  # in the average


def adam_and_average(
    blocks: Sequence[Wholes],
    gradients: Sequence[Tensor],
    weight_decays: Sequence[float],
    beta2: float,
    schedule: Schedule,
    failed: Tensor,
) -> None:
    """AdamW's update of blocks in place (Loshchilov and Hutter, 2017), and of their average.

    Where a gradient is not finite, `failed` is set and nothing else changed.
    """
    norm = torch.stack([each.float().abs().sum() for each in gradients]).sum()
    is_sound = norm.isfinite()
    failed.copy_(~is_sound)
    for whole, gradient, weight_decay in zip(blocks, gradients, weight_decays, strict=True):
        slope = gradient.float()
        first = whole.first_moments.lerp(slope, 1 - ADAM_BETA1)
        second = whole.second_moments.lerp(slope * slope, 1 - beta2)
        deviation = (second / schedule.correction2).sqrt() + ADAM_EPSILON
        change = first / schedule.correction / deviation + weight_decay * whole.weights
        weights = torch.where(is_sound, whole.weights - schedule.rate * change, whole.weights)
        average = whole.average.lerp(weights, schedule.share_of_new)
        whole.first_moments.copy_(torch.where(is_sound, first, whole.first_moments))
        whole.second_moments.copy_(torch.where(is_sound, second, whole.second_moments))
        whole.average.copy_(torch.where(is_sound, average, whole.average))
        whole.weights.copy_(weights)
        if whole.copies is not whole.weights:
            whole.copies.copy_(weights)
