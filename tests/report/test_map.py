"""The map of the test latents: faithful, made once, and of the latents it says."""

from pathlib import Path

import numpy as np
import pytest

from vaekit.report.map import LatentMap, latent_map, tsne
from vaekit.runs.latents import Latents
from vaekit.runs.run import Run


@pytest.fixture
def run(run: Path) -> Run:
    """A finished run whose map is still to be made."""
    (run / "figures" / "tsne.safetensors").unlink()
    return Run(run)


def made(run: Run, latents: Latents) -> LatentMap:
    placed = latent_map(run.folder, latents)
    assert placed is not None
    return placed


@pytest.mark.slow
def test_every_test_image_of_a_small_set_has_a_point(run: Run) -> None:
    points, indices = made(run, run.latents)
    assert points.shape == (96, 2)
    assert np.isfinite(points).all()
    np.testing.assert_array_equal(indices, np.arange(96))


def test_a_map_is_made_once(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    first = made(run, run.latents)
    assert "t-SNE" in capsys.readouterr().out
    second = made(run, run.latents)
    assert capsys.readouterr().out == ""
    np.testing.assert_array_equal(first.points, second.points)


@pytest.mark.slow
def test_other_latents_get_a_map_of_their_own(run: Run) -> None:
    first = made(run, run.latents)
    others = run.latents._replace(test=run.latents.test[::-1].copy(), sha256="0" * 64)
    second = made(run, others)
    assert not np.array_equal(first.points, second.points)


def test_too_few_latents_have_no_map(run: Run) -> None:
    few = run.latents._replace(test=run.latents.test[:3])
    assert latent_map(run.folder, few) is None


@pytest.mark.slow
def test_the_same_latents_give_the_same_map() -> None:
    features = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    np.testing.assert_array_equal(tsne(features, 5), tsne(features, 5))


def test_a_map_keeps_what_belongs_together_close() -> None:
    generator = np.random.default_rng(0)
    features = np.concatenate([generator.normal(-9, 1, (20, 3)), generator.normal(9, 1, (20, 3))])
    points = tsne(features.astype(np.float32), 5)
    centres = points[:20].mean(axis=0), points[20:].mean(axis=0)
    nearer = [
        np.linalg.norm(point - centres[0]) < np.linalg.norm(point - centres[1]) for point in points
    ]
    assert nearer == [True] * 20 + [False] * 20


def test_a_single_latent_dimension_has_a_map_too() -> None:
    features = np.random.default_rng(0).normal(size=(20, 1)).astype(np.float32)
    assert np.isfinite(tsne(features, 5)).all()
