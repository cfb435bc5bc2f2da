"""The file of an SVM comes back as it was written, or is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from svm_helpers import digits, fitted_svm

from vaekit.runs.svm import read_table, write_table
from vaekit.storage.damage import Damaged
from vaekit.storage.tensors import read_tensors, write_tensors
from vaekit.svm.table import predict


def test_a_table_read_back_is_the_one_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "svm.safetensors"
    fitted = fitted_svm()._replace(class_weight="balanced")
    write_table(path, fitted)
    read = read_table(path)

    assert read[1:] == fitted[1:]
    for name, array in vars(fitted.table).items():
        np.testing.assert_array_equal(getattr(read.table, name), array, strict=True)
    test = digits(20).test
    before, after = predict(fitted.table, test), predict(read.table, test)
    np.testing.assert_array_equal(after.scores, before.scores)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("intercepts", None, "holds the tensors"),
        ("bias", np.zeros(1), "holds the tensors"),
        ("intercepts", np.zeros(44), r"intercepts is \(44,\), expected \(45,\)"),
        ("intercepts", np.zeros(45, np.float32), "intercepts is float32"),
        ("support_vectors", np.zeros((10, 20)), "dual_coefficients is"),
        ("support_vectors", np.zeros(20), "support_vectors is"),
        ("num_support", np.ones(10, np.int64), "num_support does not part"),
        ("feature_mean", np.full(20, np.nan), "feature_mean has values that are not finite"),
        ("feature_scale", np.zeros(20), "feature_scale or gamma is not above 0"),
        ("classes", np.arange(1, 11), "expected indices into 10 names"),
        ("classes", np.array([0, 1, 2, 3, 4, 5, 6, 7, 9, 8]), "expected indices into 10 names"),
    ],
)
@pytest.mark.injects(16)
def test_a_damaged_table_is_refused_with_what_is_wrong(
    tmp_path: Path, name: str, value: NDArray[np.float64] | None, message: str
) -> None:
    path = tmp_path / "svm.safetensors"
    write_table(path, fitted_svm())
    kind = {"format_name": "vaekit-svm", "version": 1}
    arrays, facts = read_tensors(path, **kind)
    if value is None:
        del arrays[name]
    else:
        arrays[name] = torch.from_numpy(value)
    write_tensors(path, arrays, facts, **kind)

    with pytest.raises(Damaged, match=message):
        read_table(path)
