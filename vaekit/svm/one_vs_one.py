"""An RBF SVM of several classes: one binary problem for each pair, merged as libsvm does.

Shapes in comments: D features, N rows, S support vectors, K classes, P = K(K-1)/2 pairs in the
order (0, 1), (0, 2) ... (1, 2) ...
"""

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.svm import SVC

from vaekit.config import SvmBackend
from vaekit.progress import Progress

if TYPE_CHECKING:  # a cluster's workers need no PyTorch
    from torch import Tensor

Pair = tuple[int, int]
Weights = dict[int, float]  # what C is multiplied with, for the first class, 0, and the second, 1

# For all problems at once. Below some 30 MB a problem of 12,000 images takes twice as long.
KERNEL_CACHE_MB = 1000

# With fewer rows in a pair, handing pairs to two threads costs more than the second one gains.
MIN_ROWS_OF_A_PAIR = 800


class BinaryMachine(NamedTuple):
    """What tells two classes apart; a positive decision speaks for the second."""

    support: NDArray[np.intp]  # which rows of the first class, followed by those of the second
    coefficients: NDArray[np.float64]  # of those rows
    intercept: float


class OneVsOne(NamedTuple):
    """The machines of all pairs as one, in the layout of `vaekit.svm.table.SvmTable`."""

    support_vectors: NDArray[np.float64]  # [S, D], class by class
    dual_coefficients: NDArray[np.float64]  # [K-1, S]
    num_support: NDArray[np.int64]  # [K]
    intercepts: NDArray[np.float64]  # [P]


def fit_one_vs_one(
    of_class: Sequence[NDArray[np.float64]],
    C: float,
    gamma: float,
    backend: SvmBackend = "sklearn",
    jobs: int | None = None,
    on_device: "Sequence[Tensor] | None" = None,
    class_weights: Sequence[float] | None = None,
) -> OneVsOne:
    """Fit the SVM that tells apart the rows [N, D] of two or more classes.

    The result is that of one `SVC` fitted on all rows, the C of each class times its weight in
    `class_weights` [K]. `on_device` are the same rows as float32 on a GPU, for cuML, which else
    copies them there. With scikit-learn `jobs` problems are solved at a time (None: one a core),
    in threads or in what a surrounding `joblib.parallel_config` names, unless one thread is soonest
    done with few or small pairs; the number of jobs changes no bit.
    """
    rows_of_a_pair = 2 * np.mean([len(rows) for rows in of_class])
    if backend == "sklearn" and (len(of_class) == 2 or rows_of_a_pair < MIN_ROWS_OF_A_PAIR):
        return _fit_at_once(of_class, class_weights, C, gamma)
    pairs = list(combinations(range(len(of_class)), 2))
    weights: dict[Pair, Weights | None] = dict.fromkeys(pairs)
    if class_weights is not None:
        weights = {(i, j): {0: class_weights[i], 1: class_weights[j]} for i, j in pairs}
    with Progress("fitting", len(pairs), "pairs of classes", visible=len(pairs) > 1) as progress:
        if backend == "cuml":
            rows = of_class if on_device is None else on_device
            machines = _fit_on_device(rows, weights, C, gamma, progress)
        else:
            machines = _fit_on_cores(of_class, weights, C, gamma, jobs, progress)
    return _merge(of_class, machines)


def read_machine(model: Any) -> BinaryMachine:
    """A fitted binary SVC of scikit-learn or cuML, whose attributes have the same signs."""
    return BinaryMachine(
        support=np.asarray(model.support_),
        coefficients=np.ravel(model.dual_coef_).astype(np.float64),
        intercept=float(np.ravel(model.intercept_)[0]),
    )


def _fit_at_once(
    of_class: Sequence[NDArray[np.float64]],
    class_weights: Sequence[float] | None,
    C: float,
    gamma: float,
) -> OneVsOne:
    labels = np.repeat(np.arange(len(of_class)), [len(rows) for rows in of_class])
    weights = None if class_weights is None else dict(enumerate(class_weights))
    svc = SVC(C=C, gamma=gamma, cache_size=KERNEL_CACHE_MB, class_weight=weights)
    svc.fit(np.concatenate(of_class), labels)
    return OneVsOne(
        support_vectors=svc.support_vectors_,
        dual_coefficients=svc.dual_coef_,
        num_support=svc.n_support_.astype(np.int64),
        intercepts=svc.intercept_,
    )


def _fit_on_cores(
    of_class: Sequence[NDArray[np.float64]],
    weights: Mapping[Pair, Weights | None],
    C: float,
    gamma: float,
    jobs: int | None,
    progress: Progress,
) -> dict[Pair, BinaryMachine]:
    num_jobs = -1 if jobs is None else jobs
    # No core is left with a long problem when the others are done.
    longest_first = sorted(weights, key=lambda pair: -sum(len(of_class[each]) for each in pair))

    def problems() -> Iterator[Any]:
        # joblib begins here once its workers are up (a cluster's can't be counted before), and
        # goes on when one has nothing to do: with that the bar advances.
        cache_mb = KERNEL_CACHE_MB / min(joblib.effective_n_jobs(num_jobs), len(weights))
        for pair in longest_first:
            # As one argument: joblib has a cluster hold arrays, each by one worker, and where that
            # is lost waits for ever for the problems that it can't hand out any more.
            rows = tuple(of_class[each] for each in pair)
            yield joblib.delayed(_fit_pair)(rows, weights[pair], C, gamma, cache_mb)
            progress.advance(1)

    # Threads, because libsvm releases the GIL. Not as a generator: Ray's backend has none.
    machines = joblib.Parallel(n_jobs=num_jobs, prefer="threads")(problems())
    return dict(zip(longest_first, machines, strict=True))


def _fit_pair(
    rows: Sequence[NDArray[np.float64]],
    weights: Weights | None,
    C: float,
    gamma: float,
    cache_mb: float,
) -> BinaryMachine:
    # The rows of a pair lie side by side: they fit a core's cache, as rows among those of all
    # classes don't, which halves the time.
    features, labels = np.concatenate(rows), _labels(*rows)
    svc = SVC(C=C, gamma=gamma, cache_size=cache_mb, class_weight=weights)
    return read_machine(svc.fit(features, labels))


def _fit_on_device(
    of_class: "Sequence[NDArray[np.float64]] | Sequence[Tensor]",
    weights: Mapping[Pair, Weights | None],
    C: float,
    gamma: float,
    progress: Progress,
) -> dict[Pair, BinaryMachine]:
    """In float32, which all GPUs are fast in; rows of the host are copied to the device once."""
    cupy, cuml_svm = import_module("cupy"), import_module("cuml.svm")
    on_device = [cupy.asarray(rows, dtype=np.float32) for rows in of_class]
    machines = {}
    for pair, of_pair in weights.items():
        first, second = (on_device[each] for each in pair)
        svc = cuml_svm.SVC(
            C=C, kernel="rbf", gamma=gamma, class_weight=of_pair, output_type="numpy"
        )
        svc.fit(cupy.concatenate([first, second]), _labels(first, second))
        machines[pair] = read_machine(svc)
        progress.advance(1)
    return machines


def _labels(first: Any, second: Any) -> NDArray[np.int64]:
    return np.repeat([0, 1], [len(first), len(second)])


def _merge(
    of_class: Sequence[NDArray[np.float64]], machines: Mapping[Pair, BinaryMachine]
) -> OneVsOne:
    num_classes = len(of_class)
    # With more than two classes libsvm lets a positive decision speak for the first of a pair.
    sign = 1.0 if num_classes == 2 else -1.0
    intercepts = np.array([sign * machines[pair].intercept for pair in sorted(machines)])
    coefficients = [np.zeros((num_classes - 1, len(rows))) for rows in of_class]
    for (i, j), machine in machines.items():
        of_pair = np.zeros(len(of_class[i]) + len(of_class[j]))
        of_pair[machine.support] = sign * machine.coefficients
        coefficients[i][j - 1], coefficients[j][i] = np.split(of_pair, [len(of_class[i])])
    kept = [np.flatnonzero(each.any(axis=0)) for each in coefficients]
    return OneVsOne(
        support_vectors=np.concatenate(
            [rows[support] for rows, support in zip(of_class, kept, strict=True)]
        ),
        dual_coefficients=np.concatenate(
            [each.take(support, axis=1) for each, support in zip(coefficients, kept, strict=True)],
            axis=1,
        ),
        num_support=np.array([len(support) for support in kept]),
        intercepts=intercepts,
    )
