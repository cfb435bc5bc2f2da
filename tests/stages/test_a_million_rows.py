"""What follows training takes no more memory for a million images than for many."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from vaekit.config import SvmConfig
from vaekit.evaluation.neighbours import Stacked, nearest
from vaekit.evaluation.quality import active_dimensions, kl_of_dimensions
from vaekit.images.image_set import Images, ImageSet
from vaekit.runs.index import read_index, write_index
from vaekit.stages.svm import _measured
from vaekit.storage.arrays import blocks_of_rows, read_npy, write_array, write_rows
from vaekit.svm.draw import draw_rows
from vaekit.svm.fit import fit_table
from vaekit.svm.table import require_finite

NUM_ROWS, LATENT_DIM = 1_000_000, 10
MOST_BYTES = 64 * 2**20  # as docs/scale.md says; the latents alone are 80 MB


class Made(NamedTuple):
    latents: NDArray[np.float32]
    labels: NDArray[np.int64]
    folder: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A million made-up latents of two classes, on disk."""
    folder = tmp_path_factory.mktemp("million")
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, NUM_ROWS)
    shape = (NUM_ROWS, 2 * LATENT_DIM)

    def rows(block: slice) -> NDArray[np.float32]:
        noise = generator.normal(size=(block.stop - block.start, shape[1]))
        return (noise + 2 * labels[block, None]).astype(np.float32)

    write_rows(folder / "latents.npy", shape, np.float32, map(rows, blocks_of_rows(*shape)))
    write_array(folder / "labels.npy", labels)
    latents = read_npy(folder / "latents.npy", np.float32, 2)
    return Made(latents, read_npy(folder / "labels.npy", np.int64, 1), folder)


def measure(made: Made) -> None:
    table = fit_table(made.latents[:200], made.labels[:200], SvmConfig())
    require_finite(made.latents, "latents")
    scores = _measured(table, made.latents, made.labels, ("zero", "one"))
    assert scores.accuracy > 0.99
    assert scores.confusion_matrix.sum() == NUM_ROWS


def draw(made: Made) -> None:
    drawn = draw_rows(made.labels, 1000)
    assert abs(2 * made.labels[drawn].sum() - 1000) < 10


def look_for_neighbours(made: Made) -> None:
    means = made.latents[:, :LATENT_DIM]
    rows = np.array([5, NUM_ROWS // 2, NUM_ROWS - 1])
    found = nearest(Stacked(means[:600_000], means[600_000:]), means[rows], 3)
    assert found.indices[:, 0].tolist() == rows.tolist()
    distances = np.linalg.norm(means[found.indices] - means[rows, None], axis=2)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-4, atol=1e-6)


def look_at_dimensions(made: Made) -> None:
    assert (kl_of_dimensions(made.latents) > 0).all()
    assert active_dimensions(made.latents).all()


def index(made: Made) -> None:
    pixels = np.broadcast_to(np.uint8(0), (NUM_ROWS, 1, 8, 8))
    few = ImageSet(pixels[:3], made.labels[:3])
    path = made.folder / "index.parquet"
    write_index(path, Images(ImageSet(pixels, made.labels), few, ("zero", "one")))
    written = read_index(path)
    assert written.is_of(NUM_ROWS, 3)
    last = "zero" if made.labels[-1] == 0 else "one"
    assert written[NUM_ROWS - 1] == ("train", NUM_ROWS - 1, None, int(made.labels[-1]), last)


@pytest.mark.slow
@pytest.mark.parametrize("work", [measure, draw, look_for_neighbours, look_at_dimensions, index])
def test_a_million_rows_are_worked_on_in_bounded_memory(
    work: Callable[[Made], None], made: Made
) -> None:
    tracemalloc.start()
    try:
        work(made)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
