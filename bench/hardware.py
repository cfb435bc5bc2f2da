"""What a training step takes at least on this hardware, by measured rates."""

import time
from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench.plain_loops import DTYPES, Precision, device_of, synchronise
from vaekit.models.vae import VAE, num_parameters

TRIES = 20  # of which the best counts
TRIES_IN_TURN = 4  # again and again, beside the work
CALLS = {"cpu": 1, "cuda": 20}  # in a try: a GPU waits for its launch, too
COPIED_BYTES = 128 * 2**20  # too many for any cache

# Adam reads a weight, its gradient and two moments, and writes all but the gradient; the
# average of the weights reads two and writes one.
FLOATS_MOVED = 7 + 3  # for each parameter


class StepLimit:
    """Seconds that a step takes at least: its arithmetic at the rate of the largest layer's matrix
    products, and the update's memory traffic at that of a copy. What activations move is left out.
    """

    def __init__(self, vae: VAE, batch_size: int, precision: Precision) -> None:
        self._vae, self._batch_size, self._precision = vae, batch_size, precision
        self._flops = step_flops(vae, batch_size)
        self._update_bytes = 4 * FLOATS_MOVED * num_parameters(vae)
        self._products_rate = self._copy_rate = 0.0

    def measure(self, num_tries: int) -> float:
        """By the best rates of these tries and all before: a machine's speed drifts."""
        device = device_of(self._vae)
        products = matrix_product_rate(self._vae, self._batch_size, self._precision, num_tries)
        self._products_rate = max(self._products_rate, products)
        self._copy_rate = max(self._copy_rate, copy_rate(device, num_tries))
        return self._flops / self._products_rate + self._update_bytes / self._copy_rate


def step_limit(vae: VAE, batch_size: int, precision: Precision) -> float:
    """`StepLimit`, measured once."""
    return StepLimit(vae, batch_size, precision).measure(TRIES)


def largest_activation(vae: VAE, batch_size: int) -> int:
    """Bytes of the largest output of a layer in float32."""
    sizes: list[int] = []
    shadow, images, noise = _shadow(vae, batch_size)
    for module in shadow.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda _layer, _input, output: sizes.append(output.nbytes))
    shadow(images, noise)
    return max(sizes)


def step_flops(vae: VAE, batch_size: int) -> int:
    """Floating-point operations of a forward and a backward pass, counted without doing them."""
    shadow, images, noise = _shadow(vae, batch_size)
    with FlopCounterMode(display=False) as counter:
        shadow.elbo(images, noise).loss.mean().backward()
    flops: int = counter.get_total_flops()
    return flops


@torch.no_grad()
def matrix_product_rate(
    vae: VAE, batch_size: int, precision: Precision, num_tries: int = TRIES
) -> float:
    """FLOP/s of the three products that a step makes of the largest layer and its batch."""
    device = device_of(vae)
    dtype = DTYPES[precision]
    layers = [module for module in vae.modules() if isinstance(module, nn.Linear)]
    weight = max((layer.weight for layer in layers), key=torch.numel).to(dtype)  # [out, in]
    num_outputs, num_inputs = weight.shape
    inputs = torch.rand(batch_size, num_inputs, dtype=dtype, device=device)
    outputs = torch.rand(batch_size, num_outputs, dtype=dtype, device=device)
    # Into memory at hand: a system takes longer to give 37 MB than a CPU to fill them.
    of_weight, of_inputs = torch.empty_like(weight), torch.empty_like(inputs)
    seconds = (
        _best_seconds(lambda: torch.mm(inputs, weight.T, out=outputs), device, num_tries)
        + _best_seconds(lambda: torch.mm(outputs.T, inputs, out=of_weight), device, num_tries)
        + _best_seconds(lambda: torch.mm(outputs, weight, out=of_inputs), device, num_tries)
    )
    return 3 * 2 * batch_size * weight.numel() / seconds


def copy_rate(device: torch.device, num_tries: int = TRIES) -> float:
    """Bytes per second, read and written ones together."""
    source = torch.zeros(COPIED_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * COPIED_BYTES / _best_seconds(lambda: target.copy_(source), device, num_tries)


def _shadow(vae: VAE, batch_size: int) -> tuple[VAE, Tensor, Tensor]:
    """A model without values, a batch of images and its noise: shapes alone."""
    images = torch.empty(batch_size, *vae.image_shape, device="meta")
    noise = torch.empty(batch_size, vae.latent_dim, device="meta")
    return deepcopy(vae).to("meta"), images, noise


def _best_seconds(run: Callable[[], object], device: torch.device, num_tries: int) -> float:
    num_calls = CALLS[device.type]
    calls = run if num_calls == 1 else _recorded(run, num_calls)
    seconds = []
    for _ in range(num_tries):
        synchronise(device)
        start = time.perf_counter()
        calls()
        synchronise(device)
        seconds.append((time.perf_counter() - start) / num_calls)
    return min(seconds)


def _recorded(run: Callable[[], object], num_calls: int) -> Callable[[], object]:
    """The calls as one CUDA graph: Python could not launch them as fast as they end."""
    run()
    graph = torch.cuda.CUDAGraph()
    # Another thread may fetch images meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        for _ in range(num_calls):
            run()
    return graph.replay
