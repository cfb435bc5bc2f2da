"""From latents and labels to the table of an SVM that tells them apart."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight

from vaekit.config import SvmBackend, SvmConfig
from vaekit.errors import UserError
from vaekit.svm.one_vs_one import fit_one_vs_one
from vaekit.svm.table import SvmTable, require_finite, standardise

if TYPE_CHECKING:  # only who has latents on a device has PyTorch
    from torch import Tensor


def fit_table(
    latents: NDArray[np.floating],
    labels: NDArray[np.int64],
    config: SvmConfig,
    backend: SvmBackend = "sklearn",
    jobs: int | None = None,
    on_device: "Tensor | None" = None,
) -> SvmTable:
    """Standardise `latents` [N, D] and fit the SVM that tells `labels` [N] apart.

    `backend` and `jobs` are those of `fit_one_vs_one`; `on_device` are the same latents where they
    lie on a GPU already, and spare cuML a copy. Raises `UserError` for latents that are
    not finite or labels of one class only.
    """
    require_finite(latents, "training latents")
    classes = np.unique(labels)
    if len(classes) < 2:
        raise UserError(
            f"training labels: {len(classes)} class in {len(labels):,} images; an SVM needs at "
            f"least two classes; give images of another class, or a larger --data.limit"
        )
    scaler = StandardScaler().fit(latents.astype(np.float64))
    # Log-variances are the same for all images where one holds for them: no distance comes of it.
    num_varying = int(np.count_nonzero(np.ptp(latents, axis=0)))
    gamma = config.gamma / max(1, num_varying)
    features = standardise(latents, scaler.mean_, scaler.scale_)
    of_class = [features[labels == each] for each in classes]
    rows = None if on_device is None else _standardised_on_device(on_device, labels, scaler)
    weights = None
    if config.class_weight is not None:
        weights = compute_class_weight(config.class_weight, classes=classes, y=labels).tolist()
    machine = fit_one_vs_one(of_class, config.C, gamma, backend, jobs, rows, weights)
    return SvmTable(
        feature_mean=scaler.mean_,
        feature_scale=scaler.scale_,
        **machine._asdict(),
        gamma=gamma,
        classes=classes,
    )


def _standardised_on_device(
    latents: "Tensor", labels: NDArray[np.int64], scaler: StandardScaler
) -> "list[Tensor]":
    """The latents [N, D] of each class, in float32, the same as those standardised on the host."""
    import torch

    mean, scale, of_label = (
        torch.from_numpy(each).to(latents.device) for each in (scaler.mean_, scaler.scale_, labels)
    )
    features = ((latents - mean) / scale).float()
    return [features[of_label == each] for each in of_label.unique()]
