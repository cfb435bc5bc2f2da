"""Labels that the neighbours of an image contradict."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import UserError
from vaekit.evaluation.neighbours import Rows, nearest_others

NUM_NEIGHBOURS = 10
MAX_EXAMINED = 20_000  # images
LIKELY_WRONG = 0.5  # from this suspicion on; so most of the weight is against the label


class Suspicions(NamedTuple):
    """What the neighbours of n labelled images say of their labels."""

    rows: NDArray[np.int64]  # [n], which images they are
    suspicion: NDArray[np.float64]  # [n], from 0 to 1: their weight that is against the label
    suggested: NDArray[np.int64]  # [n], the label with most weight

    def likely_wrong(self) -> "Suspicions":
        """Those whose label is probably wrong, the most suspicious first."""
        order = np.argsort(-self.suspicion, kind="stable")
        found = order[self.suspicion[order] > LIKELY_WRONG]
        return Suspicions(self.rows[found], self.suspicion[found], self.suggested[found])


def suspect_labels(latents: Rows, labels: NDArray[np.int64], k: int = NUM_NEIGHBOURS) -> Suspicions:
    """Let the k nearest others of each of `latents` [N, L] vote on its label, of `labels` [N].

    A vote weighs as much as one over the distance, so that a few wrong labels among the neighbours
    are outvoted. Of a large set `MAX_EXAMINED` evenly spaced images are examined, by neighbours
    from all of it. Raises `UserError` for labels of one class and for fewer than k others.
    """
    classes, positions = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise UserError(
            f"{len(labels):,} labels of {len(classes)} class: expected two classes or more, to "
            f"tell wrong labels from right ones"
        )
    count = min(len(labels), MAX_EXAMINED)
    rows = np.arange(count) * len(labels) // count
    neighbours = nearest_others(latents, k, rows)
    weights = 1 / np.maximum(neighbours.distances, np.finfo(np.float32).tiny)
    weights /= weights.sum(axis=1, keepdims=True)
    votes = np.zeros((count, len(classes)))
    voters = np.broadcast_to(np.arange(count)[:, None], neighbours.indices.shape)
    np.add.at(votes, (voters, positions[neighbours.indices]), weights)
    own = votes[np.arange(count), positions[rows]]
    return Suspicions(rows, np.clip(1 - own, 0, 1), classes[votes.argmax(axis=1)])
