"""The figures of the reference implementation, which a run on MNIST is set beside."""

from typing import NamedTuple

from vaekit.config import DataConfig


class Reference(NamedTuple):
    """Losses in nats per image; precision, recall and F1 are macro averages on the test set."""

    train_loss: float
    test_loss: float
    accuracy: float
    precision: float
    recall: float
    f1: float


# MNIST, 10 latent dimensions, 20 epochs.
REFERENCE_MNIST = Reference(
    train_loss=97.41, test_loss=101.55, accuracy=0.9316, precision=0.9316, recall=0.9310, f1=0.9310
)


def reference_for(data: DataConfig) -> Reference | None:
    """The reference that a run on `data` can be compared with: only the whole of MNIST has one."""
    if data.name == "mnist" and data.limit is None and data.holdout is None:
        return REFERENCE_MNIST
    return None
