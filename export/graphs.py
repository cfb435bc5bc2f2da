"""The graphs of a bundle: what each computes, as a PyTorch module, and a module as ONNX."""

import warnings
from typing import NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan

from vaekit.errors import UserError
from vaekit.images.pixels import as_floats
from vaekit.models.gaussian import Posterior
from vaekit.models.vae import VAE
from vaekit.svm.table import SvmTable, class_weights, margin_intercepts, pair_sign, ties_for

# Shapes in comments: B batch, C channels, H height, W width, L latent dimensions,
# D = 2L features, S support vectors, K classes, P = K(K-1)/2 pairs of classes.
# The oldest of which the graphs use nothing that has another meaning; onnxruntime runs it from 1.11
# on. PyTorch writes none below 18, so the number is set afterwards, and onnx's checker holds it.
OPSET, IR_VERSION = 15, 8
EXPORTER_OPSET = 18
UNDEFINED_LABEL = -1  # of latents that are not finite
MAX_PAIR_WEIGHTS = 2**24  # 64 MiB, of support vectors in the decisions of all pairs
MAX_BYTES = 2**31  # of one protobuf message, which an ONNX file is


class Classification(NamedTuple):
    """What the classifier says of a batch."""

    label: Tensor  # int64 [B]
    scores: Tensor  # [B, K]


class Verdict(NamedTuple):
    """What the SVM says of a batch; see `vaekit.svm.table.Prediction`."""

    label: Tensor  # int64 [B]
    scores: Tensor  # [B, K]
    decisions: Tensor  # [B, P], as SVC has them


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
        self.classes = nn.Buffer(torch.from_numpy(table.classes))  # [K]

    def kernel(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """exp(-gamma |x - s|^2) - 1/2 of each support vector: [B, S].

        The half changes no decision, in which the weights add up to 0, and halves the largest
        value that rounding is of.
        """
        latents = torch.cat([mean, log_variance], dim=1)
        features = (latents - self.feature_mean) / self.feature_scale
        squares = (features * features).sum(dim=1, keepdim=True)
        augmented = torch.cat([features, squares, torch.ones_like(squares)], dim=1)
        return torch.exp(augmented @ self.exponents) - 0.5

    def classification(self, votes: Tensor, confidences: Tensor) -> Classification:
        """Of votes and sums of a class's decisions, both [B, K].

        The label comes of the votes first: among hundreds of them the squashed confidence is
        smaller than float32's rounding.
        """
        scores = votes + confidences / (3 * (confidences.abs() + 1))
        # By index: amax is written otherwise since opset 18, and topk of an empty batch ends the
        # process in onnxruntime 1.22 to 1.30.
        most = votes.gather(1, votes.argmax(dim=1, keepdim=True))
        is_first = votes == most
        winner = torch.where(is_first, confidences, -torch.inf).argmax(dim=1)
        label = self.classes.index_select(0, winner)
        undefined = torch.isnan(scores.sum(dim=1))
        return Classification(torch.where(undefined, UNDEFINED_LABEL, label), scores)


class PairwiseSvmGraph(SvmGraph):
    """The decisions of all pairs in one matrix product; for tables of few classes."""

    def __init__(self, table: SvmTable) -> None:
        super().__init__(table)
        num_classes = len(table.classes)
        coefficients = _constant(pair_coefficients(table))
        halves = 0.5 * coefficients.double().sum(dim=0).numpy()  # 0, but for rounding
        self.coefficients = coefficients  # [S, P]
        self.intercepts = _constant(table.intercepts + halves)  # [P]
        self.signs = _constant(pair_signs(num_classes))  # [P, K]

    def forward(self, mean: Tensor, log_variance: Tensor) -> Verdict:
        decisions = self.kernel(mean, log_variance) @ self.coefficients + self.intercepts
        wins_less_losses = torch.where(decisions >= 0, 1.0, -1.0) @ self.signs
        votes = (wins_less_losses + (self.signs.shape[1] - 1)) / 2
        return Verdict(*self.classification(votes, decisions @ self.signs), decisions)


class ScannedSvmGraph(SvmGraph):
    """One image after the other, for tables of many classes: decisions are K^2, and stay inside.

    Classes are grouped by their number of support vectors, each padded to the next power of two,
    so that one batched product does for a group.
    """

    def __init__(self, table: SvmTable) -> None:
        super().__init__(table)
        sizes = 2 ** np.ceil(np.log2(table.num_support)).astype(int)
        order = np.argsort(sizes, kind="stable")  # of the classes, by group
        starts = np.cumsum(table.num_support) - table.num_support
        weights = class_weights(table)
        self.group_shapes = [(int((sizes == size).sum()), int(size)) for size in np.unique(sizes)]
        rows = []
        for group, size in enumerate(np.unique(sizes)):
            classes = order[sizes[order] == size]
            padded = np.zeros((len(classes), size, len(order)))
            for each, k in zip(padded, classes, strict=True):
                num = table.num_support[k]
                each[:num] = weights[k][:, order]
                rows += [*range(starts[k], starts[k] + num), *[0] * (size - num)]
            self.register_buffer(f"weights{group}", _constant(padded))
        self.rows = nn.Buffer(torch.tensor(rows))  # of the kernel, group by group
        self.intercepts = _constant(margin_intercepts(table)[np.ix_(order, order)])  # [K, K]
        self.ties = _constant(ties_for(len(order))[np.ix_(order, order)])  # [K, K]
        self.places = nn.Buffer(torch.from_numpy(np.argsort(order)))  # [K]

    def forward(self, mean: Tensor, log_variance: Tensor) -> Classification:
        kernel = self.kernel(mean, log_variance).index_select(1, self.rows)
        # onnxruntime can't scan a batch of none, so there is always one row more.
        kernel = torch.cat([kernel, kernel.new_zeros(1, len(self.rows))])
        start = kernel.new_zeros(())

        def step(carried: Tensor, row: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            return carried.clone(), self._votes_and_confidences(row)

        _, (votes, confidences) = scan(step, start, kernel)
        return self.classification(
            votes[:-1].index_select(1, self.places), confidences[:-1].index_select(1, self.places)
        )

    def _votes_and_confidences(self, kernel: Tensor) -> tuple[Tensor, Tensor]:
        """Of one image, both [K] in the order of groups."""
        shapes = self.group_shapes
        parts = kernel.split([count * size for count, size in shapes])
        spoken_for = torch.cat(
            [
                torch.bmm(part.reshape(count, 1, size), self.get_buffer(f"weights{group}"))
                for group, (part, (count, size)) in enumerate(zip(parts, shapes, strict=True))
            ]
        )[:, 0]
        margins = spoken_for - spoken_for.T + self.intercepts
        wins = torch.where(margins > 0, 1.0, torch.where(margins == 0, self.ties, 0.0))
        return wins.sum(dim=1), margins.sum(dim=1)


def is_pairwise(table: SvmTable) -> bool:
    """Whether the decisions of all pairs are worth the memory that they take in a graph."""
    return len(table.support_vectors) * len(table.intercepts) <= MAX_PAIR_WEIGHTS


def svm_graph(table: SvmTable) -> PairwiseSvmGraph | ScannedSvmGraph:
    return PairwiseSvmGraph(table) if is_pairwise(table) else ScannedSvmGraph(table)


def pair_coefficients(table: SvmTable) -> NDArray[np.float64]:
    """The weight [S, P] of each support vector in the decision of each pair of classes."""
    num_classes = len(table.classes)
    first, second = np.triu_indices(num_classes, k=1)
    rows = np.split(
        np.zeros((len(table.support_vectors), len(first))), np.cumsum(table.num_support)[:-1]
    )
    for k, (of_class, weights) in enumerate(zip(rows, class_weights(table), strict=True)):
        of_class[:, first == k] = weights[:, second[first == k]]
        of_class[:, second == k] = -weights[:, first[second == k]]
    return pair_sign(num_classes) * np.concatenate(rows)


def pair_signs(num_classes: int) -> NDArray[np.float64]:
    """For which class of its pair a positive decision speaks (+1) or against (-1): [P, K]."""
    first, second = np.triu_indices(num_classes, k=1)
    return pair_sign(num_classes) * (np.eye(num_classes)[first] - np.eye(num_classes)[second])


class ClassifierGraph(nn.Module):
    """Pixels uint8 [B, C, H, W] to a label: encoder and SVM in one graph."""

    def __init__(self, encoder: EncoderGraph, svm: PairwiseSvmGraph | ScannedSvmGraph) -> None:
        super().__init__()
        self.encoder = encoder
        self.svm = svm

    def forward(self, image: Tensor) -> Classification:
        verdict: Verdict | Classification = self.svm(*self.encoder(image))
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
            opset_version=EXPORTER_OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    model.opset_import[0].version, model.ir_version = OPSET, IR_VERSION
    _state_sizes(model)
    _strip_traces(model)
    return model


def _constant(array: NDArray[np.generic]) -> nn.Buffer:
    return nn.Buffer(torch.from_numpy(array.astype(np.float32)))


def _state_sizes(model: onnx.ModelProto) -> None:
    """Write out the size that group norm leaves to a reshape, [0, groups, -1].

    The 0 is the batch, whatever it is; of a batch of none no runtime can infer the rest.
    """
    graph = model.graph
    sizes = {
        info.name: [dimension.dim_value for dimension in info.type.tensor_type.shape.dim]
        for info in graph.value_info
    }
    shapes = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    inferred = {name for name, shape in shapes.items() if _leaves_a_size_beside_the_batch(shape)}
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[1] in inferred:
            name, (_, *stated) = f"{node.output[0]}_shape", sizes[node.output[0]]
            stated_shape = np.array([0, *stated], np.int64)
            graph.initializer.append(onnx.numpy_helper.from_array(stated_shape, name))
            node.input[1] = name
    for each in [each for each in graph.initializer if each.name in inferred]:
        graph.initializer.remove(each)


def _leaves_a_size_beside_the_batch(shape: NDArray[np.generic]) -> bool:
    return shape.dtype == np.int64 and shape.ndim == 1 and [*shape[:1]] == [0] and -1 in shape


def _strip_traces(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes of the Python source, absolute paths among it."""
    graph = model.graph
    parts = (graph.node, graph.input, graph.output, graph.initializer, graph.value_info)
    for proto in (model, graph, *(each for part in parts for each in part)):
        proto.ClearField("metadata_props")
        proto.ClearField("doc_string")
