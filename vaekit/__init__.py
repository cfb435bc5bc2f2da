"""vaekit: train, measure and deploy variational autoencoders on small images."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaekit.config import DataConfig as DataConfig
    from vaekit.config import ModelConfig as ModelConfig
    from vaekit.config import SvmConfig as SvmConfig
    from vaekit.config import TrainConfig as TrainConfig
    from vaekit.errors import UserError as UserError
    from vaekit.estimators.svc import LatentSVC as LatentSVC
    from vaekit.estimators.vae import VAETransformer as VAETransformer
    from vaekit.export.bundle import export_run as export_run
    from vaekit.images.pictures import image_grid as image_grid
    from vaekit.models.vae import VAE as VAE
    from vaekit.report.page import write_report as write_report
    from vaekit.runs.inference import Encoding as Encoding
    from vaekit.runs.inference import Prediction as Prediction
    from vaekit.runs.run import Run as Run
    from vaekit.stages.latents import extract_latents as extract_latents
    from vaekit.stages.svm import fit_svm as fit_svm
    from vaekit.train import train as train

__version__ = "0.1.0"

# Where each name lives; it is imported when it is asked for, and PyTorch with what needs it.
_PUBLIC = {
    "DataConfig": "vaekit.config",
    "Encoding": "vaekit.runs.inference",
    "LatentSVC": "vaekit.estimators.svc",
    "ModelConfig": "vaekit.config",
    "Prediction": "vaekit.runs.inference",
    "Run": "vaekit.runs.run",
    "SvmConfig": "vaekit.config",
    "TrainConfig": "vaekit.config",
    "UserError": "vaekit.errors",
    "VAE": "vaekit.models.vae",
    "VAETransformer": "vaekit.estimators.vae",
    "export_run": "vaekit.export.bundle",
    "extract_latents": "vaekit.stages.latents",
    "fit_svm": "vaekit.stages.svm",
    "image_grid": "vaekit.images.pictures",
    "train": "vaekit.train",
    "write_report": "vaekit.report.page",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC]
