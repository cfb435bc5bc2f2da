"""An update in one piece is what PyTorch's optimizer does, a parameter after the other."""

from copy import deepcopy
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from conftest import tiny_config
from torch import Tensor

from vaekit.config import ModelConfig, TrainConfig
from vaekit.models.vae import VAE
from vaekit.training import update_in_one
from vaekit.training.update import Update, UpdateByParameter
from vaekit.training.update_in_one import ALIGNMENT, UpdateInOne

NUM_UPDATES = 6
RATE = 3e-3
PRECISIONS = ("float32", "bf16")
ROUNDING = 1e-5

COLOUR = ModelConfig("conv", "gaussian", latent_dim=3, width=4)  # with linear ways, spared of decay
REFERENCE = ModelConfig(latent_dim=3, conv_channels=(2, 3), hidden_dims=(16, 8))


class Case(NamedTuple):
    model: ModelConfig
    precision: str
    is_compiled: bool


CASES = [
    pytest.param(Case(model, precision, is_compiled), id=f"{name}-{precision}-{made}")
    for name, model in (("reference", REFERENCE), ("colour", COLOUR))
    for precision in PRECISIONS
    for made, is_compiled in (("library", False), ("compiled", True))
]


class Trained(NamedTuple):
    vae: VAE
    average: VAE
    update: Update
    failed: Tensor

    def go_on(self, numbers: range) -> None:
        """Updates by gradients that depend on their number alone, and that bf16 has."""
        for number in numbers:
            random = torch.Generator().manual_seed(number)
            loss = torch.zeros(())
            for each in self.update.passes.parameters():
                slope = torch.randn(each.shape, generator=random).bfloat16()
                loss = loss + (each.float() * slope.float()).sum()
            self.update.set_rate(RATE, number)
            self.update.apply(loss, torch.tensor(0.3))

    def rehearse(self) -> None:
        loss = sum(each.float().sum() for each in self.update.passes.parameters())
        self.update.apply(torch.nan * loss, torch.tensor(0.3))

    def tensors(self) -> dict[str, Tensor]:
        """All that an update changes, by name."""
        found = {f"model.{name}": each for name, each in self.vae.state_dict().items()}
        found |= {f"average.{name}": each for name, each in self.average.state_dict().items()}
        for number, moments in self.update.moments().items():
            found |= {f"moments.{number}.{name}": each for name, each in moments.items()}
        return {name: each.clone() for name, each in found.items()}


def start(case: Case, *, in_one: bool) -> Trained:
    torch.manual_seed(0)
    vae = VAE(case.model, (3 if case.model is COLOUR else 1, 12, 12))
    vae.to(memory_format=torch.channels_last)
    average, failed = deepcopy(vae).requires_grad_(False), torch.zeros(())
    config = settled_config(compile=case.is_compiled)
    update: Update
    if in_one:
        update = UpdateInOne(config, vae, average, failed, is_bf16=case.precision == "bf16")
    else:
        accelerator: Any = SimpleNamespace(scaler=None)
        update = UpdateByParameter(config, accelerator, vae, average, failed)
    return Trained(vae, average, update, failed)


def settled_config(**changes: Any) -> TrainConfig:
    return tiny_config(
        Path("unused"), learning_rate=RATE, weight_decay=0.5, adam_beta2=0.99, **changes
    )


@pytest.fixture(autouse=True)
def without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update_in_one, "compiled", lambda work: work)
    monkeypatch.setattr(update_in_one, "LARGE", 200)  # some parameters are alone, most aren't


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert list(one) == list(other)
    for name, each in one.items():
        torch.testing.assert_close(each, other[name], rtol=ROUNDING, atol=1e-7, msg=name)


@pytest.mark.parametrize("case", CASES)
def test_updates_in_one_piece_are_those_of_pytorchs_optimizer(case: Case) -> None:
    one, other = start(case, in_one=True), start(case, in_one=False)
    for each in (one, other):
        each.go_on(range(1, NUM_UPDATES + 1))
    assert_close(one.tensors(), other.tensors())


@pytest.mark.parametrize("case", CASES)
def test_each_goes_on_where_the_other_was(case: Case) -> None:
    """A checkpoint knows moments by the number of the parameter, whoever wrote them."""
    half = NUM_UPDATES // 2
    for in_one in (True, False):
        before, after = start(case, in_one=in_one), start(case, in_one=not in_one)
        before.go_on(range(1, half + 1))
        after.vae.load_state_dict(before.vae.state_dict())
        after.average.load_state_dict(before.average.state_dict())
        after.update.load(deepcopy(before.update.moments()), None)
        after.rehearse()
        for each in (before, after):
            each.go_on(range(half + 1, NUM_UPDATES + 1))
        assert_close(after.tensors(), before.tensors())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.injects(10)
def test_one_number_of_a_gradient_that_is_not_finite_changes_nothing(
    case: Case, value: float
) -> None:
    trained = start(case, in_one=True)
    trained.go_on(range(1, 3))
    before = trained.tensors()
    passes = [each.clone() for each in trained.update.passes.parameters()]

    def spoil_one_entry(gradient: Tensor) -> Tensor:
        spoilt = gradient.clone()
        spoilt[(-1,) * spoilt.ndim] = value
        return spoilt

    for parameter in trained.update.passes.parameters():
        hook = parameter.register_hook(spoil_one_entry)
        trained.failed.zero_()
        trained.go_on(range(3, 4))
        hook.remove()
        assert trained.failed == 1
        assert all(torch.equal(each, before[name]) for name, each in trained.tensors().items())
        assert all(map(torch.equal, trained.update.passes.parameters(), passes))


@pytest.mark.parametrize("case", CASES)
def test_passes_see_the_weights_and_all_begin_where_they_are_read_in_full(case: Case) -> None:
    trained = start(case, in_one=True)
    trained.go_on(range(1, 3))
    dtypes = set()
    for weight, seen in zip(
        trained.vae.parameters(), trained.update.passes.parameters(), strict=True
    ):
        assert torch.equal(weight.to(seen.dtype), seen)
        assert weight.stride() == seen.stride()
        dtypes.add(seen.dtype)
    assert dtypes == ({torch.float32} | ({torch.bfloat16} if case.precision == "bf16" else set()))
    both = chain(trained.vae.parameters(), trained.update.passes.parameters())
    assert all(each.storage_offset() % ALIGNMENT == 0 for each in both)
