"""Labels that the neighbours of an image contradict."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import UserError
from vaekit.evaluation.neighbours import nearest_others

NUM_NEIGHBOURS = 10
LIKELY_WRONG = 0.5  # from this suspicion on; so most of the weight is against the label


class Suspicions(NamedTuple):
    """What the neighbours of N labelled images say of their labels."""

    suspicion: NDArray[np.float64]  # [N], from 0 to 1: their weight that is against the label
    suggested: NDArray[np.int64]  # [N], the label with most weight

    def likely_wrong(self) -> NDArray[np.int64]:
        """The images whose label is probably wrong, the most suspicious first."""
        found = np.flatnonzero(self.suspicion > LIKELY_WRONG)
        order = np.argsort(-self.suspicion[found], kind="stable")
        return found[order]


def suspect_labels(
    latents: NDArray[np.float32], labels: NDArray[np.int64], k: int = NUM_NEIGHBOURS
) -> Suspicions:
    """Let the k nearest others of each of `latents` [N, L] vote on its label, of `labels` [N].

    A vote weighs as much as one over the distance (Dudani, 1976, in its simplest form). So few
    wrong labels among the neighbours are outvoted. Raises `UserError` for labels of one class and
    for fewer than k others.
    """
    classes, positions = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise UserError(
            f"{len(labels):,} labels of {len(classes)} class: expected two classes or more, to "
            f"tell wrong labels from right ones"
        )
    neighbours = nearest_others(latents, k)
    weights = 1 / np.maximum(neighbours.distances, np.finfo(np.float32).tiny)
    weights /= weights.sum(axis=1, keepdims=True)
    votes = np.zeros((len(labels), len(classes)))
    rows = np.broadcast_to(np.arange(len(labels))[:, None], neighbours.indices.shape)
    np.add.at(votes, (rows, positions[neighbours.indices]), weights)
    own = votes[np.arange(len(labels)), positions]
    return Suspicions(np.clip(1 - own, 0, 1), classes[votes.argmax(axis=1)])
