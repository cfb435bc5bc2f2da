"""vaekit's RBF SVM as a classifier of scikit-learn."""

from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from vaekit.config import ClassWeight, SvmConfig
from vaekit.errors import UserError
from vaekit.svm.draw import draw_rows
from vaekit.svm.fit import fit_table
from vaekit.svm.table import decisions, predict


class LatentSVC(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """The SVM of `vaekit svm`: standardised features, all of one weight, an RBF kernel, one-vs-one.

    Labels are those of scikit-learn's `SVC(break_ties=True)` after a `StandardScaler`. The pairs of
    classes are fitted on several threads.

    Parameters
    ----------
    C : float, default=10.0
        Penalty of a margin violation.
    gamma : float, default=1.0
        Inverse width of the kernel, in units of 1 / number of features that vary.
    class_weight : "balanced" or None, default=None
        balanced gives rare classes the weight of common ones.
    max_train : int or None, default=None
        Rows that it is fitted on at most, of more a draw in which every class has its share; None:
        all, as of any classifier, where `vaekit svm` takes 100,000.
    n_jobs : int or None, default=None
        Pairs of classes that are fitted at a time; None: as many as there are cores.

    Attributes
    ----------
    classes_ : array [K]
    table_ : vaekit.svm.table.SvmTable
        All that it is, as arrays.
    """

    def __init__(
        self,
        C: float = 10.0,
        gamma: float = 1.0,
        class_weight: ClassWeight | None = None,
        max_train: int | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.C = C
        self.gamma = gamma
        self.class_weight = class_weight
        self.max_train = max_train
        self.n_jobs = n_jobs

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fit on features [N, D], as latents, and labels [N] of two classes or more."""
        features, labels = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(labels)
        if self.class_weight not in (None, "balanced"):
            raise UserError(f"class_weight {self.class_weight}: expected balanced or None")
        self.classes_, indices = np.unique(labels, return_inverse=True)
        config = SvmConfig(self.C, self.class_weight, self.max_train, gamma=self.gamma)
        drawn = draw_rows(indices, self.max_train)
        self.table_ = fit_table(features[drawn], indices[drawn], config, jobs=self.n_jobs)
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.generic]:
        """The class of each row of features [N, D]."""
        features = self._features(X)
        labels: NDArray[np.generic] = self.classes_[predict(self.table_, features).labels]
        return labels

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Scores [N, K], votes plus squashed decisions; of two classes the decisions [N]."""
        features = self._features(X)
        if len(self.classes_) == 2:
            return decisions(self.table_, features)[:, 0]
        return predict(self.table_, features).scores

    def _features(self, X: ArrayLike) -> NDArray[np.float64]:
        check_is_fitted(self)
        features: NDArray[np.float64] = validate_data(self, X, dtype=np.float64, reset=False)
        return features
