"""The precision of a run: what was asked for, as far as the device computes it itself."""

import os

import torch

from vaekit.config import MixedPrecision
from vaekit.errors import UserError, say


def choose_precision(asked: MixedPrecision) -> str:
    """An explicit flag is obeyed; `auto` follows the launcher only where that is native.

    Raises `UserError` for fp16 without a GPU.
    """
    if asked == "auto":
        launcher = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        if launcher == "no" or is_native(launcher):
            return launcher
        _say_once(
            f"the launcher asks for {launcher}, which this device only emulates: using float32"
        )
        return "no"
    if asked == "fp16" and not torch.accelerator.is_available():
        raise UserError("--mixed_precision fp16: needs a GPU; give no, or auto")
    if asked != "no" and not is_native(asked):
        _say_once(
            f"warning: this device only emulates {asked}, which is slow; auto would use float32"
        )
    return asked


def is_native(precision: str) -> bool:
    """Whether the device computes bf16 or fp16 itself, and so faster than float32."""
    if torch.cuda.is_available():
        return precision == "fp16" or (
            precision == "bf16" and torch.cuda.is_bf16_supported(including_emulation=False)
        )
    capabilities = torch.cpu.get_capabilities()
    return precision == "bf16" and bool(
        capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    )


def _say_once(line: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        say(line)
