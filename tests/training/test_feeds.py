"""Batches from images on the device and from images that stay in a memory map are the same."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import anonymous_memory, tiny_config
from numpy.lib.format import open_memmap

from vaekit.config import DataConfig
from vaekit.images.mapped import Mapped, PixelArray
from vaekit.train import train
from vaekit.training.feeds import NUM_AHEAD, Feed, FetchingFeed, ResidentFeed, make_feed
from vaekit.training.ranks import start_accelerator

CPU = torch.device("cpu")
BATCH_SIZE = 4
PIXELS = np.random.default_rng(0).integers(0, 256, (31, 3, 2, 5), dtype=np.uint8)
ORDER = np.random.default_rng(1).permutation(len(PIXELS))
MAPPED = Mapped(np.split(PIXELS[::-1], [10, 11, 25]), np.arange(len(PIXELS))[::-1])
NUM_BATCHES = len(PIXELS) // BATCH_SIZE

all_feeds = pytest.mark.parametrize("feed_type", [ResidentFeed, FetchingFeed])


def batches(feed: Feed, first: int = 0) -> list[np.ndarray]:
    given = []
    for number in range(first, NUM_BATCHES):
        feed.make_ready()
        given.append(feed.batch(torch.tensor([number])).numpy().copy())
    return given


@all_feeds
@pytest.mark.parametrize("pixels", [PIXELS, MAPPED], ids=["one array", "in shards"])
@pytest.mark.parametrize("share", [slice(0, 4), slice(0, 1), slice(1, 4)])
@pytest.mark.parametrize("first", [0, 3, NUM_BATCHES])
def test_a_rank_gets_its_share_of_every_batch_of_the_epoch(
    feed_type: type[ResidentFeed | FetchingFeed], share: slice, first: int, pixels: PixelArray
) -> None:
    feed = feed_type(pixels, BATCH_SIZE, share, CPU)
    for order in (ORDER, ORDER[::-1].copy()):
        feed.start_epoch(order, first)
        given = batches(feed, first)
        for number, batch in enumerate(given, first):
            indices = order[number * BATCH_SIZE : (number + 1) * BATCH_SIZE][share]
            np.testing.assert_array_equal(batch, PIXELS[indices])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@all_feeds
def test_a_gpu_gets_the_same_batches(feed_type: type[ResidentFeed | FetchingFeed]) -> None:
    feed = feed_type(PIXELS, BATCH_SIZE, slice(0, BATCH_SIZE), torch.device("cuda"))
    for order in (ORDER, ORDER[::-1].copy()):
        feed.start_epoch(order, 0)
        for number in range(NUM_BATCHES):
            feed.make_ready()
            batch = feed.batch(torch.tensor([number], device="cuda")).cpu().numpy()
            np.testing.assert_array_equal(
                batch, PIXELS[order[number * BATCH_SIZE : (number + 1) * BATCH_SIZE]]
            )


def test_images_that_are_fetched_are_never_more_than_a_few_batches(tmp_path: Path) -> None:
    pixels = open_memmap(tmp_path / "pixels.npy", "w+", np.uint8, (4000, 1, 100, 100))
    taken = []

    class Watched(np.memmap):  # type: ignore[type-arg]
        def take(self, indices: np.ndarray, *arguments: object, **settings: object) -> object:
            taken.append(len(indices))
            return super().take(indices, *arguments, **settings)  # type: ignore[arg-type]

    feed = FetchingFeed(pixels.view(Watched), 8, slice(0, 8), CPU)
    feed.start_epoch(np.arange(4000), 0)
    for number in range(3):
        feed.make_ready()
        assert sum(taken) <= 8 * (number + 1 + NUM_AHEAD)
    assert set(taken) == {8}


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_an_epoch_over_a_memory_map_takes_the_memory_of_a_few_batches(tmp_path: Path) -> None:
    shape, batch_size = (20_000, 1, 100, 100), 100  # 200 MB, and 1 MB a batch
    open_memmap(tmp_path / "pixels.npy", "w+", np.uint8, shape)
    pixels = np.load(tmp_path / "pixels.npy", mmap_mode="c")
    before = anonymous_memory()
    feed = FetchingFeed(pixels, batch_size, slice(0, batch_size), CPU)
    feed.start_epoch(np.random.default_rng(0).permutation(len(pixels)), 0)
    for number in range(len(pixels) // batch_size):
        feed.make_ready()
        feed.batch(torch.tensor([number]))
    assert anonymous_memory() - before < 20e6


@pytest.mark.parametrize(
    ("limit", "of_array", "in_shards"),
    [
        (None, ResidentFeed, FetchingFeed),
        (1, ResidentFeed, ResidentFeed),
        (0, FetchingFeed, FetchingFeed),
    ],
)
def test_images_stay_where_they_are_if_a_limit_has_no_room_for_them_or_shards_have_none(
    tmp_path: Path, limit: int | None, of_array: type, in_shards: type
) -> None:
    data = DataConfig(name="digits", resident_limit=limit)
    config = tiny_config(tmp_path, data=data, batch_size=4)
    for pixels, feed_type in ((PIXELS, of_array), (MAPPED, in_shards)):
        assert isinstance(make_feed(pixels, config, start_accelerator(config)), feed_type)


@pytest.mark.slow
def test_a_run_is_the_same_whether_its_images_are_resident_or_fetched_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resident, fetched = tiny_config(tmp_path / "resident"), tiny_config(tmp_path / "fetched")
    fetched_data = dataclasses.replace(fetched.data, resident_limit=0)
    train(resident)
    assert "to keep on the device" not in capsys.readouterr().err
    train(dataclasses.replace(fetched, data=fetched_data))
    assert "more than the 0 to keep on the device" in capsys.readouterr().err
    one, other = (Path(str(config.run)) / "model.safetensors" for config in (resident, fetched))
    assert one.read_bytes() == other.read_bytes()
