"""What updates of the weights share."""

import math

import pytest
import torch
from torch import nn

from vaekit.training.update import are_finite, like


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
    assert bool(are_finite(gradients))
    for gradient in gradients:
        spoilt = gradient.clone()
        spoilt.view(-1)[-1] = value
        assert not are_finite([spoilt if each is gradient else each for each in gradients])
