"""Where parameters lie changes nothing of what they are."""

import math
from copy import deepcopy

import pytest
import torch
from torch import nn

from vaekit.config import ModelConfig
from vaekit.models.conv import Encoder
from vaekit.models.settle import settle_model
from vaekit.training.layout import are_finite, like, pairs_of_parameters


def an_encoder() -> Encoder:
    torch.manual_seed(0)
    config = settle_model(ModelConfig(architecture="conv", width=4), (1, 12, 12))
    return Encoder(config, (1, 12, 12)).to(memory_format=torch.channels_last)


def test_parameters_in_one_tensor_are_what_they_were_and_change_with_it() -> None:
    one, other = an_encoder(), an_encoder()
    images = torch.rand(3, 1, 12, 12)
    before, state = one(images), deepcopy(one.state_dict())
    strides = [each.stride() for each in one.parameters()]
    (pair,) = pairs_of_parameters(one, other, in_one=True)
    assert len(pair[0]) == sum(each.numel() for each in one.parameters())
    assert [each.stride() for each in one.parameters()] == strides
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, state[name])
    torch.testing.assert_close(one(images), before)
    pair[0].mul_(2)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, 2 * state[name])
    assert all(torch.equal(tensor, state[name]) for name, tensor in other.state_dict().items())


def test_an_average_of_all_is_that_of_each() -> None:
    averages = []
    for in_one in (False, True):
        average, current = an_encoder(), an_encoder()
        with torch.no_grad():
            for number, each in enumerate(current.parameters()):
                each.add_(number)
        with torch.no_grad():
            for one, other in pairs_of_parameters(average, current, in_one=in_one):
                one.lerp_(other, torch.tensor(0.25))
        averages.append(average.state_dict())
    for name, tensor in averages[0].items():
        torch.testing.assert_close(tensor, averages[1][name], atol=0, rtol=1e-6)


def test_a_moment_is_laid_out_as_its_parameter() -> None:
    parameter = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last).weight
    moment = torch.rand(4, 3, 3, 3, dtype=torch.float64)
    found = like(parameter, moment)
    assert torch.equal(found, moment)
    assert found.stride() == parameter.stride()
    count = torch.tensor(5.0)
    assert like(parameter, count) is count


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_number_of_many_gradients_that_is_not_finite_is_found(value: float) -> None:
    gradients = [torch.rand(7), torch.rand(2, 3), torch.rand(1)]
    assert bool(are_finite([*gradients, None]))
    for gradient in gradients:
        spoilt = gradient.clone()
        spoilt.view(-1)[-1] = value
        assert not are_finite([spoilt if each is gradient else each for each in gradients])
