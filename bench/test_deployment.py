"""The deployed graphs in onnxruntime against what people use without them."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from bench.conftest import Compete
from bench.deployed import Deployed, deploy_run, make_up
from bench.interleaved import Contest
from vaekit.images.pixels import as_floats
from vaekit.models.vae import VAE

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason=f"{package} is not installed")

import onnx  # noqa: E402
import onnxruntime  # noqa: E402

from vaekit.export.float16 import store_as_float16  # noqa: E402
from vaekit.export.graphs import (  # noqa: E402
    ClassifierGraph,
    DecoderGraph,
    EncoderGraph,
    svm_graph,
    to_onnx,
)
from vaekit.export.int8 import quantise  # noqa: E402

ROUNDS = {1: 100, 64: 100, 256: 10}  # by batch size
ROUNDS_OF_ALL = 4  # of work on all images, which takes seconds
BATCH_OF_ALL = 1000  # images at once; their feature maps take more than 100 kB each
TOLERANCE = 1e-4
MIN_AGREEMENT = 0.99  # of labels: SVC breaks a tie in another way, and there are some


@pytest.fixture(scope="session")
def deployed(pytestconfig: pytest.Config, is_quick: bool) -> Deployed:
    run = pytestconfig.getoption("run")
    if run is not None:
        return deploy_run(run)
    if is_quick:
        return make_up(num_train=300, num_test=256)
    return make_up(num_train=9000, num_test=10_000)


@pytest.fixture(scope="session")
def encoder(deployed: Deployed) -> onnx.ModelProto:
    pixels = torch.from_numpy(deployed.pixels[:2])
    return to_onnx(EncoderGraph(deployed.vae), {"image": pixels}, ("mean", "log_variance"))


@pytest.fixture(scope="session")
def decoder(deployed: Deployed) -> onnx.ModelProto:
    return _decoder(deployed.vae)


@pytest.fixture(scope="session")
def svm(deployed: Deployed) -> onnx.ModelProto:
    mean, log_variance = np.split(deployed.latents[:2], 2, axis=1)
    inputs = {"mean": torch.tensor(mean), "log_variance": torch.tensor(log_variance)}
    return to_onnx(svm_graph(deployed.table), inputs, ("label", "scores", "decisions"))


@pytest.fixture(scope="session")
def classifier(deployed: Deployed) -> onnx.ModelProto:
    module = ClassifierGraph(EncoderGraph(deployed.vae), svm_graph(deployed.table))
    return to_onnx(module, {"image": torch.from_numpy(deployed.pixels[:2])}, ("label", "scores"))


@pytest.mark.parametrize("batch_size", [1, 256])
def test_encode(
    compete: Compete, threads: int, deployed: Deployed, encoder: onnx.ModelProto, batch_size: int
) -> None:
    session, vae = _session(encoder, threads), deployed.vae
    pixels = deployed.pixels[:batch_size]
    tensor = torch.from_numpy(pixels)
    compete(
        Contest(
            work=f"encode, batch {batch_size}",
            ours=lambda: session.run(None, {"image": pixels}),
            peer="PyTorch eager",
            theirs=torch.inference_mode()(lambda: vae.encode(as_floats(tensor))),
            agree=_close,
            rounds=ROUNDS[batch_size],
        )
    )


@pytest.mark.parametrize("batch_size", [1, 256])
def test_decode(
    compete: Compete, threads: int, deployed: Deployed, decoder: onnx.ModelProto, batch_size: int
) -> None:
    session, vae = _session(decoder, threads), deployed.vae
    latents = _latents(deployed, batch_size)
    tensor = torch.from_numpy(latents)
    compete(
        Contest(
            work=f"decode, batch {batch_size}",
            ours=lambda: session.run(None, {"latent": latents}),
            peer="PyTorch eager",
            theirs=torch.inference_mode()(lambda: (vae.decode(tensor),)),
            agree=_close,
            rounds=ROUNDS[batch_size],
        )
    )


def test_svm_against_scikit_learn(
    compete: Compete, threads: int, deployed: Deployed, svm: onnx.ModelProto
) -> None:
    latents = deployed.latents
    compete(
        Contest(
            work="SVM predict",
            ours=_label_latents(svm, latents, threads),
            peer="scikit-learn",
            theirs=lambda: deployed.pipeline.predict(latents),
            agree=_same_labels,
            rounds=ROUNDS_OF_ALL,
            note=_size(deployed, len(latents)),
        )
    )


@pytest.mark.filterwarnings("ignore:Attribute `prob[AB]_` was deprecated:FutureWarning")
def test_svm_against_skl2onnx(
    compete: Compete, threads: int, deployed: Deployed, svm: onnx.ModelProto
) -> None:
    """Its graph holds onnxruntime's own operators, Scaler and SVMClassifier."""
    skl2onnx = pytest.importorskip("skl2onnx", reason="skl2onnx is not installed")
    latents = deployed.latents
    options = {id(deployed.pipeline): {"zipmap": False}}
    session = _session(skl2onnx.to_onnx(deployed.pipeline, latents[:1], options=options), threads)
    compete(
        Contest(
            work="SVM predict",
            ours=_label_latents(svm, latents, threads),
            peer="skl2onnx",
            theirs=lambda: session.run(["label"], {"X": latents})[0],
            agree=_same_labels,
            rounds=ROUNDS_OF_ALL,
            note=_size(deployed, len(latents)),
        )
    )


@pytest.mark.parametrize("num_images", [1, None], ids=["1", "all"])
def test_image_to_label(
    compete: Compete,
    threads: int,
    deployed: Deployed,
    encoder: onnx.ModelProto,
    classifier: onnx.ModelProto,
    num_images: int | None,
) -> None:
    encode, classify = _session(encoder, threads), _session(classifier, threads)
    pixels = deployed.pixels[:num_images]
    batches = [pixels[i : i + BATCH_OF_ALL] for i in range(0, len(pixels), BATCH_OF_ALL)]

    def with_scikit_learn() -> NDArray[np.int64]:
        latents = [np.concatenate(encode.run(None, {"image": each}), axis=1) for each in batches]
        return deployed.pipeline.predict(np.concatenate(latents))

    compete(
        Contest(
            work=f"image to label, {'all images' if num_images is None else 'batch 1'}",
            ours=lambda: np.concatenate(
                [classify.run(["label"], {"image": each})[0] for each in batches]
            ),
            peer="encoder, then scikit-learn",
            theirs=with_scikit_learn,
            agree=_same_labels,
            rounds=ROUNDS_OF_ALL if num_images is None else ROUNDS[num_images],
            note=_size(deployed, len(pixels)),
        )
    )


def test_encode_with_float16_weights(
    compete: Compete, threads: int, deployed: Deployed, encoder: onnx.ModelProto
) -> None:
    work, inputs = "encode, batch 1, float16 weights", {"image": deployed.pixels[:1]}
    stored = store_as_float16(encoder)
    compete(_of_two_graphs(work, stored, "float32 weights", encoder, inputs, threads))


def test_decode_with_float16_weights(
    compete: Compete, threads: int, deployed: Deployed, decoder: onnx.ModelProto
) -> None:
    work, inputs = "decode, batch 1, float16 weights", {"latent": _latents(deployed, 1)}
    stored = store_as_float16(decoder)
    compete(_of_two_graphs(work, stored, "float32 weights", decoder, inputs, threads))


@pytest.mark.parametrize("batch_size", [1, 64])
def test_encode_in_eight_bits(
    compete: Compete, threads: int, deployed: Deployed, encoder: onnx.ModelProto, batch_size: int
) -> None:
    work, inputs = f"encode, batch {batch_size}, int8", {"image": deployed.pixels[:batch_size]}
    contest = _of_two_graphs(work, quantise(encoder), "float32", encoder, inputs, threads)
    compete(contest._replace(agree=_alike))


@pytest.mark.parametrize("batch_size", [1, 64])
def test_decode_in_eight_bits(
    compete: Compete, threads: int, deployed: Deployed, decoder: onnx.ModelProto, batch_size: int
) -> None:
    work, inputs = f"decode, batch {batch_size}, int8", {"latent": _latents(deployed, batch_size)}
    contest = _of_two_graphs(work, quantise(decoder), "float32", decoder, inputs, threads)
    compete(contest._replace(agree=_alike))


@pytest.mark.parametrize("batch_size", [1, 256])
def test_transposed_convolution(
    compete: Compete, threads: int, deployed: Deployed, decoder: onnx.ModelProto, batch_size: int
) -> None:
    """The graph as exported against one with the equal convolutions."""
    work = f"decode, batch {batch_size}, ConvTranspose"
    theirs = _decoder(_with_convolutions(deployed.vae))
    inputs = {"latent": _latents(deployed, batch_size)}
    compete(_of_two_graphs(work, decoder, "equal Conv", theirs, inputs, threads))


def _of_two_graphs(
    work: str,
    ours: onnx.ModelProto,
    peer: str,
    theirs: onnx.ModelProto,
    inputs: dict[str, NDArray[Any]],
    threads: int,
) -> Contest:
    our_session, their_session = _session(ours, threads), _session(theirs, threads)
    (batch,) = inputs.values()
    return Contest(
        work=work,
        ours=lambda: our_session.run(None, inputs),
        peer=peer,
        theirs=lambda: their_session.run(None, inputs),
        agree=_close,
        rounds=ROUNDS[len(batch)],
        note=f"{ours.ByteSize() / 1e6:.1f} MB against {theirs.ByteSize() / 1e6:.1f} MB",
    )


def _session(model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _decoder(vae: VAE) -> onnx.ModelProto:
    latent = torch.zeros(2, vae.latent_dim)
    return to_onnx(DecoderGraph(vae), {"latent": latent}, ("image",))


def _with_convolutions(vae: VAE) -> VAE:
    """The same function, each ConvTranspose as a Conv with its kernel turned round and padded."""
    vae = copy.deepcopy(vae)
    for name, layer in list(vae.dec.named_children()):
        if not isinstance(layer, nn.ConvTranspose2d):
            continue
        margin = layer.kernel_size[0] - 1
        convolution = nn.Conv2d(
            layer.in_channels, layer.out_channels, layer.kernel_size, padding=margin
        )
        convolution.weight = nn.Parameter(layer.weight.detach().transpose(0, 1).flip(2, 3))
        convolution.bias = layer.bias
        vae.dec.set_submodule(name, convolution)
    return vae


def _label_latents(
    svm: onnx.ModelProto, latents: NDArray[np.float32], threads: int
) -> Callable[[], NDArray[np.int64]]:
    session = _session(svm, threads)
    mean, log_variance = (np.ascontiguousarray(half) for half in np.split(latents, 2, axis=1))
    return lambda: session.run(["label"], {"mean": mean, "log_variance": log_variance})[0]


def _latents(deployed: Deployed, batch_size: int) -> NDArray[np.float32]:
    """Means [B, L] to decode."""
    num_dimensions = deployed.vae.latent_dim
    return np.ascontiguousarray(deployed.latents[:batch_size, :num_dimensions])


def _close(ours: Any, theirs: Any) -> None:
    for found, wanted in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE)


def _alike(ours: Any, theirs: Any) -> None:
    """To within what eight bits may change."""
    for found, wanted in zip(ours, theirs, strict=True):
        assert np.abs(found - wanted).mean() < 0.1 * np.abs(wanted).max()


def _same_labels(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> None:
    assert np.mean(ours == theirs) >= MIN_AGREEMENT


def _size(deployed: Deployed, num_images: int) -> str:
    return f"{num_images:,} images, {len(deployed.table.support_vectors):,} support vectors"
