"""vaekit: train, measure and deploy variational autoencoders on small images."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaekit.runs.run import Run as Run

__version__ = "0.1.0"
__all__ = ["Run"]

_PUBLIC = {"Run": "vaekit.runs.run"}  # where each name lives, imported when it is asked for


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC]
