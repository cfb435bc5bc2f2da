"""The negative evidence lower bound."""

from typing import NamedTuple

from torch import Tensor


class NegativeElbo(NamedTuple):
    """Nats per image, each of shape [B]."""

    reconstruction: Tensor
    kl: Tensor

    @property
    def loss(self) -> Tensor:
        return self.reconstruction + self.kl
