"""The graphs of a bundle: what each computes, as a PyTorch module, and a module as ONNX."""

import warnings
from typing import NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vaekit.errors import UserError
from vaekit.images.pixels import as_floats
from vaekit.models.gaussian import Posterior
from vaekit.models.vae import VAE
from vaekit.svm.table import SvmTable, pair_coefficients, pair_signs

# Shapes in comments: B batch, C channels, H height, W width, L latent dimensions,
# D = 2L features, S support vectors, K classes, P = K(K-1)/2 pairs of classes.
OPSET = 20
UNDEFINED_LABEL = -1  # of latents that are not finite
MAX_BYTES = 2**31  # of one protobuf message, which an ONNX file is


class Classification(NamedTuple):
    """What the classifier says of a batch."""

    label: Tensor  # int64 [B]
    scores: Tensor  # [B, K]


class Verdict(NamedTuple):
    """What the SVM says of a batch; see `vaekit.svm.table.Prediction`."""

    label: Tensor  # int64 [B]
    scores: Tensor  # [B, K]
    decisions: Tensor  # [B, P]


class EncoderGraph(nn.Module):
    """Pixels uint8 [B, C, H, W] to the posterior over latents."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.enc = vae.enc

    def forward(self, image: Tensor) -> Posterior:
        posterior: Posterior = self.enc(as_floats(image))
        return posterior


class DecoderGraph(nn.Module):
    """Latents [B, L] to images [B, C, H, W] in [0, 1]."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.dec = vae.dec
        self.likelihood = vae.likelihood

    def forward(self, latent: Tensor) -> Tensor:
        return self.likelihood.mean(self.dec(latent))


class SvmGraph(nn.Module):
    """A posterior [B, L] to a label: `vaekit.svm.table.predict` in float32.

    With x the standardised latents, the exponent -gamma |x - s|^2 of every support vector s is
    one matrix product: [x, |x|^2, 1] times the columns [2 gamma s, -gamma, -gamma |s|^2].
    """

    def __init__(self, table: SvmTable) -> None:
        super().__init__()
        vectors, gamma = table.support_vectors, table.gamma
        squares = np.square(vectors).sum(axis=1)
        exponents = np.vstack([2 * vectors.T, np.full_like(squares, -1), -squares]) * gamma
        self.feature_mean = _constant(table.feature_mean)  # [D]
        self.feature_scale = _constant(table.feature_scale)  # [D]
        self.exponents = _constant(exponents)  # [D + 2, S]
        self.coefficients = _constant(pair_coefficients(table))  # [S, P]
        self.intercepts = _constant(table.intercepts)  # [P]
        self.signs = _constant(pair_signs(len(table.classes)))  # [P, K]
        self.classes = nn.Buffer(torch.from_numpy(table.classes))  # [K]

    def forward(self, mean: Tensor, log_variance: Tensor) -> Verdict:
        latents = torch.cat([mean, log_variance], dim=1)
        features = (latents - self.feature_mean) / self.feature_scale
        squares = (features * features).sum(dim=1, keepdim=True)
        augmented = torch.cat([features, squares, torch.ones_like(squares)], dim=1)
        kernel = torch.exp(augmented @ self.exponents)
        decisions = kernel @ self.coefficients + self.intercepts
        scores = self._scores(decisions)
        label = self.classes.index_select(0, scores.argmax(dim=1))
        undefined = torch.isnan(scores.sum(dim=1))
        return Verdict(torch.where(undefined, UNDEFINED_LABEL, label), scores, decisions)

    def _scores(self, decisions: Tensor) -> Tensor:
        """Votes plus squashed sums of decisions, as `vaekit.svm.table.Prediction` has them."""
        num_classes = self.signs.shape[1]
        wins_less_losses = torch.where(decisions >= 0, 1.0, -1.0) @ self.signs
        votes = (wins_less_losses + (num_classes - 1)) / 2
        confidences = decisions @ self.signs
        return votes + confidences / (3 * (confidences.abs() + 1))


class ClassifierGraph(nn.Module):
    """Pixels uint8 [B, C, H, W] to a label: encoder and SVM in one graph."""

    def __init__(self, encoder: EncoderGraph, svm: SvmGraph) -> None:
        super().__init__()
        self.encoder = encoder
        self.svm = svm

    def forward(self, image: Tensor) -> Classification:
        verdict: Verdict = self.svm(*self.encoder(image))
        return Classification(verdict.label, verdict.scores)


def to_onnx(
    module: nn.Module, inputs: dict[str, Tensor], output_names: tuple[str, ...]
) -> onnx.ModelProto:
    """`module` as one ONNX graph; `inputs` are examples, of which dimension 0 is the batch.

    Raises `UserError` where the weights are more than an ONNX file can hold.
    """
    num_bytes = sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
    if num_bytes >= MAX_BYTES:
        raise UserError(
            f"a graph of {num_bytes / 2**30:.1f} GiB; an ONNX file without external data holds "
            f"less than 2 GiB: train with smaller --model.hidden_dims, or on fewer classes"
        )
    # One input names the dimension; the others follow, since a graph has one batch.
    first, *others = inputs
    with warnings.catch_warnings():
        # torch 2.11 deprecates what its own exporter does.
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=list(output_names),
            dynamic_shapes={
                first: {0: torch.export.Dim("batch")},
                **{name: {0: torch.export.Dim.DYNAMIC} for name in others},
            },
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    _strip_traces(model)
    return model


def _constant(array: NDArray[np.float64]) -> nn.Buffer:
    return nn.Buffer(torch.from_numpy(array.astype(np.float32)))


def _strip_traces(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes of the Python source, absolute paths among it."""
    graph = model.graph
    parts = (graph.node, graph.input, graph.output, graph.initializer, graph.value_info)
    for proto in (model, graph, *(each for part in parts for each in part)):
        proto.ClearField("metadata_props")
        proto.ClearField("doc_string")
