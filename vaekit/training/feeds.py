"""Where the batches of an epoch come from: images on the device, or more than it can hold."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Protocol, cast

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from vaekit.config import DataConfig, TrainConfig, settled
from vaekit.images.mapped import Mapped, PixelArray, blocks
from vaekit.training.noise import rank_slice

MEGABYTE = 10**6
SHARE_OF_GPU = 0.5  # of its memory, for the images; the rest is for the model and its gradients
NUM_AHEAD = 4  # batches fetched before they are wanted


class Feed(Protocol):
    """Gives this rank's share of every batch of an epoch, uint8 [share, C, H, W]."""

    def start_epoch(self, order: NDArray[np.int64], batch: int) -> None:
        """Take `order`, a permutation of all images, from batch number `batch` on."""

    def make_ready(self) -> None:
        """See to it that the next batch can be had on the device; called before each step."""

    def batch(self, number: Tensor) -> Tensor:
        """The batch of that number, int64 [1] on the device; only the device works on it."""


def make_feed(pixels: PixelArray, config: TrainConfig, accelerator: Accelerator) -> Feed:
    """A feed of `pixels` [N, C, H, W] for this rank: resident where they fit, by rule."""
    device = accelerator.device
    batch_size = settled(config.batch_size)
    share = rank_slice(batch_size, accelerator.process_index, accelerator.num_processes)
    if is_resident(pixels, config.data, device):
        return ResidentFeed(pixels, batch_size, share, device)
    return FetchingFeed(pixels, batch_size, share, device)


def is_resident(pixels: PixelArray, config: DataConfig, device: torch.device) -> bool:
    """Whether these images stay on the device, for all of training."""
    limit = resident_limit(config, device)
    if limit is None:  # mapped images would be copied into the memory of each process
        return not isinstance(pixels, Mapped)
    return pixels.nbytes <= limit * MEGABYTE


def resident_limit(config: DataConfig, device: torch.device) -> int | None:
    """Megabytes of images to keep on the device at most; None for as many as are in memory."""
    if config.resident_limit is None and device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        return int(SHARE_OF_GPU * memory / MEGABYTE)
    return config.resident_limit


class ResidentFeed:
    """All images on the device; a batch is one gather by index, wherever the step runs."""

    def __init__(
        self, pixels: PixelArray, batch_size: int, share: slice, device: torch.device
    ) -> None:
        self._pixels = _on_device(pixels, device)
        self._order = torch.zeros(len(pixels), dtype=torch.int64, device=device)
        self._batch_size = batch_size
        self._places = torch.arange(share.start, share.stop, device=device)

    def start_epoch(self, order: NDArray[np.int64], batch: int) -> None:
        self._order.copy_(torch.from_numpy(order))

    def make_ready(self) -> None:
        """The images are where they always are."""

    def batch(self, number: Tensor) -> Tensor:
        indices = self._order.index_select(0, number * self._batch_size + self._places)
        return self._pixels.index_select(0, indices)


def _on_device(pixels: PixelArray, device: torch.device) -> Tensor:
    if isinstance(pixels, np.ndarray):
        return torch.from_numpy(pixels).to(device)
    moved = torch.empty(pixels.shape, dtype=torch.uint8, device=device)
    start = 0
    for block in blocks(pixels):
        moved[start : start + len(block)] = torch.from_numpy(block).to(device)
        start += len(block)
    return moved


class FetchingFeed:
    """Images that stay where they are, as in a memory map; a thread gathers batches ahead.

    However many images there are, no more than `NUM_AHEAD` batches of them are held.
    """

    def __init__(
        self, pixels: PixelArray, batch_size: int, share: slice, device: torch.device
    ) -> None:
        self._pixels, self._batch_size, self._share = pixels, batch_size, share
        self._batch = torch.zeros(
            share.stop - share.start, *pixels.shape[1:], dtype=torch.uint8, device=device
        )
        on_cuda = device.type == "cuda"
        slot_type = _PinnedSlot if on_cuda else _Slot
        self._slots = deque(slot_type(self._batch) for _ in range(NUM_AHEAD))
        # A thread begins on the first GPU, where it would open a context for other ranks' images.
        enter = partial(torch.cuda.set_device, self._batch.device) if on_cuda else None
        self._thread = ThreadPoolExecutor(max_workers=1, initializer=enter)
        self._fetches: deque[Future[_Slot]] = deque()
        self._wanted: deque[NDArray[np.int64]] = deque()  # indices, of the batches to be fetched

    def start_epoch(self, order: NDArray[np.int64], batch: int) -> None:
        num_batches = len(order) // self._batch_size
        batches = order[: num_batches * self._batch_size].reshape(num_batches, self._batch_size)
        self._wanted = deque(batches[batch:, self._share])
        while self._slots and self._wanted:
            self._fetch()

    def make_ready(self) -> None:
        slot = self._fetches.popleft().result()
        slot.give(self._batch)
        self._slots.append(slot)
        if self._wanted:
            self._fetch()

    def batch(self, number: Tensor) -> Tensor:
        return self._batch

    def _fetch(self) -> None:
        slot, indices = self._slots.popleft(), self._wanted.popleft()
        self._fetches.append(self._thread.submit(slot.fetch, self._pixels, indices))


class _Slot:
    """A place for one batch on its way."""

    def __init__(self, batch: Tensor) -> None:
        self._fetched = torch.zeros_like(batch, device="cpu")

    def fetch(self, pixels: PixelArray, indices: NDArray[np.int64]) -> "_Slot":
        """Gather the images; called by the thread."""
        fetched = self._fetched.numpy()
        if isinstance(pixels, Mapped):
            pixels.take_into(indices, fetched)
        else:
            # With any other mode NumPy would gather into a copy first; the indices are all valid.
            np.take(cast("NDArray[np.uint8]", pixels), indices, axis=0, out=fetched, mode="clip")
        return self

    def give(self, batch: Tensor) -> None:
        """Overwrite `batch` with the images; called by whoever runs the steps."""
        batch.copy_(self._fetched)


class _PinnedSlot(_Slot):
    """One whose images the thread also sends to the GPU, beside the step that runs there."""

    def __init__(self, batch: Tensor) -> None:
        super().__init__(batch)
        self._fetched = self._fetched.pin_memory()
        self._sent = torch.empty_like(batch)
        self._stream = torch.cuda.Stream(batch.device)
        self._arrived, self._given = torch.cuda.Event(), torch.cuda.Event()
        self._given.record()  # until when the memory may have been another tensor's

    def fetch(self, pixels: PixelArray, indices: NDArray[np.int64]) -> "_Slot":
        self._arrived.synchronize()  # the images of last time, which may still be on their way
        super().fetch(pixels, indices)
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(self._given)
            self._sent.copy_(self._fetched, non_blocking=True)
            self._arrived.record()
        return self

    def give(self, batch: Tensor) -> None:
        torch.cuda.current_stream().wait_event(self._arrived)
        batch.copy_(self._sent)
        self._given.record()
