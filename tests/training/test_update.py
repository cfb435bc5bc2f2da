"""What updates of the weights share."""

import torch
from torch import nn

from vaekit.training.update import like


def test_a_moment_is_laid_out_as_its_parameter() -> None:
    parameter = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last).weight
    moment = torch.rand(4, 3, 3, 3, dtype=torch.float64)
    found = like(parameter, moment)
    assert torch.equal(found, moment)
    assert found.stride() == parameter.stride()
    count = torch.tensor(5.0)
    assert like(parameter, count) is count
