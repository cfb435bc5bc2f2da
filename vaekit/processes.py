"""The processes of this launch: real ranks, their device, and a precision that is fast there."""

import os

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs, LoggerType, ProjectConfiguration
from joblib import cpu_count

from vaekit.config import MixedPrecision, TrainConfig
from vaekit.errors import UserError
from vaekit.messages import say


def start_accelerator(config: TrainConfig) -> Accelerator:
    """The Accelerator of a training run. Raises `UserError` for what this launch can't do."""
    if config.tracker is not None and config.tracker not in LoggerType.list():
        raise UserError(
            f"--tracker {config.tracker}: expected one that Accelerate knows, of "
            f"{', '.join(LoggerType.list())}"
        )
    accelerator = Accelerator(
        cpu=_needs_cpu_ranks(),
        mixed_precision=_choose_precision(config.mixed_precision),
        log_with=config.tracker,
        project_config=ProjectConfiguration(
            project_dir=config.run, logging_dir=f"{config.run}/trackers"
        ),
        kwargs_handlers=[
            DistributedDataParallelKwargs(gradient_as_bucket_view=True, static_graph=True)
        ],
    )
    _require_all_ranks(accelerator.num_processes)
    _use_all_cores(accelerator.device)
    if config.tracker is not None and not accelerator.log_with:
        raise UserError(
            f"--tracker {config.tracker}: its package is not installed; "
            f"`pip install {config.tracker}`, or leave the flag out"
        )
    return accelerator


def start_ranks() -> PartialState:
    """The ranks of a stage that only reads a model. Raises `UserError` like `start_accelerator`."""
    ranks = PartialState(cpu=_needs_cpu_ranks())
    _require_all_ranks(ranks.num_processes)
    _use_all_cores(ranks.device)
    return ranks


def _launched_processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _needs_cpu_ranks() -> bool:
    # Without a GPU, a launcher configured for GPUs starts processes that Accelerate takes for
    # independent ones; told to use the CPU, it joins them over gloo. A WORLD_SIZE without an
    # address to meet at is no launcher's.
    return (
        _launched_processes() > 1
        and "MASTER_ADDR" in os.environ
        and not torch.accelerator.is_available()
    )


def _require_all_ranks(num_processes: int) -> None:
    if num_processes != _launched_processes():
        raise UserError(
            f"the environment says WORLD_SIZE={_launched_processes()} but Accelerate sees "
            f"{num_processes} process(es), which would each do the whole work; "
            f"launch with `accelerate launch --num_processes N`, or unset WORLD_SIZE"
        )


def _use_all_cores(device: torch.device) -> None:
    # `accelerate launch` gives every process OMP_NUM_THREADS=1 unless that variable says more,
    # which on a CPU would leave the other cores idle.
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ
    if device.type == "cpu" and launched and os.environ.get("OMP_NUM_THREADS") == "1":
        local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(1, cpu_count() // local_processes))


def _choose_precision(asked: MixedPrecision) -> str:
    """An explicit flag is obeyed; `auto` follows the launcher only where that is native."""
    if asked == "auto":
        launcher = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        if launcher == "no" or _is_native(launcher):
            return launcher
        _say_once(
            f"the launcher asks for {launcher}, which this device only emulates: using float32"
        )
        return "no"
    if asked == "fp16" and not torch.accelerator.is_available():
        raise UserError("--mixed_precision fp16: needs a GPU; give no, or auto")
    if asked != "no" and not _is_native(asked):
        _say_once(
            f"warning: this device only emulates {asked}, which is slow; auto would use float32"
        )
    return asked


def _is_native(precision: str) -> bool:
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
