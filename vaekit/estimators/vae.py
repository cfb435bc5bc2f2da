"""A VAE as a transformer of scikit-learn: rows of pixels to latents and back."""

import math
from collections import deque
from numbers import Integral
from typing import Any, Self, cast

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from vaekit.config import (
    ArchitectureName,
    Auto,
    AutoInt,
    LikelihoodName,
    ModelConfig,
    TrainConfig,
    settled,
    to_dict,
)
from vaekit.errors import UserError
from vaekit.images.image_set import Images, ImageSet
from vaekit.images.values import to_8_bit
from vaekit.models.gaussian import kl_divergence
from vaekit.models.vae import VAE
from vaekit.runs.latents import latent_columns
from vaekit.settings import from_dict
from vaekit.training.loop import train_epoch
from vaekit.training.one_process import OneProcess
from vaekit.training.state import Training

BATCH_SIZE = 500
NUM_SAMPLES = 8  # of latents, for a bound
MAX_SEED = 2**31 - 1


class VAETransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A variational autoencoder (Kingma and Welling, 2014) that is trained in memory.

    Rows are images of the same shape, their pixels one after the other, as
    `images.reshape(len(images), -1)` has them. It trains in float32, on a GPU where there is one,
    and changes nothing of its process: no random numbers, threads, signals or files.

    Parameters
    ----------
    image_shape : (height, width) or (height, width, channels), default=None
        Of the images in the rows. By default they are square and grey, rows whose length is no
        square are images of one line, and none is augmented in training, as images otherwise are
        where they are few in colour or a run is long.
    latent_dim : int or "auto", default="auto"
        Latent dimensions; auto grows with the images.
    log_variances : bool, default=False
        Whether `transform` gives mean and log-variance, [N, 2 * latent_dim], as vaekit's own SVM
        takes them, or the mean alone.
    architecture, likelihood, width : default="auto"
        As `vaekit.ModelConfig` has them.
    epochs, batch_size : int or "auto", default="auto"
        Passes over the images, and images a step, at most all; auto gives a small set its steps.
    learning_rate : float or "auto", default="auto"
        The peak, by default that of the model; it warms up and falls to zero.
    beta : float, default=1.0
        Weight of the KL in what a step minimises; scores have it at 1.
    value_range : (low, high), default=None
        What becomes black and white; beyond it values are clipped. By default 0 to 255 for uint8,
        and otherwise the values in use. Between the two there are 256 levels.
    random_state : int, RandomState or None, default=None
        Of the initial weights, the order of the images and the noise.

    Attributes
    ----------
    n_features_in_ : int
    image_shape_ : (channels, height, width)
    value_range_ : (low, high)
    model_ : dict
        The settings of the model, with what was left auto settled.
    weights_ : dict of arrays
        Averaged over the last steps. Arrays and plain values are all that is kept, so that skops
        saves it without a pickle.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...] | None = None,
        latent_dim: AutoInt = "auto",
        log_variances: bool = False,
        architecture: ArchitectureName = "auto",
        likelihood: LikelihoodName = "auto",
        width: int | Auto = "auto",
        epochs: AutoInt = "auto",
        batch_size: AutoInt = "auto",
        learning_rate: float | Auto = "auto",
        beta: float = 1.0,
        value_range: tuple[float, float] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.image_shape = image_shape
        self.latent_dim = latent_dim
        self.log_variances = log_variances
        self.architecture = architecture
        self.likelihood = likelihood
        self.width = width
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.beta = beta
        self.value_range = value_range
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Train on rows of pixels, [N, height * width * channels]; `y` is not looked at."""
        rows = validate_data(self, X)
        self.image_shape_ = _channels_first(self.image_shape, rows.shape[1])
        self.value_range_ = _value_range(self.value_range, rows)
        pixels = self._pixels(rows)
        batch_size = _plain(self.batch_size)
        config = TrainConfig(
            model=ModelConfig(
                architecture=self.architecture,
                likelihood=self.likelihood,
                latent_dim=_plain(self.latent_dim),
                width=None if self.architecture == "reference" else _plain(self.width),
            ),
            epochs=_plain(self.epochs),
            batch_size=batch_size if batch_size == "auto" else min(batch_size, len(pixels)),
            learning_rate=_plain(self.learning_rate),
            beta=self.beta,
            # Rows without a shape may be a table, whose neighbouring columns are none in space.
            augment=False if self.image_shape is None else "auto",
            seed=int(check_random_state(self.random_state).randint(MAX_SEED)),
        )
        images = Images(ImageSet(pixels, None), ImageSet(pixels[:1], None), ())
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        training = Training(config, images, cast("Accelerator", OneProcess(device)))
        for epoch in range(1, settled(training.config.epochs) + 1):
            deque(train_epoch(training, epoch), maxlen=0)
        self.model_ = to_dict(training.config.model)
        weights = training.kept.state_dict().items()
        self.weights_ = {name: tensor.cpu().numpy() for name, tensor in weights}
        return self

    @torch.no_grad()
    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """The means of the latents, float32 [N, latent_dim], and their log-variances if wanted."""
        vae, rows = self._model(), validate_data(self, X, reset=False)
        latents = []
        for batch in self._batches(rows):
            mean, log_variance = vae.encode(batch)
            latents.append(torch.cat([mean, log_variance], dim=1) if self.log_variances else mean)
        return torch.cat(latents).float().numpy()

    @torch.no_grad()
    def inverse_transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Rows of pixels [N, n_features_in_], in the range of the training, from latents.

        Latents are as `transform` gives them; of log-variances nothing is taken.
        """
        vae = self._model()
        latents = np.asarray(X, np.float64)
        width = vae.latent_dim * (2 if self.log_variances else 1)
        if latents.ndim != 2 or latents.shape[1] != width:
            raise UserError(f"latents: the shape {[*latents.shape]}, expected [N, {width}]")
        low, high = self.value_range_
        batches = torch.from_numpy(latents[:, : vae.latent_dim]).split(BATCH_SIZE)
        images = torch.cat([vae.decode(batch) for batch in batches]).double()
        values = low + (high - low) * images.permute(0, 2, 3, 1).flatten(start_dim=1)
        return values.float().numpy()

    @torch.no_grad()
    def score_samples(self, X: ArrayLike) -> NDArray[np.float64]:
        """The evidence lower bound of each row, nats [N]: higher is likelier.

        It is the mean over a few samples, which are the same for every row and at every call.
        """
        vae, rows = self._model(), validate_data(self, X, reset=False)
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn((NUM_SAMPLES, 1, vae.latent_dim), generator=generator).double()
        bounds = []
        for batch in self._batches(rows):
            posterior = vae.encode(batch)
            nats = torch.zeros(len(batch), dtype=torch.float64)
            for sample in noise:
                outputs = vae.dec(posterior.sample(sample)).double()
                nats += vae.likelihood.nats(batch, outputs, vae.log_scale)
            bounds.append(-(nats / NUM_SAMPLES + kl_divergence(posterior)))
        return torch.cat(bounds).numpy()

    def score(self, X: ArrayLike, y: object = None) -> float:
        """The mean of `score_samples`, for searches: higher is better."""
        return float(self.score_samples(X).mean())

    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:
        """z1, z2 ..., and z1_log_variance ... where log-variances are wanted."""
        check_is_fitted(self)
        names = latent_columns(self.model_["latent_dim"], log_variances=self.log_variances)
        return np.array(names, object)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # latents are float32, whatever the images are
        return tags

    def _model(self) -> VAE:
        """In float64: then a row's result does not depend on those beside it."""
        check_is_fitted(self)
        with torch.device("meta"):
            vae = VAE(from_dict(ModelConfig, self.model_), self.image_shape_)
        state = {name: torch.tensor(array) for name, array in self.weights_.items()}
        vae.load_state_dict(state, assign=True)
        return vae.double().eval()

    def _pixels(self, rows: NDArray[Any]) -> NDArray[np.uint8]:
        """Rows [N, D] as images [N, C, H, W]."""
        channels, height, width = self.image_shape_
        pixels = to_8_bit(rows, *self.value_range_).reshape(-1, height, width, channels)
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))

    def _batches(self, rows: NDArray[Any]) -> tuple[Tensor, ...]:
        """Images [B, C, H, W] in [0, 1], float64."""
        images = torch.from_numpy(self._pixels(rows)).double() / 255
        return tuple(images.split(BATCH_SIZE))


def _channels_first(shape: tuple[int, ...] | None, num_features: int) -> tuple[int, int, int]:
    """(channels, height, width) of rows of so many values. Raises `UserError` for other shapes."""
    if shape is None:
        side = math.isqrt(num_features)
        return (1, side, side) if side**2 == num_features else (1, 1, num_features)
    if len(shape) not in (2, 3) or math.prod(shape) != num_features:
        raise UserError(
            f"image_shape {shape}: expected (height, width) or (height, width, channels) of "
            f"{num_features} values, as many as a row has"
        )
    height, width, channels = (*shape, 1)[:3]
    return channels, height, width


def _value_range(given: tuple[float, float] | None, rows: NDArray[Any]) -> tuple[float, float]:
    """What is black and what is white, apart from one another."""
    if given is None and rows.dtype == np.uint8:
        return 0.0, 255.0
    low, high = (float(rows.min()), float(rows.max())) if given is None else map(float, given)
    if given is not None and not low < high:
        raise UserError(f"value_range {given}: expected (low, high) with low below high")
    return low, high if high > low else low + 1


def _plain(value: Any) -> Any:
    """A whole number of NumPy's, as a search may give it, as one of Python's."""
    return int(value) if isinstance(value, Integral) else value
