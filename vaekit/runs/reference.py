"""The figures of the reference implementation, which a run on MNIST is set beside."""

from typing import NamedTuple

from vaekit.config import TrainConfig
from vaekit.models.settle import REFERENCE


class Reference(NamedTuple):
    """Losses in nats per image; precision, recall and F1 are macro averages on the test set."""

    train_loss: float
    test_loss: float
    accuracy: float
    precision: float
    recall: float
    f1: float


REFERENCE_EPOCHS = 20
REFERENCE_MNIST = Reference(
    train_loss=97.41, test_loss=101.55, accuracy=0.9316, precision=0.9316, recall=0.9310, f1=0.9310
)


def reference_for(config: TrainConfig) -> Reference | None:
    """The reference that a run can be compared with, if it has one.

    It is of the reference's model, trained as long as that was, on the whole of MNIST.
    """
    data = config.data
    is_whole_mnist = data.name == "mnist" and data.limit is None and data.holdout is None
    is_alike = config.model == REFERENCE and config.epochs == REFERENCE_EPOCHS
    return REFERENCE_MNIST if is_whole_mnist and is_alike else None
