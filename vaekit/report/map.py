"""The test latents on a 2-D map (t-SNE), made once and kept with the figures of the run."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from vaekit.runs.folder import RunFolder
from vaekit.runs.latents import Latents
from vaekit.runs.products import MAP, MAP_FORMAT, MAP_VERSION
from vaekit.storage.damage import as_written, damage_told
from vaekit.storage.tensors import write_tensors

MAX_POINTS = 5000
MIN_POINTS = 4
PERPLEXITY = 30.0
_SEED = 0  # of the choice of images and of the map


class LatentMap(NamedTuple):
    """A point for each of `indices`, test images in rising order."""

    points: NDArray[np.float32]  # [n, 2]
    indices: NDArray[np.int64]  # [n]


def latent_map(run: RunFolder, latents: Latents) -> LatentMap | None:
    """The map of a run's test latents; None for too few of them, and for equal ones.

    It is read from figures/tsne.safetensors if that was made of these latents, else made.
    """
    path = MAP.path(run)
    if path.is_file():
        with damage_told(path, MAP.remedy):
            tensors, metadata = MAP.read(path)
            if metadata.get("latents_sha256") == latents.sha256:
                return _map_of(tensors, len(latents.test))
    if len(latents.test) < MIN_POINTS:
        return None
    indices = some_indices(len(latents.test), MAX_POINTS)
    means = latents.test_means[indices]
    if (means == means[0]).all():
        return None
    print(f"t-SNE of {len(indices):,} test latents (5,000 take about a minute)", flush=True)
    points = tsne(means, perplexity_for(len(indices)))
    tensors = {"points": torch.from_numpy(points), "indices": torch.from_numpy(indices)}
    metadata = {"latents_sha256": latents.sha256}
    write_tensors(path, tensors, metadata, format_name=MAP_FORMAT, version=MAP_VERSION)
    return LatentMap(points, indices)


def _map_of(tensors: dict[str, Tensor], num_latents: int) -> LatentMap:
    indices = torch.from_numpy(some_indices(num_latents, MAX_POINTS))
    with as_written():
        points = tensors["points"]
        if points.dtype != torch.float32 or points.shape != (len(indices), 2):
            raise ValueError(f"points are {points.dtype} {tuple(points.shape)}")
        if not (points.isfinite().all() and torch.equal(tensors["indices"], indices)):
            raise ValueError("points or indices are senseless")
    return LatentMap(points.numpy(), indices.numpy())


def tsne(features: NDArray[np.float32], perplexity: float) -> NDArray[np.float32]:
    """Standardised `features` [n, D] in two dimensions [n, 2] (van der Maaten and Hinton, 2008).

    The same features give the same map.
    """
    standard = standardised(features)
    start = "pca" if features.shape[1] > 1 else "random"  # one feature has no second component
    model = TSNE(perplexity=perplexity, init=start, random_state=_SEED)
    return np.asarray(model.fit_transform(standard), np.float32)


def standardised(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a map is of: `features` [n, D], each with mean 0 and deviation 1."""
    return np.asarray(StandardScaler().fit_transform(features), np.float32)


def perplexity_for(num_points: int) -> float:
    return min(PERPLEXITY, (num_points - 1) / 3)


def some_indices(count: int, most: int) -> NDArray[np.int64]:
    """Indices of at most `most` of `count` images: always the same ones, in rising order."""
    chosen = np.random.default_rng(_SEED).choice(count, min(count, most), replace=False)
    return np.sort(chosen)
