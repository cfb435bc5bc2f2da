"""The update of a recorded step: as few kernels as there are kinds of parameters.

A GPU spends it on moving memory and on launches. So parameters that are updated alike lie in one
piece, and so do their average, moments and gradients. In bf16 the passes take copies of the
weights, which the update makes: neither weights nor gradients are cast a tensor at a time.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vaekit.config import TrainConfig, settled
from vaekit.models.vae import VAE
from vaekit.training.graph import compiled
from vaekit.training.update import (
    ADAM_BETA1,
    Moments,
    are_finite,
    decay_groups,
    gradient_of,
    mask_where,
)

ADAM_EPSILON = 1e-8  # PyTorch's default
ALIGNMENT = 64  # numbers: matrix units read in full only what begins at a multiple
# Numbers of a parameter that a compiled update takes by itself, whose gradient needs no copy then.
# PyTorch's own update has a launch for each block: of 19 million parameters on an H200 it took 271
# microseconds in four blocks, two of them large, and 184 in two.
LARGE = 2**20

# Layers whose weight autocast would cast as it is; others compute with theirs in float32 first.
TAKEN_IN_LOW_PRECISION = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


class Kind(NamedTuple):
    """What the parameters of a block have in common."""

    weight_decay: float
    is_copied: bool  # for the passes, in their precision
    only: int | None  # the number of the one parameter of a block that is large


class Member(NamedTuple):
    """A parameter, its number in a checkpoint, and what stands for it elsewhere."""

    number: int
    parameter: nn.Parameter
    average: nn.Parameter
    in_passes: nn.Parameter


class Buffers(NamedTuple):
    """What an update of a block reads and writes, each [N]."""

    weights: Tensor
    average: Tensor
    first_moments: Tensor
    second_moments: Tensor
    copies: Tensor  # of the weights, in the precision of the passes; or the weights themselves


class Block:
    """Parameters of one kind, which are moved into the same memory, as parts of `Buffers`.

    `gradient_dtype` is that in which the update takes gradients of copies.
    """

    def __init__(self, kind: Kind, members: list[Member], gradient_dtype: torch.dtype) -> None:
        self.kind, self._members = kind, members
        self._starts = _starts(each.parameter.numel() for each in members)
        size = self._starts[-1] + members[-1].parameter.numel()
        weights = torch.zeros(size, device=members[0].parameter.device)
        copies = torch.zeros_like(weights, dtype=torch.bfloat16) if kind.is_copied else weights
        average, first, second = (torch.zeros_like(weights) for _ in range(3))
        self.buffers = Buffers(weights, average, first, second, copies)
        self._move([each.parameter for each in members], weights)
        self._move([each.average for each in members], average)
        self._move([each.in_passes for each in members], copies)
        dtype = gradient_dtype if kind.is_copied else weights.dtype
        self._gradients: Tensor | None = None
        if kind.only is None or dtype != copies.dtype:
            self._gradients = torch.zeros_like(weights, dtype=dtype)

    def _move(self, parameters: list[nn.Parameter], buffer: Tensor) -> None:
        for part, parameter in zip(self._parts(buffer), parameters, strict=True):
            part.copy_(parameter.data)
            parameter.data = part

    def gradients(self) -> Tensor:
        """[N], of the last backward pass."""
        found = [gradient_of(each.in_passes) for each in self._members]
        if self._gradients is None:
            (gradient,) = found
            assert gradient.stride() == self._members[0].in_passes.stride()  # so autograd leaves it
            return gradient.as_strided((gradient.numel(),), (1,))
        torch._foreach_copy_(self._parts(self._gradients), found)  # in one launch, casting
        return self._gradients

    def copy(self) -> None:
        """Have the passes see the weights of now."""
        if self.kind.is_copied:
            self.buffers.copies.copy_(self.buffers.weights)

    def moments(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """The number of each parameter, and its two moments, where they lie."""
        firsts = self._parts(self.buffers.first_moments)
        seconds = self._parts(self.buffers.second_moments)
        for member, first, second in zip(self._members, firsts, seconds, strict=True):
            yield member.number, first, second

    def _parts(self, buffer: Tensor) -> list[Tensor]:
        """Those of the parameters, in their shapes and layouts."""
        return [
            buffer.as_strided(each.parameter.shape, each.parameter.stride(), start)
            for each, start in zip(self._members, self._starts, strict=True)
        ]


def _starts(sizes: Iterable[int]) -> list[int]:
    """Where each begins of so many numbers, at multiples of `ALIGNMENT`."""
    rounded = [math.ceil(size / ALIGNMENT) * ALIGNMENT for size in sizes]
    return list(accumulate(rounded[:-1], initial=0))


class UpdateInOne:
    """An `Update` for one process, in float32 or bf16; parameters of `vae` and `average` are moved.

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
            {"params": [nn.Parameter(each.buffers.weights)], "weight_decay": each.kind.weight_decay}
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
                "exp_avg": block.buffers.first_moments,
                "exp_avg_sq": block.buffers.second_moments,
            }
        mask_where(optimizer, self._failed)
        return optimizer

    def set_rate(self, rate: float, number: int) -> None:
        self._rate.fill_(rate)
        if self._compiled is not None:
            self._correction.fill_(1 - ADAM_BETA1**number)
            self._correction2.fill_(1 - self._beta2**number)

    def apply(self, loss: Tensor, share_of_new: Tensor) -> None:
        self.passes.zero_grad()
        loss.backward()
        gradients = [block.gradients() for block in self._blocks]
        with torch.no_grad():
            if self._compiled is None:
                self._by_library(gradients, share_of_new)
            else:
                self._compiled(
                    [block.buffers for block in self._blocks],
                    gradients,
                    [block.kind.weight_decay for block in self._blocks],
                    self._beta2,
                    Schedule(self._rate, self._correction, self._correction2, share_of_new),
                    self._failed,
                )
            self._count += 1 - self._failed

    def _by_library(self, gradients: list[Tensor], share_of_new: Tensor) -> None:
        assert self._optimizer is not None
        self._failed.copy_(~are_finite(gradients))
        for group, gradient in zip(self._optimizer.param_groups, gradients, strict=True):
            group["params"][0].grad = gradient
        self._optimizer.step()
        share_of_new = share_of_new * (1 - self._failed)
        for block in self._blocks:
            block.buffers.average.lerp_(block.buffers.weights, share_of_new)
            block.copy()

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
                for own, name in ((first, "exp_avg"), (second, "exp_avg_sq")):
                    assert own.shape == moments[number][name].shape
                    own.copy_(moments[number][name])
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
        is_large = config.compile and parameter.numel() >= LARGE
        kind = Kind(weight_decay, id(parameter) in copied, number if is_large else None)
        yield kind, Member(number, parameter, *beside[id(parameter)])


class Schedule(NamedTuple):
    """What changes from update to update; scalars on the device."""

    rate: Tensor
    correction: Tensor  # of the first moments for their start at zero
    correction2: Tensor  # of the second
    share_of_new: Tensor  # in the average


def adam_and_average(
    blocks: Sequence[Buffers],
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
    for own, gradient, weight_decay in zip(blocks, gradients, weight_decays, strict=True):
        slope = gradient.float()
        first = own.first_moments.lerp(slope, 1 - ADAM_BETA1)
        second = own.second_moments.lerp(slope * slope, 1 - beta2)
        deviation = (second / schedule.correction2).sqrt() + ADAM_EPSILON
        change = first / schedule.correction / deviation + weight_decay * own.weights
        weights = torch.where(is_sound, own.weights - schedule.rate * change, own.weights)
        average = own.average.lerp(weights, schedule.share_of_new)
        own.first_moments.copy_(torch.where(is_sound, first, own.first_moments))
        own.second_moments.copy_(torch.where(is_sound, second, own.second_moments))
        own.average.copy_(torch.where(is_sound, average, own.average))
        own.weights.copy_(weights)
        if own.copies is not own.weights:
            own.copies.copy_(weights)
