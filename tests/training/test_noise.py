"""Order and noise are functions of the seed; ranks see slices of the same global batch."""

import numpy as np
import pytest
import torch

from vaekit.training import noise as drawing
from vaekit.training.noise import NormalRows, Stream, epoch_order, normal_noise, rank_slice

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
    assert order.tolist() == epoch_order(3, 7, 50).tolist()
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


@pytest.mark.parametrize("count", [1, 15, 16, 33, 47, 48, 49, 63, 64, 65, 200, 1001])
@pytest.mark.parametrize("width", [1, 3, 10])
def test_noise_drawn_a_block_at_a_time_is_the_same(
    count: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = normal_noise((count, width), 3, Stream.EVALUATION, 0, CPU)
    monkeypatch.setattr(drawing, "ROWS_AT_ONCE", 32)
    for first, size in ((0, 7), (0, 50), (count // 3, 20), (count // 2, 1)):
        rows = NormalRows(count, width, 3, Stream.EVALUATION, CPU)
        for start in range(first, count + 2 * size, size):  # a rank may ask for none at the end
            some = slice(start, min(start + size, count))
            assert torch.equal(rows.take(some), whole[some])


@pytest.mark.parametrize(("count", "num_ranks"), [(8, 1), (8, 2), (7, 3), (2, 4), (0, 2)])
def test_the_shares_of_the_ranks_are_the_whole_without_overlap(count: int, num_ranks: int) -> None:
    shares = [list(range(count))[rank_slice(count, r, num_ranks)] for r in range(num_ranks)]
    assert [item for share in shares for item in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
