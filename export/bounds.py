"""How much accuracy rounded weights may cost on the test images."""

import math

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import UserError

MAX_ACCURACY_LOSS = 1e-3  # or what chance explains, where that is more

# Rounding moves images near a border between classes to either side, as chance has it. More than
# three standard errors come about so once in 700 exports.
MAX_STANDARD_ERRORS = 3.0

ACCURACY_BOUND = (
    f"at most {MAX_ACCURACY_LOSS:.1%} less accuracy or {MAX_STANDARD_ERRORS:g} standard errors of "
    f"the difference, whichever is more"
)


def require_same_accuracy(
    flag: str, exact: NDArray[np.bool_], found: NDArray[np.bool_]
) -> tuple[float, float]:
    """The accuracies of two ways to label images [N], given which are right.

    Only images that are right in one of the two tell anything. If rounding did no harm, as many
    would become right as wrong, and their difference have the variance of their sum (McNemar,
    Psychometrika 12, 1947). Raises `UserError`, naming `flag`, where fewer are right in `found` and
    chance can't explain it.
    """
    became_wrong, became_right = int((exact & ~found).sum()), int((~exact & found).sum())
    num_lost = became_wrong - became_right
    by_chance = MAX_STANDARD_ERRORS * math.sqrt(became_wrong + became_right)
    if num_lost > max(MAX_ACCURACY_LOSS * len(exact), by_chance):
        raise UserError(
            f"{flag}: SVM accuracy {found.mean():.4f}, {exact.mean():.4f} with float32: "
            f"{became_wrong:,} of {len(exact):,} images became wrong and {became_right:,} right, "
            f"more than chance explains; use fp32"
        )
    return float(exact.mean()), float(found.mean())
