"""Pixels become floats in [0, 1] and come back as they were."""

import numpy as np
import pytest
import torch

from vaekit.images.pixels import as_floats, as_pixels, psnr


def test_pixels_become_floats_in_the_unit_interval_and_come_back() -> None:
    pixels = torch.arange(256, dtype=torch.uint8)
    floats = as_floats(pixels)
    np.testing.assert_allclose(floats.numpy(), np.arange(256) / np.float32(255))
    assert floats.dtype == torch.float32
    assert as_pixels(floats).tolist() == list(range(256))


def test_psnr_is_in_decibels() -> None:
    assert psnr(0.01) == pytest.approx(20)
    assert psnr(0) is None
