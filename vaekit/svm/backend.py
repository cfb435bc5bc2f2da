"""Which library fits an SVM: scikit-learn on the CPU, or cuML where a GPU is really usable."""

from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import torch

from vaekit.config import SvmBackend, SvmBackendFlag
from vaekit.errors import UserError
from vaekit.svm.one_vs_one import fit_one_vs_one

TITLES: dict[SvmBackend, str] = {"sklearn": "scikit-learn", "cuml": "cuML"}

# What importing cuML or fitting with it raises where it can't work: a library that is missing or
# can't be loaded; CUDA's errors, which CuPy and cuML derive from RuntimeError; a full device.
CUML_ERRORS = (ImportError, OSError, RuntimeError, MemoryError)


class Choice(NamedTuple):
    backend: SvmBackend
    reason: str


def choose_backend(flag: SvmBackendFlag, cluster: str | None = None) -> Choice:
    """What `--backend` comes to here, or on a cluster, whose workers have scikit-learn.

    Raises `UserError` for a cuML that is not usable.
    """
    if cluster is not None:
        if flag == "cuml":
            raise UserError(
                f"--backend cuml: fits on the GPU of this machine, not on --cluster {cluster}; "
                f"leave out one of the two"
            )
        return Choice("sklearn", f"many rows on {cluster}")
    if flag == "sklearn":
        return Choice("sklearn", "as told by --backend")
    obstacle = _obstacle_to_cuml()
    if obstacle is None:
        return Choice("cuml", f"on {torch.cuda.get_device_name()}")
    if flag == "cuml":
        raise UserError(f"--backend cuml: {obstacle}; --backend sklearn fits on the CPU")
    return Choice("sklearn", f"not cuML: {obstacle}")


def _obstacle_to_cuml() -> str | None:
    """What keeps cuML from fitting, if anything does; the quick questions come first."""
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    for package in ("cuml", "cupy"):
        if find_spec(package) is None:
            return f"the Python package {package} is not installed"
    try:  # to fit: the import alone takes seconds and succeeds without a usable device, too
        fit_one_vs_one([np.zeros((2, 2)), np.ones((2, 2))], C=1.0, gamma=1.0, backend="cuml")
    except CUML_ERRORS as error:
        return f"cuML does not work here, {type(error).__name__}: {error}".splitlines()[0]
    return None
