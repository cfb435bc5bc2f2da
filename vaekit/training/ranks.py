"""The processes of this launch: real ranks that meet, agree, and notice when one is lost."""

import atexit
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any, Literal, get_args

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import (
    DDPCommunicationHookType,
    DistributedDataParallelKwargs,
)
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from vaekit.config import TrainConfig
from vaekit.errors import UserError, say
from vaekit.training.precision import choose_precision

# How long a rank waits for another one, which may have stalled or lost its network. A main process
# that evaluates, draws and writes a checkpoint to a slow disk needs less; people need no more.
PATIENCE = timedelta(minutes=5)
# And while one process of a machine decodes its images, which takes as long as there are many.
PATIENCE_WITH_IMAGES = timedelta(hours=2)
ROLL_CALL = timedelta(seconds=10)  # for a rank to answer that it is there
# A launcher looks every tenth of a second for processes that have ended, and of several that have
# it names the lowest rank: so who has lost another rank doesn't end right after it.
SEEN_BY_LAUNCHER = 1.0  # seconds

Purpose = Literal["agreement", "images", "roll call"]

_num_ended = 0  # groups of ranks that this process has been in and left

_MEETING_POINT = ("RANK", "MASTER_ADDR", "MASTER_PORT")
_GRADIENT_HOOKS = {
    "float32": DDPCommunicationHookType.NO,
    "bf16": DDPCommunicationHookType.BF16,
}


def start_accelerator(config: TrainConfig) -> Accelerator:
    """The Accelerator of a training run. Raises `UserError` for what this launch can't do."""
    _require_plain_launch()
    start_ranks()
    return Accelerator(
        cpu=_needs_cpu_ranks(),
        mixed_precision=choose_precision(config.mixed_precision),
        dynamo_backend="no",  # whatever the launcher says, which Accelerate would follow
        kwargs_handlers=[
            DistributedDataParallelKwargs(
                gradient_as_bucket_view=True,
                static_graph=True,
                comm_hook=_GRADIENT_HOOKS[config.gradient_exchange],
            )
        ],
    )


def start_ranks() -> PartialState:
    """The ranks of this launch, which have all met. Raises `UserError` where they can't."""
    world_size, rank = _launched_processes(), _require_rank()
    _require_a_gpu_each()
    _forget_ended_ranks()
    try:
        # Accelerate keeps the ranks for all that comes later.
        ranks = PartialState(
            cpu=_needs_cpu_ranks(),
            store=_store(),
            rank=rank,
            world_size=world_size,
            timeout=_device_patience(),
        )
        _require_all_ranks(ranks.num_processes)
        if ranks.num_processes > 1:  # now, for later one may be missing
            for purpose in get_args(Purpose):
                _hosts(purpose)
    except RuntimeError as error:
        if not _is_of_an_exchange(error):
            raise
        raise UserError(
            f"WORLD_SIZE={world_size}: the processes of this launch did not all meet at "
            f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']} within "
            f"{_device_patience().total_seconds():.0f} seconds ({_first_words(error)}); "
            f"start all of them, on machines that reach one another, or unset WORLD_SIZE"
        ) from error
    return ranks


def _forget_ended_ranks() -> None:
    """Accelerate would go on with them, where one process of a launch trains and then encodes."""
    global _num_ended
    if PartialState._shared_state.get("backend") and not distributed.is_initialized():
        AcceleratorState._reset_state(reset_partial_state=True)
        _hosts.cache_clear()
        _num_ended += 1


def agree(accelerator: Accelerator, request: int) -> int:
    """The greatest `request` of all ranks, which must all ask; no device waits for it."""
    if accelerator.num_processes == 1:
        return request
    greatest = torch.tensor(request)
    distributed.all_reduce(greatest, distributed.ReduceOp.MAX, group=_hosts("agreement"))
    return int(greatest)


class ImageRanks:
    """The processes of this launch, as image sets divide their work among them."""

    def __init__(self, ranks: Accelerator | PartialState) -> None:
        self.index, self.number = ranks.process_index, ranks.num_processes
        self.is_first_on_machine = ranks.is_local_main_process

    def share(self, text: str) -> str:
        """The text that rank 0 gives, to all."""
        if self.number == 1:
            return text
        content = torch.frombuffer(bytearray(text.encode() or b" "), dtype=torch.uint8)
        size = torch.tensor(len(content))
        distributed.broadcast(size, 0, group=_hosts("images"))
        if self.index != 0:
            content = torch.empty(int(size), dtype=torch.uint8)
        distributed.broadcast(content, 0, group=_hosts("images"))
        return bytes(content.tolist()).decode()

    def any(self, is_so: bool) -> bool:
        """Whether it is so for one of them."""
        if self.number == 1:
            return is_so
        number = torch.tensor(int(is_so))
        distributed.all_reduce(number, distributed.ReduceOp.MAX, group=_hosts("images"))
        return bool(number)

    @contextmanager
    def first_on_each_machine(self) -> Iterator[None]:
        """One process of each machine does the block, and then the others.

        For images, that it decodes and they find decoded: they wait for it as for nothing else.
        """
        if not self.is_first_on_machine:
            self._wait()
        yield
        if self.is_first_on_machine:
            self._wait()

    def _wait(self) -> None:
        if self.number > 1:
            distributed.barrier(_hosts("images"))


@contextmanager
def lost_ranks_in_one_line() -> Iterator[None]:
    """A rank that died, stalled or lost its network becomes a `UserError` of those it leaves."""
    try:
        yield
    except RuntimeError as error:
        if not _is_of_an_exchange(error):
            raise
        atexit.register(time.sleep, SEEN_BY_LAUNCHER)
        missing = _missing_ranks()
        fault = (
            f"rank {missing} does not answer"
            if missing
            else "another process has ended or is cut off, and it or the launcher says why"
        )
        raise UserError(
            f"rank {distributed.get_rank()} can't go on alone: {fault} ({_first_words(error)}); "
            f"the same command starts again or goes on"
        ) from error


@cache
def _hosts(purpose: Purpose) -> Any:
    """The ranks by way of their CPUs, whatever their devices talk over.

    A group for each purpose, since an exchange that fails breaks the group it is in.
    """
    timeout = {
        "agreement": PATIENCE,
        "images": PATIENCE_WITH_IMAGES,
        "roll call": 2 * ROLL_CALL,  # the main process answers after its own
    }
    return distributed.new_group(backend="gloo", timeout=timeout[purpose])


def _device_patience() -> timedelta:
    # NCCL aborts a process that has waited in vain; the hosts can say why, and are to notice first.
    return 2 * PATIENCE if torch.cuda.is_available() else PATIENCE


def _is_of_an_exchange(error: RuntimeError) -> bool:
    """Whether ranks could not reach one another; Gloo has no exception of its own."""
    engines = (distributed.DistNetworkError, distributed.DistStoreError)
    return isinstance(error, engines) or "gloo" in str(error).lower()


def _first_words(error: RuntimeError) -> str:
    """What went wrong, without the place in the engine's source and its advice."""
    return re.sub(r"^\[[^]]*/[^]]*\] ", "", str(error)).splitlines()[0].split(". ")[0]


def _missing_ranks() -> str | None:
    """Those that don't answer any more; None where the engine can't tell."""
    # The main process asks; the others hear from it in time, be it that it has gone.
    is_main = distributed.get_rank() == 0
    timeout = ROLL_CALL if is_main else 2 * ROLL_CALL
    try:
        distributed.monitored_barrier(_hosts("roll call"), timeout, wait_all_ranks=True)
    except RuntimeError as error:
        if named := re.search(r"Ranks ([\d, ]+) failed to pass", str(error)):
            return named[1]
        return "0" if not is_main and "Timed out" in str(error) else None
    return None


def _store() -> Store | None:
    """Where the ranks tell one another their addresses; None for a process that meets no other."""
    if _launched_processes() == 1 or any(name not in os.environ for name in _MEETING_POINT):
        return None
    # A store outlives the ranks that have met by it, and may hold the addresses of dead ones.
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"start-{restart}-{_num_ended}", _launchs_store())


@cache
def _launchs_store() -> Store:
    """The launcher's own, or one that the first rank keeps for as long as it lives."""
    store: Store
    store, _, _ = next(rendezvous("env://", timeout=_device_patience()))
    return store


def _require_plain_launch() -> None:
    """Say, or raise `UserError` for, what a launcher asks for and no step here would do."""
    steps = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if steps not in ("1", "auto"):
        raise UserError(
            f"ACCELERATE_GRADIENT_ACCUMULATION_STEPS={steps}: gradients are not accumulated, "
            f"--batch_size is the whole batch of a step; leave that out of the launcher's config"
        )
    for engine in ("DEEPSPEED", "FSDP", "MEGATRON_LM"):
        if os.environ.get(f"ACCELERATE_USE_{engine}", "false").lower() in ("true", "1", "yes"):
            raise UserError(
                f"ACCELERATE_USE_{engine}: every process holds the whole model; launch with "
                f"--config_file accelerate_config.yaml, whose distributed_type is MULTI_GPU"
            )
    backend = os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no")
    if backend.lower() != "no" and os.environ.get("RANK", "0") == "0":
        say(
            f"the launcher asks for dynamo ({backend.lower()}), which is not used: only --compile "
            f"has a step compiled"
        )


def _require_rank() -> int:
    """RANK of a launch that says all that its processes need to meet."""
    world_size = _launched_processes()
    lacking = [name for name in _MEETING_POINT if name not in os.environ]
    if world_size < 2 or len(lacking) == len(_MEETING_POINT):
        return 0
    if lacking:
        raise UserError(
            f"the environment says WORLD_SIZE={world_size} without {lacking[0]}, by which its "
            f"processes would meet; launch with `accelerate launch`, or unset WORLD_SIZE"
        )
    rank = _environment_number("RANK", 0)
    if not 0 <= rank < world_size:
        raise UserError(
            f"RANK={rank}: expected from 0 to {world_size - 1}, since WORLD_SIZE={world_size}"
        )
    return rank


def _require_a_gpu_each() -> None:
    # NCCL takes no two processes on one GPU, and says so late and at length.
    num_processes, num_devices = (
        _environment_number("LOCAL_WORLD_SIZE", 1),
        torch.cuda.device_count(),
    )
    if torch.cuda.is_available() and num_processes > max(num_devices, 1):
        raise UserError(
            f"{num_processes} processes on a machine with {num_devices} GPU(s), expected no more "
            f"than one for each; launch with `accelerate launch --num_processes {num_devices}`"
        )


def _launched_processes() -> int:
    return _environment_number("WORLD_SIZE", 1)


def _environment_number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    try:
        return int(text)
    except ValueError as error:
        raise UserError(f"{name}={text!r}: expected a whole number; unset it") from error


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
