"""What vaekit uses of cuML and CuPy, played by scikit-learn and numpy."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn import svm


class DeviceSVC:
    """A binary cuml.svm.SVC: float32, a positive decision for the label that is greater."""

    num_fits = 0

    def __init__(
        self,
        *,
        C: float,
        kernel: str,
        gamma: float,
        class_weight: dict[int, float] | None,
        output_type: str,
    ) -> None:
        assert class_weight is None or set(class_weight) == {0, 1}
        assert isinstance(gamma, float), "cuML's own choices of gamma differ from pair to pair"
        assert output_type == "numpy", "else the attributes are device arrays"
        self._svc = svm.SVC(C=C, kernel=kernel, gamma=gamma, class_weight=class_weight)

    def fit(self, X: NDArray[np.float32], y: NDArray[np.int64]) -> "DeviceSVC":
        assert X.dtype == np.float32
        assert np.unique(y).tolist() == [0, 1]
        self._svc.fit(X, y)
        self.support_ = self._svc.support_.astype(np.int32)
        self.dual_coef_ = self._svc.dual_coef_.astype(np.float32)  # [1, S]
        self.intercept_ = self._svc.intercept_.astype(np.float32)  # [1]
        type(self).num_fits += 1
        return self


class CUDARuntimeError(RuntimeError):
    """As cupy.cuda.runtime has it."""


class UnusableSVC(DeviceSVC):
    """What the packages do where the driver is too old or there is no device."""

    def fit(self, X: NDArray[np.float32], y: NDArray[np.int64]) -> "DeviceSVC":
        raise CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")


def play_cuml(monkeypatch: pytest.MonkeyPatch, svc: type = DeviceSVC) -> list[object]:
    """Let there be a GPU, CuPy, and a cuML with this SVC; returns what CuPy is given."""
    given: list[object] = []

    def asarray(rows: Any, dtype: type[np.float32]) -> NDArray[np.float32]:
        given.append(rows)
        return np.asarray(rows, dtype)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a fast GPU")
    modules: dict[str, dict[str, Any]] = {
        "cupy": {"asarray": asarray, "concatenate": np.concatenate},
        "cuml": {},
        "cuml.svm": {"SVC": svc},
    }
    for name, contents in modules.items():
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, loader=None)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    return given
