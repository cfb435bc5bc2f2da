"""Settings of PyTorch with which a training step may be another: for a GPU to tell apart.

None is a setting of vaekit. One that a GPU finds faster becomes the step.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch

_cudnn, _products = torch.backends.cudnn, torch.backends.cuda.matmul


@contextmanager
def _set(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


# A training's steps are others within such a context; it is entered before the first one, too.
VARIANTS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "as it is": nullcontext,
    "cuDNN not deterministic": partial(_set, _cudnn, "deterministic", False),
    "cuDNN chooses by trial": partial(_set, _cudnn, "benchmark", True),
    "products in TF32": partial(_set, _products, "allow_tf32", True),
    "convolutions without TF32": partial(_set, _cudnn.conv, "fp32_precision", "ieee"),
}
