"""The precision of a run: what was asked for, or what is best on the device."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from vaekit.config import MixedPrecision
from vaekit.errors import UserError, say

TITLES = {"no": "float32", "bf16": "bf16", "fp16": "fp16"}

# The older `cudnn.allow_tf32` can't be read where a process has set some of the newer ones apart.
_convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]


def choose_precision(asked: MixedPrecision) -> str:
    """What `--mixed_precision` comes to: an explicit one is obeyed, auto is `auto_precision`.

    So `vaekit train` and a launcher, whatever that asks for, give the same run. Raises `UserError`
    for fp16 without a GPU.
    """
    if asked == "auto":
        chosen = auto_precision()
        launcher = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        if launcher not in ("no", chosen):
            _say_once(
                f"the launcher asks for {launcher}: using {TITLES[chosen]}, which auto is on this "
                f"device with any launcher; an explicit --mixed_precision is obeyed"
            )
        return chosen
    if asked == "fp16" and not torch.accelerator.is_available():
        raise UserError("--mixed_precision fp16: needs a GPU; give no, or auto")
    if asked != "no" and not is_native(asked):
        _say_once(f"warning: this device only emulates {asked}, which is slower than float32")
    return asked


def auto_precision() -> Literal["no", "bf16"]:
    """bf16 on a GPU that computes it itself; elsewhere float32, also on CPUs that have bf16.

    There it is faster, too, but a short run was seen to end 0.7 nats worse (docs/performance.md).
    """
    return "bf16" if torch.cuda.is_available() and is_native("bf16") else "no"


def is_native(precision: str) -> bool:
    """Whether the device computes bf16 or fp16 itself."""
    if torch.cuda.is_available():
        return precision == "fp16" or (
            precision == "bf16" and torch.cuda.is_bf16_supported(including_emulation=False)
        )
    capabilities = torch.cpu.get_capabilities()
    return precision == "bf16" and bool(
        capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    )


@contextmanager
def without_tf32() -> Iterator[None]:
    """While entered, a GPU convolves float32 numbers in float32.

    By default cuDNN rounds them to TF32 first, as no CPU does: latents come out up to 1e-3 off.
    Products of matrices are in float32 unless the process itself has set them otherwise.
    """
    before = _convolutions.fp32_precision
    _convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        _convolutions.fp32_precision = before


def convolves_in_tf32(device: torch.device) -> bool:
    """Whether float32 numbers may be rounded to TF32 before they are convolved there."""
    return device.type == "cuda" and _convolutions.fp32_precision == "tf32"


def _say_once(line: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        say(line)
