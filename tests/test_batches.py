"""Order and noise are functions of the seed; ranks see slices of the same global batch."""

import numpy as np
import pytest
import torch

from vaekit.batches import (
    Stream,
    as_floats,
    epoch_order,
    gather_images,
    normal_noise,
    rank_slice,
    resident,
)

CPU = torch.device("cpu")


def test_an_epoch_visits_every_image_once_in_an_order_of_its_own() -> None:
    first, second = epoch_order(0, 1, 1000), epoch_order(0, 2, 1000)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(1000))
    assert first.tolist() != second.tolist()
    assert first.tolist() != epoch_order(1, 1, 1000).tolist()


def test_order_and_noise_do_not_depend_on_what_was_drawn_before() -> None:
    order, noise = epoch_order(3, 7, 50), normal_noise((4, 2), 3, Stream.LATENT, 7, CPU)
    torch.randn(5)
    np.random.default_rng().random()
    assert torch.equal(order, epoch_order(3, 7, 50))
    assert torch.equal(noise, normal_noise((4, 2), 3, Stream.LATENT, 7, CPU))


def test_noise_is_standard_normal_and_differs_by_seed_stream_and_step() -> None:
    noise = normal_noise((100_000,), 0, Stream.INPUT, 1, CPU)
    assert noise.mean().abs() < 0.02
    assert (noise.std() - 1).abs() < 0.02
    others = [
        normal_noise((100_000,), 1, Stream.INPUT, 1, CPU),
        normal_noise((100_000,), 0, Stream.LATENT, 1, CPU),
        normal_noise((100_000,), 0, Stream.INPUT, 2, CPU),
    ]
    for other in others:
        assert torch.corrcoef(torch.stack([noise, other]))[0, 1].abs() < 0.02


@pytest.mark.parametrize(("count", "num_ranks"), [(8, 1), (8, 2), (7, 3), (2, 4), (0, 2)])
def test_the_shares_of_the_ranks_are_the_whole_without_overlap(count: int, num_ranks: int) -> None:
    shares = [list(range(count))[rank_slice(count, r, num_ranks)] for r in range(num_ranks)]
    assert [item for share in shares for item in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_batches_are_the_images_asked_for_as_floats_in_the_unit_interval() -> None:
    pixels = np.arange(2 * 3 * 2 * 2, dtype=np.uint8).reshape(2, 3, 2, 2) * 10
    batch = gather_images(resident(pixels, CPU), torch.tensor([1, 0, 1]))
    np.testing.assert_allclose(batch.numpy(), pixels[[1, 0, 1]] / np.float32(255))
    assert batch.dtype == torch.float32
    assert as_floats(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [0.0, 1.0]
